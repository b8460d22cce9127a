"""Noise times a size, added to an image."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from deltaball.base.draws import generator
from deltaball.local.kernels.kernel import Sized

# How often an image is drawn again that does not have its point's label, before the point itself stands in.
TRIES = 100


@dataclass(frozen=True)
class Noise(Sized):
    """Of another size the images are the same but for how far they are moved.

    With `labels` kept an image is drawn again until it has its point's label, by the nearest training image
    (`Known.keep_label`); after 100 others in a row the point itself stands in. Points are test images, or of the
    `cube`, uniform in [0, 1]^m.
    """

    around: str = "test"

    noise_of: ClassVar[str]  # by which its numbers are drawn

    def points(self, x: torch.Tensor, keys: Sequence[int]) -> torch.Tensor:
        if self.around == "test":
            return x
        drawn = [generator("cube", key).random(x[0].numel(), dtype=np.float32) for key in keys]
        return torch.from_numpy(np.stack(drawn)).view_as(x).to(x.device)

    def draws(self, x: torch.Tensor, keys: Sequence[int]) -> Iterator[torch.Tensor]:
        random = [(generator(self.noise_of, key), generator(self.noise_of, "size", key)) for key in keys]
        if self.labels == "any":
            while True:
                yield self._moved(x, random)
        points = x.cpu().numpy()
        _, apart = self.known.nearest(points, self.known.of_points)
        while True:
            images, left = x.clone(), np.arange(len(x))
            for _ in range(TRIES):
                drawn = self._moved(x[left], [random[one] for one in left])
                kept = self.known.keep_label(drawn.cpu().numpy(), points[left], left, apart[left])
                images[left[kept]] = drawn[kept]
                left = left[~kept]
                if not len(left):
                    break
            yield images

    def _moved(
        self, x: torch.Tensor, random: Sequence[tuple[np.random.Generator, np.random.Generator]]
    ) -> torch.Tensor:
        """The next image of each point."""
        noise = np.stack([self.noise(own, x.shape[1:]) for own, _ in random])
        sizes = self.size if self.density is None else torch.from_numpy(self.sizes([own for _, own in random]))
        sizes = sizes.to(x.device) if isinstance(sizes, torch.Tensor) else sizes
        return self.moved(x, torch.from_numpy(noise).to(x.device), sizes)

    @abstractmethod
    def noise(self, random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
        """float32 numbers [h, w, c] of one draw, whatever the size."""

    @abstractmethod
    def moved(self, x: torch.Tensor, noise: torch.Tensor, size: float | torch.Tensor) -> torch.Tensor:
        """The images [n, h, w, c] that noise of one size, or of sizes [n], makes of x."""
