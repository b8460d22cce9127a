"""K networks of one shape as one torch function of x: stacked weights, one forward pass for all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deltaball.networks.arithmetic import ACTIVATIONS, CONVOLUTIONS, pooled, product
from deltaball.networks.layers import Activation, Conv, Dense, Flatten, Layers, MaxPool, rule_for
from deltaball.networks.models import Layered


@dataclass(frozen=True)
class Pack(Layered):
    """K networks with the same `layers`; each of `weights` is [K, *shape] in Keras' order and layout."""

    layers: Layers
    weights: tuple[torch.Tensor, ...]

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
        return Pack(self.layers, tuple(weight[networks] for weight in self.weights))

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
    for layer, _, own in layers.with_weights(weights):
        x = rule_for(FORWARD, type(layer), "forward pass")(layer, own, x, convolution)
    assert x.ndim == 3 and len(x) == networks
    return x


def _dense(layer: Dense, weights: Sequence[torch.Tensor], x: torch.Tensor, convolution: str) -> torch.Tensor:
    kernel, bias = weights
    return product(x, kernel) + bias[:, None]


def _convolution(layer: Conv, weights: Sequence[torch.Tensor], x: torch.Tensor, convolution: str) -> torch.Tensor:
    kernel, bias = weights
    return CONVOLUTIONS[convolution](x if x.ndim == 5 else x.expand(len(kernel), *x.shape), kernel, bias)


def _activation(layer: Activation, weights: Sequence[torch.Tensor], x: torch.Tensor, convolution: str) -> torch.Tensor:
    return rule_for(ACTIVATIONS, layer.name, "forward pass")(x)


def _max_pool(layer: MaxPool, weights: Sequence[torch.Tensor], x: torch.Tensor, convolution: str) -> torch.Tensor:
    return pooled(x)


def _flatten(layer: Flatten, weights: Sequence[torch.Tensor], x: torch.Tensor, convolution: str) -> torch.Tensor:
    return x.flatten(-3)


# What each layer computes with its own weights [K, ...] of x [K, n, ...] or, where all networks see the same, [n, ...].
FORWARD = {Dense: _dense, Conv: _convolution, Activation: _activation, MaxPool: _max_pool, Flatten: _flatten}
