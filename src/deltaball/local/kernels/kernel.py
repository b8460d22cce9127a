"""What all kernels have in common: images around each point, drawn by key."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
import torch

from deltaball.base.draws import generator
from deltaball.base.implementations import implementation
from deltaball.study.kernels import KERNELS, ChosenKernel


@dataclass(frozen=True)
class Kernel(ABC):
    """Q(·|x): a distribution of images around each image x (papers 000 and 003, Definition 1).

    What is drawn belongs to a point's key alone: it is the same for every network, in every batch, at every rerun and
    on every machine, and more draws add to fewer.
    """

    @abstractmethod
    def draws(self, x: torch.Tensor, keys: Sequence[int]) -> Iterator[torch.Tensor]:
        """Without end, one float32 image of each point after another, [n, h, w, c].

        `x` are float32 images [n, h, w, c] in [0, 1], `keys` [n] the points' own numbers.
        """

    def sample(self, x: torch.Tensor, keys: Sequence[int], count: int) -> torch.Tensor:
        """The first `count` draws of each point, [n, count, h, w, c]."""
        return torch.stack([*islice(self.draws(x, keys), count)], 1)


@dataclass(frozen=True)
class Sized(Kernel):
    """Noise times a size, added to x. Of another size the images are the same but for how far they are moved.

    With a `density` the size is drawn too, anew for each image: `uniform` on [least, size], or `reciprocal`, ∝ 1/ε
    there (paper 000, Example 4). An image, its size and its point are then one joint draw (paper 003, Definition 4).
    """

    size: float
    density: str | None = None
    least: float = 0.0

    noise_of: ClassVar[str]  # by which its numbers are drawn

    def draws(self, x: torch.Tensor, keys: Sequence[int]) -> Iterator[torch.Tensor]:
        noises = [generator(self.noise_of, key) for key in keys]
        shares = [generator(self.noise_of, "size", key) for key in keys]
        while True:
            noise = np.stack([self.noise(one, x.shape[1:]) for one in noises])
            yield self.moved(x, torch.from_numpy(noise).to(x.device), self._sizes(shares, x))

    def _sizes(self, shares: Sequence[np.random.Generator], x: torch.Tensor) -> float | torch.Tensor:
        """One size, or one of each point [n] in float64."""
        if self.density is None:
            return self.size
        drawn = np.array([one.random() for one in shares])
        if self.density == "uniform":
            sizes = self.least + (self.size - self.least) * drawn
        else:
            sizes = self.least * (self.size / self.least) ** drawn
        return torch.from_numpy(sizes).to(x.device)

    @abstractmethod
    def noise(self, random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
        """float32 numbers [h, w, c] of one draw, whatever the size."""

    @abstractmethod
    def moved(self, x: torch.Tensor, noise: torch.Tensor, size: float | torch.Tensor) -> torch.Tensor:
        """The images [n, h, w, c] that noise of one size, or of sizes [n], makes of x."""


def kernel(chosen: ChosenKernel) -> Kernel:
    """The kernel that a measure asks."""
    entry = KERNELS[chosen.name]
    values = {"size" if name == entry.size else name: value for name, value in chosen.parameters}
    return implementation(entry.implementation)(**values)
