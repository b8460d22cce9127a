"""Training images near a point: the input distribution, as far as it is known, conditioned on a ball."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from deltaball.base.draws import generator
from deltaball.local.kernels.kernel import Sized

# Points whose distances to all training images are held at once.
AT_ONCE = 64


class _Near(NamedTuple):
    """Training images in the order of their distances from a point, as far as they are in its largest ball."""

    distances: np.ndarray  # float32
    images: np.ndarray  # places among the training images, int32


@dataclass(frozen=True)
class Near(Sized):
    """P | B_ε(x): one of the training images within ε of x in L2, each as likely (papers 000 and 003: on-manifold).

    P is here the training split itself. Where the ball holds none of its images the point is drawn, which lies in its
    own ball, or with `empty` nearest the closest training image, which does not. With `labels` kept, images of other
    labels than the point's do not count. With the density `reciprocal` the mean agreement is R4 of paper 000
    (Example 4), whose integral diverges without a smallest ε.
    """

    norm: str = "l2"
    empty: str = "itself"

    def draws(self, x: torch.Tensor, keys: Sequence[int]) -> Iterator[torch.Tensor]:
        random = [(generator("near", key), generator("near", "size", key)) for key in keys]
        points = x.cpu().numpy()
        near = [*self._near(points)]
        while True:
            images = points.copy()
            sizes = self.sizes([own for _, own in random])
            for place, (own, size) in enumerate(zip(near, sizes, strict=True)):
                # One number of each point for each image, so that balls of any sizes draw from the same numbers.
                share, count = random[place][0].random(), np.searchsorted(own.distances, size, "right")
                if count or (self.empty == "nearest" and len(own.images)):
                    images[place] = self.known.images[own.images[int(share * max(1, count))]]
            yield torch.from_numpy(images).to(x.device)

    def _near(self, x: np.ndarray) -> Iterator[_Near]:
        for start in range(0, len(x), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            distances = self.known.distances(x[rows])
            if self.labels == "kept":
                distances = np.where(self.known.labels != self.known.of_points[rows, None], np.inf, distances)
            for own in distances:
                inside = max(int((own <= self.size).sum()), int(np.isfinite(own).any()))
                order = np.argpartition(own, inside - 1)[:inside] if 0 < inside < len(own) else np.arange(inside)
                # Equal distances keep the order of the training split.
                order = order[np.lexsort((order, own[order]))]
                yield _Near(own[order].astype(np.float32), order.astype(np.int32))
