"""A corrupted set that a user brings as a kernel: the images of each point, one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import torch

from deltaball.local.kernels.kernel import Kernel
from deltaball.local.kernels.known import Known


@dataclass(frozen=True)
class Brought(Kernel):
    """The images that a set holds of a point, in the order of the file and again from the first."""

    content: str
    known: Known = field(compare=False, repr=False, default=None)

    def draws(self, x: torch.Tensor, keys: Sequence[int]) -> Iterator[torch.Tensor]:
        images = self.known.brought[self.content]
        for turn in count():
            found = images[np.asarray(keys), turn % images.shape[1]]
            yield torch.from_numpy(found.astype(np.float32) / np.float32(255)).to(x.device)


def of_points(images: np.ndarray, indices: np.ndarray, points: np.ndarray, draws: int) -> np.ndarray:
    """The first images of each point, [N, draws, h, w, c], given the places of the points in the test split [N].

    `images` are [n, h, w, c], of the test images `indices` [n]; of each point there are so many or more.
    """
    order = np.argsort(indices, kind="stable")
    first = np.searchsorted(indices[order], points)
    return images[order[first[:, None] + np.arange(draws)]]
