"""What kernels may know besides the points: the training images, whose labels are whose, and auto-encoders."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from deltaball.local.corruptions.kept import Kept
from deltaball.networks.autoencoders import AutoEncoder

# Training images whose distances are taken at once.
AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Known:
    """The training split, a sample of the input distribution, and the labels of the points."""

    images: np.ndarray  # float32 [m, h, w, c]
    labels: np.ndarray  # int64 [m]
    of_points: np.ndarray | None = None  # int64 [n]
    autoencoders: Mapping[str, AutoEncoder] = field(default_factory=dict)  # by their labels
    corrupted: Kept | None = None  # the points
    brought: Mapping[str, np.ndarray] = field(default_factory=dict)  # uint8 [n, draws, h, w, c], by a set's content

    def distances(self, x: np.ndarray) -> np.ndarray:
        """The L2 distance of images [n, h, w, c] to each training image, float64 [n, m]."""
        return np.concatenate([np.sqrt(squares) for _, squares in self._squares(x)], 1)

    def nearest(self, x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far the nearest training image of the same and of another label is from each of x, [n]; ∞ if none is."""
        own, others = np.full((2, len(x)), np.inf)
        for part, squares in self._squares(x):
            same = self.labels[part] == labels[:, None]
            np.minimum(own, np.where(same, squares, np.inf).min(1), out=own)
            np.minimum(others, np.where(same, np.inf, squares).min(1), out=others)
        return np.sqrt(own), np.sqrt(others)

    def keep_label(self, images: np.ndarray, x: np.ndarray, points: np.ndarray, apart: np.ndarray) -> np.ndarray:
        """Which of `images` [k, h, w, c] drawn around x [k, h, w, c] have their point's label, bool [k].

        The label of an image is here that of the nearest, in L2, of the training images and x itself. `points` [k] are
        the places of the points, `apart` [k] how far the nearest training image of another label is from each.
        """
        moved = np.sqrt(np.square(images.astype(np.float64) - x).reshape(len(x), -1).sum(1))
        kept = apart >= 2 * moved  # no image of another label can be as near as x is
        (left,) = np.nonzero(~kept)
        if len(left):
            own, others = self.nearest(images[left], self.of_points[points[left]])
            kept[left] = np.minimum(own, moved[left]) <= others
        return kept

    def _squares(self, x: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Squared distances of images to some training images after others, float64 [n, those].

        From products in float64, so that machines agree on which is nearer, but for distances that are equal.
        """
        flat = x.reshape(len(x), -1).astype(np.float64)
        squares = np.square(flat).sum(1)[:, None]
        for start in range(0, len(self.images), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            others = self.images[part].reshape(-1, flat.shape[1]).astype(np.float64)
            yield part, (squares + np.square(others).sum(1) - 2 * flat @ others.T).clip(min=0)
