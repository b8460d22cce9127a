"""Uniform images of a ball: of the ball that [0, 1] cuts, or of the whole one, clipped afterwards."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from deltaball.local.balls import LinfBall
from deltaball.local.kernels.noise import Noise
from deltaball.local.neighbourhoods import over_pixels


@dataclass(frozen=True)
class Uniform(Noise):
    """Uniform in the L∞ ball cut by [0, 1], which is a product of intervals, and so exact."""

    norm: str = "linf"

    noise_of: ClassVar[str] = "uniform"

    def noise(self, random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
        return random.random(math.prod(shape), dtype=np.float32).reshape(tuple(shape))

    def moved(self, x: torch.Tensor, noise: torch.Tensor, size: float | torch.Tensor) -> torch.Tensor:
        low, high = LinfBall(x, size).bounds
        return torch.lerp(low, high, noise).clamp_(low, high)


@dataclass(frozen=True)
class UniformClipped(Noise):
    """Uniform in the whole ball; then pixels below 0 are set to 0 and those above 1 to 1.

    Not uniform in the ball that [0, 1] cuts: where x lies on the border of [0, 1], about half of the pixels that
    would leave it end there.
    """

    norm: str = "linf"

    @property
    def noise_of(self) -> str:
        return f"uniform in {self.norm}"

    def noise(self, random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
        return UNIT_BALLS[self.norm](random, math.prod(shape)).astype(np.float32).reshape(tuple(shape))

    def moved(self, x: torch.Tensor, noise: torch.Tensor, size: float | torch.Tensor) -> torch.Tensor:
        return noise.mul_(over_pixels(size)).add_(x).clamp_(0, 1)


def _in_linf(random: np.random.Generator, pixels: int) -> np.ndarray:
    return random.uniform(-1, 1, pixels)


def _in_l2(random: np.random.Generator, pixels: int) -> np.ndarray:
    direction = random.standard_normal(pixels)
    return direction / np.linalg.norm(direction) * random.random() ** (1 / pixels)


def _in_l1(random: np.random.Generator, pixels: int) -> np.ndarray:
    # Magnitudes of a uniform image and what is left to 1 are spacings: exponential numbers over their sum.
    sizes = random.standard_exponential(pixels + 1)
    return random.choice((-1.0, 1.0), pixels) * sizes[:-1] / sizes.sum()


UNIT_BALLS = {"linf": _in_linf, "l2": _in_l2, "l1": _in_l1}
