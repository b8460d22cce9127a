"""What kernels may know besides the points: the training images, and whose labels are whose."""

from dataclasses import dataclass

import numpy as np

# Training images whose distances are taken at once.
AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Known:
    """The training split, a sample of the input distribution, and the labels of the points."""

    images: np.ndarray  # float32 [m, h, w, c]
    labels: np.ndarray  # int64 [m]
    of_points: np.ndarray | None = None  # int64 [n]

    def distances(self, x: np.ndarray) -> np.ndarray:
        """The L2 distance of images [n, h, w, c] to each training image, float64 [n, m].

        From products in float64, so that machines agree but for distances that are equal.
        """
        flat = x.reshape(len(x), -1).astype(np.float64)
        squares = np.square(flat).sum(1)[:, None]
        found = np.empty((len(x), len(self.images)))
        for start in range(0, len(self.images), AT_ONCE):
            part = self.images[start : start + AT_ONCE]
            others = part.reshape(len(part), -1).astype(np.float64)
            found[:, start : start + AT_ONCE] = squares + np.square(others).sum(1) - 2 * flat @ others.T
        return np.sqrt(found.clip(min=0))

    def keep_label(self, images: np.ndarray, x: np.ndarray, points: np.ndarray, apart: np.ndarray) -> np.ndarray:
        """Which of `images` [k, h, w, c] drawn around x [k, h, w, c] have their point's label, bool [k].

        The label of an image is here that of the nearest, in L2, of the training images and x itself. `points` [k] are
        the places of the points, `apart` [k] what `apart` says of them.
        """
        moved = np.sqrt(np.square(images.astype(np.float64) - x).reshape(len(x), -1).sum(1))
        kept = apart >= 2 * moved  # no image of another label can be as near as x is
        (open_ones,) = np.nonzero(~kept)
        if len(open_ones):
            distances = self.distances(images[open_ones])
            others = self.labels != self.of_points[points[open_ones], None]
            nearest = np.where(others, np.inf, distances).min(1)
            own = np.minimum(nearest, moved[open_ones])
            kept[open_ones] = own <= np.where(others, distances, np.inf).min(1)
        return kept

    def apart(self, x: np.ndarray) -> np.ndarray:
        """How far the nearest training image of another label is from each point [n, h, w, c]; ∞ if there is none."""
        others = self.labels != self.of_points[:, None]
        return np.where(others, self.distances(x), np.inf).min(1)
