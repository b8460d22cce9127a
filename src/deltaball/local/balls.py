"""Sets around a point within which a network should not change its mind: norm balls, always within [0, 1].

A ball knows what attacks and certificates need of it: the nearest of its images, the one that lies furthest along a
gradient, and the exact minimum of a linear function. All of them respect [0, 1], not only the ball.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch

# Of a sum of squares or magnitudes in float64: what its rounding may hide, so that a point that is asked to lie on
# the sphere is placed just inside.
ROUNDING = 1e-12
BISECTIONS = 60


@dataclass(frozen=True)
class Ball:
    """All images within `delta` of a point in the `norm` linf, l2 or l1, and within [0, 1] (paper 004, Definition 1).

    `delta` is in units of pixels, whose range is 1.
    """

    norm: str
    delta: float

    def around(self, x: torch.Tensor) -> "Neighbourhood":
        """The ball around each image of x [n, h, w, c], float32 in [0, 1]."""
        return {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}[self.norm](x, self.delta)


@dataclass(frozen=True, eq=False)
class Neighbourhood(ABC):
    """The δ-balls around the images x [n, h, w, c], within [0, 1].

    `radius` is one number, or a tensor that broadcasts to [..., n] for balls of several sizes. Displacements are
    float64 and flat, [..., n, d] with d = h w c.
    """

    x: torch.Tensor
    radius: float | torch.Tensor

    @cached_property
    def centre(self) -> torch.Tensor:
        """x as float64 [n, d]."""
        return self.x.flatten(-3).to(torch.float64)

    @cached_property
    def box(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The smallest and largest displacement of each pixel, [n, d] (or [..., n, d] for radii [..., n])."""
        reach = self._reach
        return torch.maximum(-reach, -self.centre), torch.minimum(reach, 1 - self.centre)

    @property
    def _reach(self) -> torch.Tensor:
        return torch.as_tensor(self.radius, dtype=torch.float64, device=self.x.device)[..., None]

    def contains(self, candidate: torch.Tensor) -> torch.Tensor:
        """Whether each image of `candidate` [..., n, h, w, c] lies in the ball around its point, and in [0, 1]."""
        near, flat = self.distance(candidate) <= self._reach[..., 0], candidate.flatten(-3)
        return near & (flat.amin(-1) >= 0) & (flat.amax(-1) <= 1)

    def distance(self, candidate: torch.Tensor) -> torch.Tensor:
        """The norm of candidate - x in float64, [..., n, h, w, c] → [..., n]."""
        return self._length(candidate.flatten(-3).to(torch.float64) - self.centre)

    def project(self, candidate: torch.Tensor) -> torch.Tensor:
        """The closest image (in the Euclidean sense) of the ball to each of `candidate` [..., n, h, w, c]."""
        displacement = candidate.flatten(-3).to(torch.float64) - self.centre
        return self._placed(self._nearest(displacement))

    def steepest(self, gradient: torch.Tensor) -> torch.Tensor:
        """The image of the ball that lies furthest along `gradient` [..., n, h, w, c].

        Pixels whose gradient is zero stay where they are.
        """
        return self._placed(self._furthest(gradient.flatten(-3).to(torch.float64)))

    @abstractmethod
    def minimum(self, coefficients: torch.Tensor) -> torch.Tensor:
        """The minimum of coefficients · (z - x) over the images z of the ball.

        float64 [..., n, rows, d] → [..., n, rows]. Exact but for rounding; for L2 the dual's value at the multiplier
        that was found, so never above the minimum.
        """

    @abstractmethod
    def _length(self, displacement: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _nearest(self, displacement: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _furthest(self, direction: torch.Tensor) -> torch.Tensor: ...

    def _placed(self, displacement: torch.Tensor) -> torch.Tensor:
        """x + displacement in float32, rounded towards x, so that no rounding leaves the ball or [0, 1]."""
        point = self.x.flatten(-3)
        moved = (self.centre + displacement).to(point.dtype)
        beyond = moved.to(torch.float64).sub_(self.centre).abs_() > displacement.abs()
        if beyond.any():
            moved = torch.where(beyond, moved.nextafter(point.expand_as(moved)), moved)
        return moved.unflatten(-1, self.x.shape[-3:])


class LinfBall(Neighbourhood):
    """No pixel differs by more than the radius: a box, so exact in float32 too."""

    @cached_property
    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Lower and upper float32 images.

        Rounded towards x, so that no float32 image between them is further than the radius from x in real arithmetic.
        """
        low, high = self.box
        return self._placed(low), self._placed(high)

    def contains(self, candidate: torch.Tensor) -> torch.Tensor:
        lower, upper = self.bounds
        return (candidate >= lower).logical_and_(candidate <= upper).flatten(-3).all(-1)

    def project(self, candidate: torch.Tensor) -> torch.Tensor:
        return candidate.clamp(*self.bounds)

    def steepest(self, gradient: torch.Tensor) -> torch.Tensor:
        # From anywhere in [0, 1] a step of 1 ends at a bound.
        return gradient.sign().add_(self.x).clamp_(*self.bounds)

    def minimum(self, coefficients: torch.Tensor) -> torch.Tensor:
        low, high = self.box
        # Faster than a batched product of matrix and vector, and than parting the coefficients by sign.
        middle = torch.einsum("...rd,...d->...r", coefficients, (low + high) / 2)
        return middle - torch.einsum("...rd,...d->...r", coefficients.abs(), (high - low) / 2)

    def _length(self, displacement: torch.Tensor) -> torch.Tensor:
        return displacement.abs().amax(-1)

    def _nearest(self, displacement: torch.Tensor) -> torch.Tensor:
        return displacement.clamp(*self.box)

    def _furthest(self, direction: torch.Tensor) -> torch.Tensor:
        low, high = self.box
        return torch.where(direction > 0, high, torch.where(direction < 0, low, 0.0))


class L2Ball(Neighbourhood):
    """The Euclidean ball, cut by [0, 1].

    Its nearest image to x + v, its furthest along v and the minimiser of -v·z are all x + clip(t v) for some t ≥ 0.
    """

    def minimum(self, coefficients: torch.Tensor) -> torch.Tensor:
        low, high = (bound[..., None, :] for bound in self.box)
        radius = self._reach
        steps = _steps(-coefficients, low, high, radius)
        # The Lagrangian's minimum over the box at multiplier 1 / steps bounds the minimum from below at any multiplier.
        moved = _clipped(-coefficients, steps, low, high)
        slack = moved.square().sum(-1) - radius**2
        held = torch.where(steps.isinf() | (slack == 0), 0.0, 1 / steps)
        return (coefficients * moved).sum(-1) + held / 2 * slack

    def _length(self, displacement: torch.Tensor) -> torch.Tensor:
        return displacement.square().sum(-1).sqrt()

    def _nearest(self, displacement: torch.Tensor) -> torch.Tensor:
        low, high = self.box
        steps = _steps(displacement, low, high, self._inside).clamp(max=1)
        return _clipped(displacement, steps, low, high)

    def _furthest(self, direction: torch.Tensor) -> torch.Tensor:
        low, high = self.box
        return _clipped(direction, _steps(direction, low, high, self._inside), low, high)

    @property
    def _inside(self) -> torch.Tensor:
        return self._reach[..., 0] * (1 - ROUNDING)


class L1Ball(Neighbourhood):
    """The ball of the sum of magnitudes, cut by [0, 1]. Few pixels move, each as far as [0, 1] lets it."""

    def minimum(self, coefficients: torch.Tensor) -> torch.Tensor:
        low, high = (bound[..., None, :] for bound in self.box)
        return (coefficients * self._greedy(-coefficients, low, high, self._reach)).sum(-1)

    def _length(self, displacement: torch.Tensor) -> torch.Tensor:
        return displacement.abs().sum(-1)

    def _nearest(self, displacement: torch.Tensor) -> torch.Tensor:
        # Every magnitude shrinks by the same amount λ ≥ 0 and is then cut by [0, 1] (Croce & Hein 2021): bisection.
        low, high = self.box
        size, room = displacement.abs(), torch.where(displacement > 0, high, -low)
        least = torch.zeros(size.shape[:-1], dtype=size.dtype, device=size.device)
        most, inside = size.amax(-1), self._reach[..., 0] * (1 - ROUNDING)
        fits = torch.minimum(size, room).sum(-1) <= inside
        for _ in range(BISECTIONS):
            middle = (least + most) / 2
            over = torch.minimum((size - middle[..., None]).clamp(min=0), room).sum(-1) > inside
            least, most = torch.where(over, middle, least), torch.where(over, most, middle)
        shrunk = (size - torch.where(fits, 0.0, most)[..., None]).clamp(min=0)
        return displacement.sign() * torch.minimum(shrunk, room)

    def _furthest(self, direction: torch.Tensor) -> torch.Tensor:
        return self._greedy(direction, *self.box, self._reach[..., 0] * (1 - ROUNDING))

    @staticmethod
    def _greedy(direction: torch.Tensor, low: torch.Tensor, high: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
        """Spend the radius on the pixels of steepest direction first (a fractional knapsack)."""
        room = torch.where(direction > 0, high, torch.where(direction < 0, -low, 0.0))
        order = direction.abs().sort(dim=-1, descending=True, stable=True).indices
        wanted = room.gather(-1, order)
        before = wanted.cumsum(-1) - wanted
        spent = torch.minimum((radius[..., None] - before).clamp(min=0), wanted)
        return direction.sign() * torch.zeros_like(spent).scatter(-1, order, spent)


def _clipped(v: torch.Tensor, steps: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    # Where a pixel has no direction, an infinite step is none.
    return torch.where(v == 0, 0.0, v * steps[..., None]).clamp(low, high)


def _steps(v: torch.Tensor, low: torch.Tensor, high: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """The t ≥ 0 for which clip(t v, low, high) has Euclidean length `radius` (infinite when the box is too small).

    A fixed point: pixels that [0, 1] cuts use up their part of the radius, the others share the rest. Each pass cuts
    more pixels and never passes the solution.
    """
    steps = radius / v.square().sum(-1).sqrt()
    while True:
        moved = torch.where(v == 0, 0.0, v * steps[..., None])
        cut = (moved <= low) | (moved >= high)
        used = torch.where(cut, moved.clamp(low, high), 0.0).square().sum(-1)
        free = torch.where(cut, 0.0, v).square().sum(-1)
        longer = torch.where(free > 0, ((radius**2 - used).clamp(min=0) / free).sqrt(), torch.inf)
        longer = torch.where((v == 0).all(-1), torch.inf, torch.maximum(steps, longer))
        if torch.equal(longer, steps) or not (longer > steps * (1 + ROUNDING)).any():
            return steps
        steps = longer
