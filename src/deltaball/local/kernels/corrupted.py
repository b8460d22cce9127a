"""Corruptions as kernels: what MNIST-C makes of a point, by one of its corruptions or by all of them in turn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch

from deltaball.local.corruptions.corrupted import as_bytes, corrupted
from deltaball.local.kernels.kernel import Kernel


@dataclass(frozen=True)
class Corrupted(Kernel):
    """The images of some corruptions, in their order and again from the first; of 256 levels, as MNIST-C's.

    After a whole number of turns every corruption has its share, so the mean of a point's draws is the mean over
    corruptions. `severity` None is MNIST-C's own of each.
    """

    names: tuple[str, ...]
    severity: int | None = None

    def draws(self, x: torch.Tensor, keys: Sequence[int]) -> Iterator[torch.Tensor]:
        images = as_bytes(x.cpu().numpy())
        for turn in count():
            own = keys if turn == 0 else [f"{key} {turn}" for key in keys]
            for name in self.names:
                found = corrupted(name, images, own, self.severity)
                yield torch.from_numpy(found.astype(np.float32) / np.float32(255)).to(x.device)
