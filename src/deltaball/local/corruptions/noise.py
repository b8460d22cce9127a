"""Noise of single pixels (MNIST-C's ``shot_noise`` and ``impulse_noise``). Channels have noise of their own."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator


def shot_noise(images: np.ndarray, draws: Sequence[Generator], severity: int) -> np.ndarray:
    """Poisson(c x) / c: light that arrives in few photons, c of them in a white pixel. Above 1 where there are more."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return np.stack([one.poisson(image * photons) / photons for one, image in zip(draws, images, strict=True)])


def impulse_noise(images: np.ndarray, draws: Sequence[Generator], severity: int) -> np.ndarray:
    """Salt and pepper: a share of the pixels becomes 0 or 1, each with probability ½."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    numbers = np.stack([one.random((2, *image.shape)) for one, image in zip(draws, images, strict=True)])
    return np.where(numbers[:, 0] <= share, np.where(numbers[:, 1] <= 0.5, 1.0, 0.0), images)
