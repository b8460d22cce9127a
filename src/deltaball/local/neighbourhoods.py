"""Sets around a point within which a network should not change its mind."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LinfBall:
    """All images within `delta` of the point in every pixel, and within [0, 1] (paper 004, Definition 1, p = ∞)."""

    delta: float

    def bounds(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The ball as a box: lower and upper float32 images, shaped like x.

        Rounded towards x, so that no float32 image between them is further than delta from x in real arithmetic.
        """
        exact = x.to(torch.float64)
        lower = (exact - self.delta).clamp(0, 1).to(x.dtype)
        upper = (exact + self.delta).clamp(0, 1).to(x.dtype)
        lower = torch.where(exact - lower > self.delta, lower.nextafter(x), lower)
        upper = torch.where(upper - exact > self.delta, upper.nextafter(x), upper)
        return lower, upper

    def project(self, candidate: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The closest image of the ball to `candidate`, [..., *x.shape]."""
        lower, upper = self.bounds(x)
        return candidate.clamp(lower, upper)

    def contains(self, candidate: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Whether each image of `candidate` [..., n, h, w, c] lies in the ball around its point of x [n, h, w, c]."""
        distance = (candidate.to(torch.float64) - x.to(torch.float64)).abs()
        inside = (distance <= self.delta) & (candidate >= 0) & (candidate <= 1)
        return inside.flatten(-3).all(-1)
