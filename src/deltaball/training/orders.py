"""The order of the data in each epoch of a pack; on a GPU it is drawn while the epoch before is computed."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from deltaball.base.draws import generator


def permutation(origin: str, epoch: int, points: int) -> np.ndarray:
    """The order, int64 [points], in which a network of this origin sees the data in an epoch."""
    return generator(origin, f"order of epoch {epoch}").permutation(points)


class Orders:
    """Orders of so many points for networks of these origins, [K, points] for each epoch."""

    def __init__(self, origins: Sequence[str], points: int, device: str) -> None:
        self.origins, self.points = origins, points
        self.drawn: dict[int, list[Future[None]]] = {}  # by epoch
        # Two, so that one is drawn while a GPU copies the other; pinned, so that it does so by itself.
        self.buffers: list[np.ndarray] = []
        if device == "cuda":
            shape = (len(origins), points)
            self.buffers = [torch.empty(shape, dtype=torch.int64, pin_memory=True).numpy() for _ in range(2)]

    def draw_ahead(self, epoch: int) -> None:
        """Begin to draw the orders of an epoch, where a GPU leaves the time for it."""
        if self.buffers:
            rows = zip(self.buffers[epoch % 2], self.origins, strict=True)
            self.drawn[epoch] = [_threads().submit(_draw, row, origin, epoch) for row, origin in rows]

    def of(self, epoch: int) -> np.ndarray:
        """The orders of an epoch. On a GPU they are overwritten when those of the epoch after the next are drawn."""
        if not self.buffers:
            return np.stack([permutation(origin, epoch, self.points) for origin in self.origins])
        if epoch not in self.drawn:
            self.draw_ahead(epoch)
        for row in self.drawn.pop(epoch):
            row.result()
        return self.buffers[epoch % 2]


def _draw(row: np.ndarray, origin: str, epoch: int) -> None:
    row[:] = permutation(origin, epoch, len(row))


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    # numpy lets go of Python's lock while it shuffles.
    return ThreadPoolExecutor(os.cpu_count(), "orders")
