"""Blurs: through frosted glass and by motion (MNIST-C's ``glass_blur`` and ``motion_blur``)."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter


def gaussian(images: np.ndarray, deviation: float, *, across: bool = True) -> np.ndarray:
    """Images [n, h, w, c] blurred along their columns, and `across` their rows too; edges are repeated outside.

    The window is cut at four standard deviations, as scikit-image does.
    """
    return gaussian_filter(images, (0, deviation, deviation if across else 0, 0), mode="nearest", truncate=4)


def glass_blur(images: np.ndarray, draws: Sequence[Generator], severity: int) -> np.ndarray:
    """Blurred, then pixels swapped with near ones from the bottom right to the top left, then blurred again.

    Each pixel is swapped with probability ½, with the one that lies off by (dx, dy), each uniform in {-d, …, d - 1}.
    Between blurs values are cut off to 1/255. Of images with one channel MNIST-C blurs columns alone (it takes the rows
    for channels), and so do we; of others both directions.
    """
    deviation, reach, passes = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    height, width, channels = images.shape[1:]
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    # What rounding errors left a little below a whole number counts as that number.
    blurred = np.floor(gaussian(images, deviation, across=channels > 1) * 255 + 1e-6)
    places = (passes, len(rows), len(columns))
    # For the last axis 0 and 1: dx and dy.
    swapped = np.stack([one.random(places) < 0.5 for one in draws], -1)
    offsets = np.stack([one.integers(-reach, reach, (*places, 2)) for one in draws], -1)
    for turn in range(passes):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                chosen = np.flatnonzero(swapped[turn, i, j])
                dx, dy = offsets[turn, i, j][:, chosen]
                others = (chosen, row + dy, column + dx)
                moved = blurred[others]
                blurred[others] = blurred[chosen, row, column]
                blurred[chosen, row, column] = moved
    return gaussian(blurred / 255, deviation, across=channels > 1)


def motion_blur(images: np.ndarray, draws: Sequence[Generator], severity: int) -> np.ndarray:
    """The mean of an image and its shifts along a line, whose angle is uniform in [-45°, 45°], as ImageMagick has it.

    Of radius r and deviation σ there are 2 r + 1 weights ∝ exp(-j² / 2σ²), j = 0, 1, …, on one side. Weight j reads
    the pixel that lies ⌈j cos θ - ½⌉ columns to the right and ⌈j sin θ - ½⌉ rows below; edges are repeated outside.
    """
    radius, deviation = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    angles = np.deg2rad([one.uniform(-45, 45) for one in draws])
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    weights /= weights.sum()
    right = np.ceil(np.outer(steps, np.cos(angles)) - 0.5).astype(int)
    down = np.ceil(np.outer(steps, np.sin(angles)) - 0.5).astype(int)
    count, height, width, _ = images.shape
    blurred = np.zeros_like(images)
    for weight, dx, dy in zip(weights, right, down, strict=True):
        rows = np.clip(np.arange(height) + dy[:, None], 0, height - 1)
        columns = np.clip(np.arange(width) + dx[:, None], 0, width - 1)
        blurred += weight * images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return blurred
