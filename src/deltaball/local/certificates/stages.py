"""A network as stages: an affine layer with the activation and the pool that follow it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch.nn import functional

from deltaball.local.balls import Neighbourhood
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.layers import Activation, Conv, Dense, Layers, MaxPool

# Coefficients (networks × points × rows × units of the widest layer) held at once, 8 bytes each; a few such tensors
# live at a time. On a CPU they should stay in its caches.
ELEMENTS = {"cpu": 2**18, "cuda": 2**26}

Bounds = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Stage:
    """An affine layer with the activation and the 2×2 max-pool that follow it, if any.

    Inside this module images are flat in the order [channels, h, w]. Where a pool follows, the units that enter the
    activation come in four phases, the corners of the pools: [4, channels, h, w] with the pool's h and w. So a
    convolution with its pool is a convolution of stride 2 with four times the channels, and rows or columns that the
    pool drops do not exist.

    `kernel` is float64, of Dense [K, inputs, outputs], of Conv [K, phases × filters, inputs, size, size]; `bias` is
    [K, units].
    """

    layer: Dense | Conv
    kernel: torch.Tensor
    bias: torch.Tensor
    activation: str | None
    stride: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what leaves the stage."""
        if isinstance(self.layer, Dense):
            return (self.layer.outputs, 1, 1)
        return (self.layer.outputs, self.layer.height // self.stride, self.layer.width // self.stride)

    @property
    def phases(self) -> int:
        return self.stride**2

    @property
    def units(self) -> int:
        """How many units enter the activation."""
        return self.phases * math.prod(self.shape)

    @property
    def fan_in(self) -> int:
        return math.prod(self.layer.kernel[:-1])

    @property
    def _padding(self) -> list[int]:
        """What 'same' adds to an image: left, right, top, bottom; negative where a dropped row is not read."""
        (_, height, width), layer = self.shape, self.layer
        before = (layer.size - 1) // 2
        beyond = layer.size - 1 - before
        return [
            before,
            self.stride * width - layer.width + beyond,
            before,
            self.stride * height - layer.height + beyond,
        ]

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

    def _applied(self, kernel: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.layer, Dense):
            return x @ kernel
        layer = self.layer
        images = x.expand(len(kernel), *x.shape[-2:]).unflatten(-1, (layer.inputs, layer.height, layer.width))
        images = functional.pad(images, self._padding)
        convolved = [functional.conv2d(*one, stride=self.stride) for one in zip(images, kernel, strict=True)]
        return torch.stack(convolved).flatten(2)

    def pulled(self, coefficients: torch.Tensor, size: int | None = None) -> torch.Tensor:
        """Coefficients [K, n, r, units] of the affine layer's outputs as coefficients of its inputs.

        With `size`, they are of a square window of so many units, and so are the inputs', which reach beyond the image.
        """
        leading, flat = coefficients.shape[1:3], coefficients.flatten(1, 2)
        if isinstance(self.layer, Dense):
            return (flat @ self.kernel.transpose(-1, -2)).unflatten(1, leading)
        images = flat.unflatten(-1, (-1, size, size) if size else (-1, *self.shape[1:]))
        pulled = [
            functional.conv_transpose2d(*one, stride=self.stride) for one in zip(images, self.kernel, strict=True)
        ]
        pulled = torch.stack(pulled)
        if not size:
            pulled = functional.pad(pulled, [-beyond for beyond in self._padding])
        return pulled.flatten(2).unflatten(1, leading)

    def inner(self, units: torch.Tensor) -> torch.Tensor:
        """Numbers per unit in the order of the layer list, [..., h w channels], in this module's."""
        if isinstance(self.layer, Dense):
            return units
        (channels, height, width), stride = self.shape, self.stride
        maps = units.unflatten(-1, (self.layer.height, self.layer.width, channels))
        maps = maps[..., : stride * height, : stride * width, :]
        maps = maps.unflatten(-2, (width, stride)).unflatten(-4, (height, stride))
        return maps.movedim((-4, -2, -1), (-5, -4, -3)).flatten(-5)

    def outer(self, units: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
        """The inverse of `inner`, with a number `dropped` [K, n] for the units that the pool drops."""
        if isinstance(self.layer, Dense):
            return units
        (channels, height, width), stride = self.shape, self.stride
        maps = units.unflatten(-1, (stride, stride, channels, height, width))
        maps = maps.movedim((-5, -4, -3), (-4, -2, -1)).flatten(-3, -2).flatten(-4, -3)
        whole = dropped[..., None, None, None].repeat(1, 1, self.layer.height, self.layer.width, channels)
        whole[..., : stride * height, : stride * width, :] = maps
        return whole.flatten(-3)


def stages_of(layers: Layers, weights: Sequence[torch.Tensor]) -> list[Stage]:
    groups, remaining, found = [], iter(weights), []
    for layer in layers:
        if isinstance(layer, Dense | Conv):
            groups.append([layer])
        elif isinstance(layer, Activation | MaxPool):
            groups[-1].append(layer)
    for affine, *rest in groups:
        assert [type(one) for one in rest] == [Activation, MaxPool][: len(rest)], "a max-pool follows an activation"
        kernel, bias = (next(remaining).to(torch.float64) for _ in range(2))
        stride = 2 if len(rest) == 2 else 1
        if isinstance(affine, Conv):
            filters = kernel.permute(0, 4, 3, 1, 2)
            last = stride - 1
            kernel = torch.cat(
                [functional.pad(filters, (b, last - b, a, last - a)) for a in range(stride) for b in range(stride)], 1
            )
        elif found and isinstance(found[-1].layer, Conv):
            channels, height, width = found[-1].shape
            kernel = kernel.unflatten(1, (height, width, channels)).movedim(3, 1).flatten(1, 3)
        stage = Stage(affine, kernel, bias, rest[0].name if rest else None, stride)
        per_unit = bias[:, None, :, None].expand(-1, stage.phases, -1, math.prod(stage.shape[1:])).flatten(1)
        found.append(replace(stage, bias=per_unit))
    assert found[-1].activation is None, "a network ends in an affine layer"
    return found


def arranged(stages: list[Stage], around: Neighbourhood) -> Neighbourhood:
    """The same balls with pixels in the order that the first stage reads: [c, h, w] for a convolution."""
    return replace(around, x=around.x.movedim(-1, -3)) if isinstance(stages[0].layer, Conv) else around


def activated(stage: Stage, units: torch.Tensor) -> torch.Tensor:
    return largest(stage, ACTIVATIONS[stage.activation](units))


def largest(stage: Stage, units: torch.Tensor) -> torch.Tensor:
    return units.unflatten(-1, (stage.phases, -1)).amax(-2)
