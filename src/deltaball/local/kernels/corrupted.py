"""Corruptions as kernels: what MNIST-C makes of a point, by one of its corruptions or by all of them in turn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import torch

from deltaball.local.corruptions.corrupted import as_bytes, corrupted
from deltaball.local.corruptions.kept import Kept, keys_of
from deltaball.local.kernels.kernel import Kernel


@dataclass(frozen=True)
class Corrupted(Kernel):
    """The images of some corruptions, in their order and again from the first; of 256 levels, as MNIST-C's.

    After a whole number of turns every corruption has its share, so the mean of a point's draws is the mean over
    corruptions. `severity` None is MNIST-C's own of each. Where corrupted images of the points are `kept`, they are
    taken from there.
    """

    names: tuple[str, ...]
    severity: int | None = None
    kept: Kept | None = field(default=None, compare=False, repr=False)

    def draws(self, x: torch.Tensor, keys: Sequence[int]) -> Iterator[torch.Tensor]:
        for turn in count():
            for name in self.names:
                found = self._made(name, turn, x, keys)
                yield torch.from_numpy(found.astype(np.float32) / np.float32(255)).to(x.device)

    def _made(self, name: str, turn: int, x: torch.Tensor, keys: Sequence[int]) -> np.ndarray:
        if self.kept is not None:
            return self.kept.corrupted(name, keys, self.severity, turn)
        return corrupted(name, as_bytes(x.cpu().numpy()), keys_of(keys, turn), self.severity)
