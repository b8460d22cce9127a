"""What attacks and certificates need of the set around a point, whatever its shape.

The nearest of its images, the one that lies furthest along a gradient, and the exact minimum of a linear function, in
float64; and steps and retractions in float32, for iterates of searches. All of them respect [0, 1], not only the set.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch


@dataclass(frozen=True, eq=False)
class Neighbourhood(ABC):
    """The δ-balls around the images x [n, h, w, c], within [0, 1].

    `radius` is one number, or a tensor that broadcasts to [..., n] for balls of several sizes. Displacements are
    float64 and flat, [..., n, d] with d = h w c.
    """

    x: torch.Tensor
    radius: float | torch.Tensor

    is_box: ClassVar[bool] = False  # whether nothing but each pixel's own range bounds its images

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

    def level(self, slope: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        """Where slope · (z - x) has risen by `gain` [..., n], of the images z that lie furthest along the slope.

        Levels [..., n] order these images from x to a corner of [0, 1]: by their length for L∞ and L1, by multiples of
        the slope [..., n, h, w, c] for L2. Of all images of [0, 1] that gain so much, whatever the radius, the one of
        this level is the closest. Infinite where none gains so much. Found by sorting: exact but for rounding.
        """
        return self._level(slope.flatten(-3).to(torch.float64), gain.to(torch.float64))

    def along(self, slope: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """The image of [0, 1] of such a level, whatever the radius."""
        return self._placed(self._along(slope.flatten(-3).to(torch.float64), level))

    @cached_property
    def _cube(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The smallest and largest displacement of each pixel in [0, 1], [n, d]."""
        return -self.centre, 1 - self.centre

    def _room(self, direction: torch.Tensor) -> torch.Tensor:
        """How far each pixel can move along a direction [..., n, d] in [0, 1]."""
        low, high = self._cube
        return torch.where(direction > 0, high, torch.where(direction < 0, -low, 0.0))

    def at(self, points: torch.Tensor) -> "Neighbourhood":
        """The balls around some of the points, by their indices [..., m]."""
        return replace(self, x=self.x[points])

    @abstractmethod
    def returned(self, images: torch.Tensor) -> torch.Tensor:
        """Iterates [..., n, h, w, c] brought back into balls of one radius, in float32; overwrites them.

        What it gives is inside as `contains` has it. For L2 and L1 it is not quite the closest image.
        """

    @abstractmethod
    def minimum(self, coefficients: torch.Tensor) -> torch.Tensor:
        """The minimum of coefficients · (z - x) over the images z of the ball.

        float64 [..., n, rows, d] → [..., n, rows]. Exact but for rounding; for L2 the dual's value at the multiplier
        that was found, so never above the minimum.
        """

    @staticmethod
    @abstractmethod
    def length(displacement: torch.Tensor) -> torch.Tensor:
        """The float32 norm of displacements [..., h, w, c]."""

    @staticmethod
    @abstractmethod
    def dual_length(gradient: torch.Tensor) -> torch.Tensor:
        """The float32 dual norm of gradients [..., h, w, c]: how fast a step of length 1 can climb."""

    @staticmethod
    @abstractmethod
    def stepped(images: torch.Tensor, gradient: torch.Tensor, length: float | torch.Tensor) -> torch.Tensor:
        """Images [..., h, w, c] plus the step of `length` (or [...]) in the norm that goes furthest along the gradient.

        May leave [0, 1], but for L1: there, pixels without room cannot move. Overwrites the gradient.
        """

    @staticmethod
    @abstractmethod
    def longest_step(shape: torch.Size) -> float:
        """The longest step that `stepped` can take within [0, 1] on images of this shape [h, w, c]."""

    @classmethod
    @abstractmethod
    def retracted(cls, images: torch.Tensor, x: torch.Tensor, radius: float | torch.Tensor) -> torch.Tensor:
        """Images clipped to [0, 1], then drawn towards x until within the radius (or [...]) of it; overwrites them.

        In float32: inside the ball and [0, 1] but for rounding; for L2 and L1 not quite the closest image.
        """

    @abstractmethod
    def _length(self, displacement: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _nearest(self, displacement: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _furthest(self, direction: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _level(self, slope: torch.Tensor, gain: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _along(self, slope: torch.Tensor, level: torch.Tensor) -> torch.Tensor: ...

    def _placed(self, displacement: torch.Tensor) -> torch.Tensor:
        """x + displacement in float32, rounded towards x, so that no rounding leaves the ball or [0, 1]."""
        point = self.x.flatten(-3)
        moved = (self.centre + displacement).to(point.dtype)
        beyond = moved.to(torch.float64).sub_(self.centre).abs_() > displacement.abs()
        if beyond.any():
            moved = torch.where(beyond, moved.nextafter(point.expand_as(moved)), moved)
        return moved.unflatten(-1, self.x.shape[-3:])


def over_pixels(number: float | torch.Tensor) -> float | torch.Tensor:
    """A number, or numbers [...] as a factor of images [..., h, w, c]."""
    return number[..., None, None, None] if isinstance(number, torch.Tensor) else number
