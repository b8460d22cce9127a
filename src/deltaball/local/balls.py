"""Norm balls around a point, cut by [0, 1]: within them a network should not change its mind."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch

from deltaball.local.neighbourhoods import Neighbourhood, over_pixels

# Of a sum of squares or magnitudes in float64: what its rounding may hide, so that a point that is asked to lie on
# the sphere is placed just inside.
ROUNDING = 1e-12
BISECTIONS = 60

# In an L1 step: pixels that may move, those of the steepest gradient.
PIXELS = 8

# Pixels with less room than 1 over this rank lower.
ENOUGH_ROOM = 1e6

# Newton's steps towards the threshold by which an L1 ball shrinks a displacement; the rest is scaled away.
NEWTON = 3

# More than float32 loses in a sum over pixels, and half its spacing below 1, by which a pixel may be off.
SUM_ROUNDING, PIXEL_ROUNDING = 4e-6, 2.0**-25

TINY = torch.finfo(torch.float32).tiny


class LinfBall(Neighbourhood):
    """No pixel differs by more than the radius: a box, so exact in float32 too."""

    is_box = True

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

    def returned(self, images: torch.Tensor) -> torch.Tensor:
        return images.clamp_(*self.bounds)

    @staticmethod
    def length(displacement: torch.Tensor) -> torch.Tensor:
        flat = displacement.flatten(-3)
        return torch.maximum(flat.amax(-1), -flat.amin(-1))

    @staticmethod
    def dual_length(gradient: torch.Tensor) -> torch.Tensor:
        return L1Ball.length(gradient)

    @staticmethod
    def stepped(images: torch.Tensor, gradient: torch.Tensor, length: float | torch.Tensor) -> torch.Tensor:
        return gradient.sign_().mul_(over_pixels(length)).add_(images)

    @staticmethod
    def longest_step(shape: torch.Size) -> float:
        return 1

    @classmethod
    def retracted(cls, images: torch.Tensor, x: torch.Tensor, radius: float | torch.Tensor) -> torch.Tensor:
        radius = over_pixels(radius)
        return images.clamp_(0, 1).sub_(x).clamp_(-radius, radius).add_(x)

    def _length(self, displacement: torch.Tensor) -> torch.Tensor:
        return displacement.abs().amax(-1)

    def _nearest(self, displacement: torch.Tensor) -> torch.Tensor:
        return displacement.clamp(*self.box)

    def _furthest(self, direction: torch.Tensor) -> torch.Tensor:
        low, high = self.box
        return torch.where(direction > 0, high, torch.where(direction < 0, low, 0.0))

    def _level(self, slope: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return _filled(slope.abs(), self._room(slope), gain)

    def _along(self, slope: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return slope.sign() * torch.minimum(self._room(slope), level[..., None])


class _Round(Neighbourhood):
    """Balls bounded by a sum over pixels, of which float32 loses some."""

    def returned(self, images: torch.Tensor) -> torch.Tensor:
        return self.retracted(images, self.x, self._float32_radius)

    @cached_property
    def _float32_radius(self) -> float:
        """So much smaller than the radius that what float32 takes for inside is inside."""
        pixels = math.prod(self.x.shape[-3:])
        return max(self.radius * (1 - SUM_ROUNDING) - PIXEL_ROUNDING * self._magnitude(pixels), 0.0)

    @staticmethod
    @abstractmethod
    def _magnitude(pixels: int) -> float:
        """The norm of a displacement by 1 in so many pixels."""

    @classmethod
    def _shrunk(cls, displacement: torch.Tensor, radius: float | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        shrink = (radius / cls.length(displacement).clamp(min=TINY)).clamp(max=1)
        return displacement.mul_(over_pixels(shrink)).add_(x)


class L2Ball(_Round):
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

    @staticmethod
    def length(displacement: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(displacement.flatten(-3), dim=-1)

    @staticmethod
    def dual_length(gradient: torch.Tensor) -> torch.Tensor:
        return L2Ball.length(gradient)

    @staticmethod
    def stepped(images: torch.Tensor, gradient: torch.Tensor, length: float | torch.Tensor) -> torch.Tensor:
        flat = gradient.nan_to_num_(0.0, 0.0, 0.0).flatten(-3)
        # Scaled first, for squares overflow and vanish.
        flat /= torch.maximum(flat.amax(-1), -flat.amin(-1)).clamp(min=TINY)[..., None]
        size = torch.linalg.vector_norm(flat, dim=-1).clamp(min=TINY)
        return gradient.mul_(over_pixels(length) / over_pixels(size)).add_(images)

    @staticmethod
    def longest_step(shape: torch.Size) -> float:
        return L2Ball.length(torch.ones(shape)).item()

    @classmethod
    def retracted(cls, images: torch.Tensor, x: torch.Tensor, radius: float | torch.Tensor) -> torch.Tensor:
        return cls._shrunk(images.clamp_(0, 1).sub_(x), radius, x)

    @staticmethod
    def _magnitude(pixels: int) -> float:
        return pixels**0.5

    def _length(self, displacement: torch.Tensor) -> torch.Tensor:
        return displacement.square().sum(-1).sqrt()

    def _nearest(self, displacement: torch.Tensor) -> torch.Tensor:
        low, high = self.box
        steps = _steps(displacement, low, high, self._inside).clamp(max=1)
        return _clipped(displacement, steps, low, high)

    def _furthest(self, direction: torch.Tensor) -> torch.Tensor:
        low, high = self.box
        return _clipped(direction, _steps(direction, low, high, self._inside), low, high)

    def _level(self, slope: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        ends = torch.where(slope == 0, 0.0, self._room(slope) / slope.abs())
        return _filled(slope.square(), ends, gain)

    def _along(self, slope: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return _clipped(slope, level, *self._cube)

    @property
    def _inside(self) -> torch.Tensor:
        return self._reach[..., 0] * (1 - ROUNDING)


class L1Ball(_Round):
    """The ball of the sum of magnitudes, cut by [0, 1]. Few pixels move, each as far as [0, 1] lets it."""

    def minimum(self, coefficients: torch.Tensor) -> torch.Tensor:
        low, high = (bound[..., None, :] for bound in self.box)
        return (coefficients * self._greedy(-coefficients, low, high, self._reach)).sum(-1)

    @staticmethod
    def length(displacement: torch.Tensor) -> torch.Tensor:
        return displacement.flatten(-3).abs().sum(-1)

    @staticmethod
    def dual_length(gradient: torch.Tensor) -> torch.Tensor:
        return LinfBall.length(gradient)

    @staticmethod
    def stepped(images: torch.Tensor, gradient: torch.Tensor, length: float | torch.Tensor) -> torch.Tensor:
        """Spend the length on the pixels of steepest gradient first, each as far as [0, 1] lets it."""
        flat, slope = images.flatten(-3), gradient.nan_to_num_(0.0, 0.0, 0.0).flatten(-3)
        sign = slope.sign()
        room = (0.5 - flat).mul_(sign).add_(0.5)
        # 0 where a pixel cannot move, its slope elsewhere.
        score = room.mul_(ENOUGH_ROOM).clamp_(max=1).mul_(slope).abs_()
        steepest = score.topk(min(PIXELS, flat.shape[-1]), -1).indices
        sign, value = sign.gather(-1, steepest), flat.gather(-1, steepest)
        room = torch.where(sign > 0, 1 - value, torch.where(sign < 0, value, 0.0))
        length = length[..., None] if isinstance(length, torch.Tensor) else length
        spent = torch.minimum((length - (room.cumsum(-1) - room)).clamp(min=0), room)
        return flat.scatter_add(-1, steepest, sign * spent).view_as(images)

    @staticmethod
    def longest_step(shape: torch.Size) -> float:
        return PIXELS

    @classmethod
    def retracted(cls, images: torch.Tensor, x: torch.Tensor, radius: float | torch.Tensor) -> torch.Tensor:
        # Soft thresholding (Duchi et al. 2008): the threshold is where a convex, piecewise linear sum meets the radius.
        displacement = images.clamp_(0, 1).sub_(x)
        size = displacement.abs().flatten(-3)
        shrunk, threshold = size.clone(), torch.zeros_like(size[..., 0])
        for _ in range(NEWTON):
            over = (shrunk.sum(-1) - radius).clamp(min=0)
            threshold += over / shrunk.sign_().sum(-1).clamp(min=1)
            torch.sub(size, threshold[..., None], out=shrunk).relu_()
        return cls._shrunk(displacement.sign_().mul_(shrunk.view_as(displacement)), radius, x)

    @staticmethod
    def _magnitude(pixels: int) -> float:
        return pixels

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

    def _level(self, slope: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        steepness, order = slope.abs().sort(dim=-1, descending=True, stable=True)
        room = self._room(slope).gather(-1, order)
        gained = (steepness * room).cumsum(-1)
        last, never = _first_reaching(gained, gain)
        before = (room.cumsum(-1) - room).gather(-1, last)[..., 0]
        lacking = gain - (gained - steepness * room).gather(-1, last)[..., 0]
        return torch.where(never, torch.inf, before + lacking.clamp(min=0) / steepness.gather(-1, last)[..., 0])

    def _along(self, slope: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return self._greedy(slope, *self._cube, level)

    @staticmethod
    def _greedy(direction: torch.Tensor, low: torch.Tensor, high: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
        """Spend the radius on the pixels of steepest direction first (a fractional knapsack)."""
        room = torch.where(direction > 0, high, torch.where(direction < 0, -low, 0.0))
        order = direction.abs().sort(dim=-1, descending=True, stable=True).indices
        wanted = room.gather(-1, order)
        before = wanted.cumsum(-1) - wanted
        spent = torch.minimum((radius[..., None] - before).clamp(min=0), wanted)
        return direction.sign() * torch.zeros_like(spent).scatter(-1, order, spent)


GEOMETRY: dict[str, type[Neighbourhood]] = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}


@dataclass(frozen=True)
class Ball:
    """All images within `delta` of a point in the `norm` linf, l2 or l1, and within [0, 1] (paper 004, Definition 1).

    `delta` is in units of pixels, whose range is 1.
    """

    norm: str
    delta: float

    def around(self, x: torch.Tensor) -> "Neighbourhood":
        """The ball around each image of x [n, h, w, c], float32 in [0, 1]."""
        return self.geometry(x, self.delta)

    @property
    def geometry(self) -> type["Neighbourhood"]:
        return GEOMETRY[self.norm]


def _clipped(v: torch.Tensor, steps: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    # Where a pixel has no direction, an infinite step is none.
    return torch.where(v == 0, 0.0, v * steps[..., None]).clamp(low, high)


def _filled(rates: torch.Tensor, ends: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """The t ≥ 0 at which Σ rates · min(t, ends) over the last axis is `gain`; infinite where it never is."""
    ends, order = ends.sort(-1)
    rates = rates.gather(-1, order)
    moving = rates.flip(-1).cumsum(-1).flip(-1)  # the rate up to each end
    ended = (rates * ends).cumsum(-1) - rates * ends  # what those have gained whose ends come before
    last, never = _first_reaching(ended + moving * ends, gain)
    t = (gain - ended.gather(-1, last)[..., 0]).clamp(min=0) / moving.gather(-1, last)[..., 0]
    return torch.where(never, torch.inf, t)


def _first_reaching(rising: torch.Tensor, gain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where `rising` [..., d] first is as large as `gain` [...], as an index [..., 1]; and whether it never is."""
    first = torch.searchsorted(rising, gain[..., None].contiguous())
    count = rising.shape[-1]
    return first.clamp(max=count - 1), (first == count)[..., 0]


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
