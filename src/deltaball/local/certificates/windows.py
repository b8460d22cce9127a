"""Windows of feature maps: what one unit of a convolution sees of earlier layers."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch.nn import functional

from deltaball.local.balls import Neighbourhood


class Relaxation(NamedTuple):
    """Two linear functions of what enters a stage's activation that enclose what leaves the stage.

    Slopes are [K, n, 1 or r, phases, outputs], a pool's zero but at one of its four units; offsets [K, n, outputs].
    `anchor` [K, n or 1, units] is the affine layer's bias, of the first stage its value at the ball's centre, from
    where neighbourhoods count.
    """

    lower: torch.Tensor
    lower_offset: torch.Tensor
    upper: torch.Tensor
    upper_offset: torch.Tensor
    anchor: torch.Tensor


@dataclass(frozen=True)
class Windows:
    """Square windows of a feature map, one for each of m units of a later convolution: all that the unit sees.

    The window of the unit in row i and column j starts at stride i + start, stride j + start, and may reach beyond
    the map.
    """

    units: tuple[torch.Tensor, ...]  # network, point, row and column of each unit, broadcasting to [K, n, m]
    target: tuple[int, int]  # how many rows and columns the later convolution has
    start: int
    stride: int
    size: int

    def of(self, maps: torch.Tensor) -> torch.Tensor:
        """Windows of maps [K or 1, n or 1, channels, h, w], zero beyond: [K, n m, channels, size, size]."""
        bottom, right = (
            max(0, (count - 1) * self.stride + self.start + self.size - length)
            for count, length in zip(self.target, maps.shape[-2:], strict=True)
        )
        padded = functional.pad(maps, (-self.start, right, -self.start, bottom))
        windows = padded.unfold(-2, self.size, self.stride).unfold(-2, self.size, self.stride).movedim(2, 4)
        network, point, row, column = self.units
        return windows[network if len(maps) > 1 else 0, point if maps.shape[1] > 1 else 0, row, column].flatten(1, 2)

    def before(self, size: int, stride: int) -> "Windows":
        """The windows of what enters a convolution, with a kernel of `size`, for these of what leaves it."""
        return replace(
            self,
            start=stride * self.start - (size - 1) // 2,
            stride=stride * self.stride,
            size=stride * self.size + size - 1,
        )

    def around(self, around: Neighbourhood) -> tuple[Neighbourhood, torch.Tensor]:
        """The balls around windows of the images, and which of their pixels [1 or K, n m, 1, d] lie in the image."""
        images = around.x if around.x.ndim == 5 else around.x[None]
        inside = self.of(torch.ones_like(images[:1, :1], dtype=torch.float64)).flatten(2)[:, :, None]
        radius = around.radius
        if isinstance(radius, torch.Tensor):
            radius = radius[..., None].expand(self.units[2].shape).flatten(1, 2)
        return replace(around, x=self.of(images), radius=radius), inside
