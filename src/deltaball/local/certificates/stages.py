"""What bounds are passed along: an affine layer with the activation and the pool that follow it.

Two kinds, of dense layers and of convolutions. Which layers make which stages: `layered.STAGES`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch.nn import functional

from deltaball.local.balls import Neighbourhood
from deltaball.local.certificates.lines import CURVES, Curve
from deltaball.local.certificates.windows import Relaxation, Windows
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.layers import Shape, rule_for

# Coefficients (networks × points × rows × units of the widest layer) held at once, 8 bytes each; a few such tensors
# live at a time. On a CPU they should stay in its caches.
ELEMENTS = {"cpu": 2**18, "cuda": 2**26}

Bounds = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Stage(ABC):
    """An affine layer of K networks, in float64, with the activation and the pool that follow it, if any.

    Inside this package images and feature maps are flat in the order [channels, h, w]. Where a pool follows, the units
    that enter the activation come in phases, one for each corner of the pools: [phases, units that leave the stage].
    """

    kernel: torch.Tensor
    bias: torch.Tensor  # [K, units]
    activation: str | None

    @classmethod
    @abstractmethod
    def of(
        cls,
        kernel: torch.Tensor,
        bias: torch.Tensor,
        activation: str | None,
        pooled: bool,
        entering: Shape,
        before: "Stage | None",
    ) -> Self:
        """The stage of an affine layer's weights, in the layer's own order and layout.

        `entering` is the shape of what enters the layer, which leaves the stage `before` (None: images do).
        """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what leaves the stage."""

    @property
    @abstractmethod
    def phases(self) -> int:
        """How many units a pool takes the largest of; 1 without a pool."""

    @property
    @abstractmethod
    def fan_in(self) -> int:
        """How many products a unit sums."""

    @property
    def units(self) -> int:
        """How many units enter the activation."""
        return self.phases * math.prod(self.shape)

    def at(self, x: torch.Tensor) -> torch.Tensor:
        """What the affine layer computes of x [n, inputs] or [K, n, inputs]: [K, n, units]."""
        return self._applied(self.kernel, x) + self.bias[:, None]

    def magnitudes(self, x: torch.Tensor) -> torch.Tensor:
        """The same with |kernel| and without bias: how far the outputs move when each input moves by up to x."""
        return self._applied(self._sizes, x)

    def scattered(self, variances: torch.Tensor) -> torch.Tensor:
        """Variances of its outputs, given those of its inputs."""
        return self._applied(self._squares, variances)

    @cached_property
    def _squares(self) -> torch.Tensor:
        return self.kernel.square()

    @cached_property
    def _sizes(self) -> torch.Tensor:
        return self.kernel.abs()

    @abstractmethod
    def _applied(self, kernel: torch.Tensor, x: torch.Tensor) -> torch.Tensor: ...

    @property
    def curve(self) -> Curve:
        """What is known of the activation."""
        return rule_for(CURVES, self.activation, "certificate")

    def activated(self, units: torch.Tensor) -> torch.Tensor:
        """What leaves the stage, of what enters the activation."""
        return self.largest(ACTIVATIONS[self.activation](units))

    def largest(self, units: torch.Tensor) -> torch.Tensor:
        """The pool alone."""
        return units.unflatten(-1, (self.phases, -1)).amax(-2)

    @abstractmethod
    def pulled(self, coefficients: torch.Tensor, size: int | None = None) -> torch.Tensor:
        """Coefficients [K, n, r, units] of the affine layer's outputs as coefficients of its inputs.

        With `size`, they are of a square window of so many units, and so are the inputs', which reach beyond the image.
        """

    @abstractmethod
    def rows_of(self, units: torch.Tensor) -> tuple[torch.Tensor, Windows | None]:
        """The coefficients of the inputs of some units [K, n, m], as few as there are, and where they lie.

        [K, n, m, inputs]; or, with windows, [K, n m, 1, window].
        """

    @abstractmethod
    def widest_row(self, earlier: Sequence["Stage"], image: Shape) -> int:
        """The most coefficients that a row of `rows_of` has on its way through `earlier` stages to the image.

        `image` is its shape as the first stage reads it.
        """

    @abstractmethod
    def inner(self, units: torch.Tensor) -> torch.Tensor:
        """Numbers per unit in the order of the layers, [..., h w channels], in this package's."""

    @abstractmethod
    def outer(self, units: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
        """The inverse of `inner`, with a number `dropped` [K, n] for the units that the pool drops."""

    @abstractmethod
    def reads_flat(self, kernel: torch.Tensor) -> torch.Tensor:
        """A kernel [K, inputs, outputs] of what leaves this stage, flat in the layers' order, in this package's."""

    @abstractmethod
    def arranged(self, around: Neighbourhood) -> Neighbourhood:
        """Balls around images [..., h, w, c] with pixels in the order that this stage reads."""


@dataclass(frozen=True)
class DenseStage(Stage):
    """kernel [K, inputs, outputs]."""

    @classmethod
    def of(
        cls,
        kernel: torch.Tensor,
        bias: torch.Tensor,
        activation: str | None,
        pooled: bool,
        entering: Shape,
        before: Stage | None,
    ) -> Self:
        assert not pooled
        return cls(before.reads_flat(kernel) if before else kernel, bias, activation)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.kernel.shape[-1], 1, 1)

    @property
    def phases(self) -> int:
        return 1

    @property
    def fan_in(self) -> int:
        return self.kernel.shape[-2]

    def _applied(self, kernel: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x @ kernel

    def pulled(self, coefficients: torch.Tensor, size: int | None = None) -> torch.Tensor:
        leading, flat = coefficients.shape[1:3], coefficients.flatten(1, 2)
        return (flat @ self.kernel.transpose(-1, -2)).unflatten(1, leading)

    def rows_of(self, units: torch.Tensor) -> tuple[torch.Tensor, None]:
        network = torch.arange(len(units), device=units.device)[:, None, None]
        return self.kernel.transpose(-1, -2)[network, units], None

    def widest_row(self, earlier: Sequence[Stage], image: Shape) -> int:
        return max([math.prod(image), *(stage.units for stage in earlier)])

    def inner(self, units: torch.Tensor) -> torch.Tensor:
        return units

    def outer(self, units: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
        return units

    def reads_flat(self, kernel: torch.Tensor) -> torch.Tensor:
        return kernel

    def arranged(self, around: Neighbourhood) -> Neighbourhood:
        return around


@dataclass(frozen=True)
class ConvStage(Stage):
    """kernel [K, phases × filters, inputs, size, size].

    A convolution with the 2×2 pool that follows it is a convolution of stride 2 with four times the channels, a quarter
    for each phase; rows and columns that the pool drops do not exist.
    """

    entering: Shape  # height, width and channels of what enters the convolution
    size: int
    stride: int

    @classmethod
    def of(
        cls,
        kernel: torch.Tensor,
        bias: torch.Tensor,
        activation: str | None,
        pooled: bool,
        entering: Shape,
        before: Stage | None,
    ) -> Self:
        filters, size, stride = kernel.permute(0, 4, 3, 1, 2), kernel.shape[1], 2 if pooled else 1
        last = stride - 1
        phases = [functional.pad(filters, (b, last - b, a, last - a)) for a in range(stride) for b in range(stride)]
        stage = cls(torch.cat(phases, 1), bias, activation, entering, size, stride)
        pixels = math.prod(stage.shape[1:])
        return replace(stage, bias=bias[:, None, :, None].expand(-1, stage.phases, -1, pixels).flatten(1))

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, _ = self.entering
        return (self.kernel.shape[1] // self.phases, height // self.stride, width // self.stride)

    @property
    def phases(self) -> int:
        return self.stride**2

    @property
    def fan_in(self) -> int:
        return self.size**2 * self.entering[2]

    @property
    def _padding(self) -> list[int]:
        """What 'same' adds to an image: left, right, top, bottom; negative where a dropped row is not read."""
        (_, height, width), (whole_height, whole_width, _) = self.shape, self.entering
        before = (self.size - 1) // 2
        beyond = self.size - 1 - before
        right, bottom = self.stride * width - whole_width, self.stride * height - whole_height
        return [before, right + beyond, before, bottom + beyond]

    def _applied(self, kernel: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        height, width, channels = self.entering
        maps = x.expand(len(kernel), *x.shape[-2:]).unflatten(-1, (channels, height, width))
        maps = functional.pad(maps, self._padding)
        convolved = [functional.conv2d(*own, stride=self.stride) for own in zip(maps, kernel, strict=True)]
        return torch.stack(convolved).flatten(2)

    def pulled(self, coefficients: torch.Tensor, size: int | None = None) -> torch.Tensor:
        leading, flat = coefficients.shape[1:3], coefficients.flatten(1, 2)
        maps = flat.unflatten(-1, (-1, size, size) if size else (-1, *self.shape[1:]))
        pulled = [functional.conv_transpose2d(*own, stride=self.stride) for own in zip(maps, self.kernel, strict=True)]
        pulled = torch.stack(pulled)
        if not size:
            pulled = functional.pad(pulled, [-beyond for beyond in self._padding])
        return pulled.flatten(2).unflatten(1, leading)

    def rows_of(self, units: torch.Tensor) -> tuple[torch.Tensor, Windows]:
        networks, points, _ = units.shape
        network = torch.arange(networks, device=units.device)[:, None, None]
        point = torch.arange(points, device=units.device)[:, None]
        (filters, height, width), stride = self.shape, self.stride
        phase, row, column = units // (filters * height * width), units // width % height, units % width
        where = (network, point, stride * row + phase // stride, stride * column + phase % stride)
        windows = Windows(where, (stride * height, stride * width), -((self.size - 1) // 2), 1, self.size)
        # The first phase's filters, without the zeros that shift them.
        kernel = self.kernel[:, :filters, :, : self.size, : self.size].flatten(2)
        return kernel[network, units // (height * width) % filters].flatten(1, 2)[:, :, None], windows

    def window_before(self, windows: Windows) -> Windows:
        """What the stage reads for windows of what leaves it."""
        return windows.before(self.size, self.stride)

    def seen(self, windows: Windows, relaxation: Relaxation) -> Relaxation:
        """The stage's relaxation as windows of what leaves it see it, with units for points."""
        lower, lower_offset, upper, upper_offset, anchor = relaxation
        whole = (-1, *self.shape[1:])
        lower, upper = (
            windows.of(slopes[:, :, 0].flatten(2).unflatten(-1, whole)).flatten(2).unflatten(2, (1, self.phases, -1))
            for slopes in (lower, upper)
        )
        lower_offset, upper_offset, anchor = (
            windows.of(values.unflatten(-1, whole)).flatten(2) for values in (lower_offset, upper_offset, anchor)
        )
        return Relaxation(lower, lower_offset, upper, upper_offset, anchor)

    def widest_row(self, earlier: Sequence[Stage], image: Shape) -> int:
        size, widths = self.size, []
        for stage in reversed(earlier):
            widths.append(stage.phases * stage.shape[0] * size**2)
            size = stage.stride * size + stage.size - 1
        return max([image[0] * size**2, *widths])

    def inner(self, units: torch.Tensor) -> torch.Tensor:
        (channels, height, width), stride = self.shape, self.stride
        maps = units.unflatten(-1, (*self.entering[:2], channels))
        maps = maps[..., : stride * height, : stride * width, :]
        maps = maps.unflatten(-2, (width, stride)).unflatten(-4, (height, stride))
        return maps.movedim((-4, -2, -1), (-5, -4, -3)).flatten(-5)

    def outer(self, units: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
        (channels, height, width), stride = self.shape, self.stride
        maps = units.unflatten(-1, (stride, stride, channels, height, width))
        maps = maps.movedim((-5, -4, -3), (-4, -2, -1)).flatten(-3, -2).flatten(-4, -3)
        whole = dropped[..., None, None, None].repeat(1, 1, *self.entering[:2], channels)
        whole[..., : stride * height, : stride * width, :] = maps
        return whole.flatten(-3)

    def reads_flat(self, kernel: torch.Tensor) -> torch.Tensor:
        channels, height, width = self.shape
        return kernel.unflatten(1, (height, width, channels)).movedim(3, 1).flatten(1, 3)

    def arranged(self, around: Neighbourhood) -> Neighbourhood:
        return replace(around, x=around.x.movedim(-1, -3))
