"""K networks of one shape as one torch function of x: stacked weights, one forward pass for all."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from deltaball.networks.arithmetic import (
    ACTIVATIONS,
    CONVOLUTIONS,
    average_pooled,
    constants,
    max_pooled,
    product,
    sigmoid,
    transposed,
)
from deltaball.networks.layers import (
    RELU,
    Activation,
    AveragePool,
    BatchNorm,
    Clamp,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    Layer,
    Layers,
    LeakyReLU,
    MaxPool,
    Normalise,
    Residual,
    Scale,
    Standardise,
    Subsample,
    rule_for,
)
from deltaball.networks.models import Layered
from deltaball.networks.support_vectors import SupportVectors
from deltaball.networks.transposed import ConvTranspose, Reshape
from deltaball.networks.voting import support_vectors

if TYPE_CHECKING:
    from deltaball.networks.generators import Generator


@dataclass(frozen=True)
class Pack(Layered):
    """K networks with the same `layers`; each of `weights` is [K, *shape] in Keras' order and layout."""

    layers: Layers
    weights: tuple[torch.Tensor, ...]
    generator: "Generator | None" = None

    @staticmethod
    def of(layers: Layers, networks: Sequence[Sequence[np.ndarray]], device: str = "cpu") -> "Pack":
        """Stack the weights of K networks (each a list as Keras' ``get_weights`` gives it)."""
        return Pack(
            layers,
            tuple(torch.from_numpy(np.stack(arrays)).to(device) for arrays in zip(*networks, strict=True)),
        )

    def __len__(self) -> int:
        return len(self.weights[0])

    def part(self, networks: slice) -> "Pack":
        generator = self.generator and self.generator.part(networks)
        return Pack(self.layers, tuple(weight[networks] for weight in self.weights), generator)

    def fixed(self) -> "Pack":
        return Pack(self.layers, tuple(weight.detach() for weight in self.weights), self.generator)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return logits(self.layers, self.weights, x)


def logits(
    layers: Layers, weights: Sequence[torch.Tensor], x: torch.Tensor, convolution: str = "looped"
) -> torch.Tensor:
    """The forward pass of `Pack`, with the weights as an argument so that they can be differentiated.

    `convolution` is one of CONVOLUTIONS, which differ in speed and in rounding.
    """
    networks = len(weights[0])
    assert x.ndim == 4 or (x.ndim == 5 and len(x) == networks), f"{tuple(x.shape)} for {networks} networks"
    x = Pass(convolution).through(layers, weights, x)
    assert x.ndim == 3 and len(x) == networks
    return x


@dataclass(frozen=True)
class Pass:
    """One way of images through K networks: what its rules have to know besides a layer, its weights and its input."""

    convolution: str = "looped"

    def through(self, layers: Layers, weights: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """What the last layer gives. Layers are visited in the order of their weights, those of branches too."""
        for layer, own in passed(layers, weights):
            x = rule_of(layer)(layer, own, x, self)
        return x


def passed(layers: Layers, weights: Sequence[torch.Tensor]) -> Iterator[tuple[Layer, Sequence[torch.Tensor]]]:
    """Each layer with its own weights, in the order of a pass: a ReLU before a max-pool is taken after it.

    The ReLU of a maximum is the maximum of the ReLUs, with the same gradient, bit for bit; and there are fewer of them.
    """
    of_all, late = layers.with_weights(weights), False
    for (layer, _, own), following in zip_longest(of_all, layers.sequence[1:]):
        if layer == RELU and type(following) is MaxPool:
            late = True
            continue
        yield layer, own
        if late:
            yield RELU, ()
            late = False


def rule_of(layer: Layer) -> Callable[..., torch.Tensor]:
    """What a layer computes: a function of the layer, its weights, what enters it and the Pass."""
    return rule_for(FORWARD, type(layer), "forward pass")


def _dense(layer: Dense, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    kernel, *bias = weights
    return product(x, kernel) + bias[0][:, None] if bias else product(x, kernel)


def _convolution(layer: Conv, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    kernel, *bias = weights
    sides = None if (layer.stride, layer.padding) == (1, "same") else layer.sides(x.shape[-3:])
    images = x if x.ndim == 5 else x.expand(len(kernel), *x.shape)
    return CONVOLUTIONS[way.convolution](images, kernel, bias[0] if bias else None, layer.stride, sides)


def _activation(layer: Activation, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    rule = rule_for(ACTIVATIONS, layer.name, "forward pass")
    return sigmoid(x) if rule is torch.sigmoid else rule(x)


def _leaky_relu(layer: LeakyReLU, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    return functional.leaky_relu(x, layer.slope)


def _clamp(layer: Clamp, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    return x.clamp(layer.low, layer.high)


def _max_pool(layer: MaxPool, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    return max_pooled(x, layer)


def _average_pool(layer: AveragePool, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    return average_pooled(x, layer)


def _global_average_pool(
    layer: GlobalAveragePool, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass
) -> torch.Tensor:
    return x.mean((-3, -2))


def _batch_norm(layer: BatchNorm, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    gamma, beta, mean, variance = weights
    scale = gamma * (variance + layer.epsilon).rsqrt()
    return torch.addcmul(along_channels(beta - mean * scale, x), x, along_channels(scale, x))


def _scale(layer: Scale, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    scale, shift = weights
    return torch.addcmul(along_channels(shift, x), x, along_channels(scale, x))


def _dropout(layer: Dropout, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    return x


def _normalise(layer: Normalise, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    mean, deviation = (constants(values, x.dtype, x.device) for values in (layer.mean, layer.deviation))
    return (x - mean) / deviation


def _group_norm(layer: GroupNorm, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    gamma, beta = weights
    shape = x.shape[-3:] if x.ndim > 3 else x.shape[-1:]
    centred = of_groups(x, layer.groups, shape)
    centred = centred - centred.mean(-1, keepdim=True)
    normalised = centred * (centred.square().mean(-1, keepdim=True) + layer.epsilon).rsqrt()
    return torch.addcmul(along_channels(beta, x), from_groups(normalised, shape), along_channels(gamma, x))


def of_groups(x: torch.Tensor, groups: int, shape: Sequence[int]) -> torch.Tensor:
    """The numbers of each group of channels [..., groups, numbers], of x [..., *shape]."""
    parted = x.unflatten(-1, (groups, -1))
    return parted.movedim(-2, -4).flatten(-3) if len(shape) == 3 else parted


def from_groups(grouped: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The inverse of `of_groups`."""
    if len(shape) == 1:
        return grouped.flatten(-2)
    return grouped.unflatten(-1, (*shape[:2], -1)).movedim(-4, -2).flatten(-2)


def _standardise(layer: Standardise, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    centred = x - x.mean((-3, -2, -1), keepdim=True)
    variance = centred.square().mean((-3, -2, -1), keepdim=True)
    # The bound is one of the variance, for the root has no slope at 0.
    return centred * variance.clamp(min=1 / math.prod(x.shape[-3:])).rsqrt()


def _subsample(layer: Subsample, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    return functional.pad(x[..., :: layer.stride, :: layer.stride, :], layer.added(x.shape[-3:]))


def _residual(layer: Residual, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    body, shortcut = layer.branches(x.shape[-3:] if x.ndim > 3 else x.shape[-1:])
    count = len(body.weights)
    return way.through(body, weights[:count], x) + way.through(shortcut, weights[count:], x)


def _flatten(layer: Flatten, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    return x.flatten(-3)


def _reshape(layer: Reshape, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    return x.unflatten(-1, layer.shape)


def _transposed(layer: ConvTranspose, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Pass) -> torch.Tensor:
    kernel, bias = weights
    images = x if x.ndim == 5 else x.expand(len(kernel), *x.shape)
    return transposed(images, kernel, bias, layer)


def along_channels(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """One number [K, c] for each network and channel, as x [K, n, ..., c] or [n, ..., c] can be multiplied with it."""
    return values.reshape(len(values), *[1] * (3 if x.ndim > 3 else 1), -1)


# What each layer computes with its own weights [K, ...] of x [K, n, ...] or, where all networks see the same, [n, ...].
FORWARD = {
    Dense: _dense,
    Conv: _convolution,
    Activation: _activation,
    LeakyReLU: _leaky_relu,
    Clamp: _clamp,
    MaxPool: _max_pool,
    AveragePool: _average_pool,
    GlobalAveragePool: _global_average_pool,
    BatchNorm: _batch_norm,
    GroupNorm: _group_norm,
    Scale: _scale,
    Dropout: _dropout,
    Normalise: _normalise,
    Standardise: _standardise,
    Subsample: _subsample,
    Residual: _residual,
    Flatten: _flatten,
    Reshape: _reshape,
    ConvTranspose: _transposed,
    SupportVectors: support_vectors,
}
