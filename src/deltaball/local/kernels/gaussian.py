"""Gaussian noise of standard deviation σ in every pixel, each by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deltaball.local.kernels.noise import Noise
from deltaball.local.neighbourhoods import over_pixels


@dataclass(frozen=True)
class Gaussian(Noise):
    """x + σ z, as randomized smoothing has it. Images leave [0, 1]."""

    noise_of = "gaussian"

    def noise(self, random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
        return random.standard_normal(tuple(shape), dtype=np.float32)

    def moved(self, x: torch.Tensor, noise: torch.Tensor, size: float | torch.Tensor) -> torch.Tensor:
        return noise.mul_(over_pixels(size)).add_(x)


class GaussianClipped(Gaussian):
    """The same, with pixels below 0 set to 0 and those above 1 to 1."""

    def moved(self, x: torch.Tensor, noise: torch.Tensor, size: float | torch.Tensor) -> torch.Tensor:
        return super().moved(x, noise, size).clamp_(0, 1)
