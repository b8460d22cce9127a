"""What all kernels have in common: images around each point, drawn by key."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from deltaball.base.implementations import implementation
from deltaball.local.kernels.known import Known
from deltaball.study.kernels import ChosenKernel


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

    def points(self, x: torch.Tensor, keys: Sequence[int]) -> torch.Tensor:
        """The images [n, h, w, c] around which it draws, where the test images are x."""
        return x

    def sample(self, x: torch.Tensor, keys: Sequence[int], count: int) -> torch.Tensor:
        """The first `count` draws of each point, [n, count, h, w, c]."""
        return torch.stack([*islice(self.draws(x, keys), count)], 1)


@dataclass(frozen=True)
class Sized(Kernel):
    """A kernel that goes as far as its size, which may be drawn too, anew for each image.

    With a `density` it is: `uniform` on [least, size], or `reciprocal`, ∝ 1/ε there (paper 000, Example 4). An image,
    its size and its point are then one joint draw (paper 003, Definition 4).

    With `labels` kept an image has the label of its point (paper 003, Example 4; type 3), which needs what is `known`.
    """

    size: float
    density: str | None = None
    least: float = 0.0
    labels: str = "any"
    known: Known | None = field(default=None, compare=False, repr=False)

    def sizes(self, random: Sequence[np.random.Generator]) -> np.ndarray:
        """The size of the next image of each point, [n] in float64; nothing is drawn where there is one size."""
        if self.density is None:
            return np.full(len(random), self.size)
        shares = np.array([one.random() for one in random])
        if self.density == "uniform":
            return self.least + (self.size - self.least) * shares
        return self.least * (self.size / self.least) ** shares


def kernel(chosen: ChosenKernel, known: Known | None = None) -> Kernel:
    """The kernel that a measure asks. What is `known` is needed where `chosen.needs_images` says so."""
    entry = chosen.entry
    names = {entry.size: "size", "points": "around"}
    values = {names.get(name, name): value for name, value in chosen.parameters}
    if entry.corruptions and not entry.is_brought:
        values |= {"names": entry.corruptions, "kept": known and known.corrupted}
    return implementation(entry.implementation)(**values, **({"known": known} if chosen.needs_images else {}))
