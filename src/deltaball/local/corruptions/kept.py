"""What corruptions make of the points of a study: made once for all networks, in whatever packs and jobs they are."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from deltaball.local.corruptions.corrupted import corrupted

# Points that share a file. Networks of one pack see fewer at once, and those of a larger N begin with the same files.
BLOCK = 512
# Blocks that stay in memory: the fifteen corruptions, some at all severities.
IN_MEMORY = 64


class Kept:
    """The corrupted images of points, kept in a folder under hashes of all they are made of."""

    def __init__(self, points: np.ndarray, folder: Path) -> None:
        """`points` are uint8 images [N, h, w, c]; their keys are 0 … N - 1."""
        self.points, self.folder = points, folder
        self._blocks: OrderedDict[tuple[str, int | None, int, int], np.ndarray] = OrderedDict()
        self._lock = Lock()  # packs may be measured side by side

    def corrupted(self, name: str, keys: Sequence[int], severity: int | None = None, turn: int = 0) -> np.ndarray:
        """As `corruptions.corrupted` gives them for the points with these keys: uint8 [n, h, w, c].

        After the first `turn` images are drawn anew.
        """
        asked = np.asarray(keys)
        found = np.empty((len(asked), *self.points.shape[1:]), np.uint8)
        for block in np.unique(asked // BLOCK):
            own = asked // BLOCK == block
            with self._lock:
                images = self._block(name, severity, turn, int(block))
            found[own] = images[asked[own] - block * BLOCK]
        return found

    def _block(self, name: str, severity: int | None, turn: int, block: int) -> np.ndarray:
        place = (name, severity, turn, block)
        if place not in self._blocks:
            start = block * BLOCK
            images = self.points[start : start + BLOCK]
            keys = keys_of(range(start, start + len(images)), turn)
            self._blocks[place] = corrupted(name, images, keys, severity, self.folder)
        self._blocks.move_to_end(place)
        while len(self._blocks) > IN_MEMORY:
            self._blocks.popitem(last=False)
        return self._blocks[place]


def keys_of(points: Sequence[int], turn: int) -> Sequence[object]:
    """The keys of points' random numbers in a turn."""
    return points if turn == 0 else [f"{point} {turn}" for point in points]
