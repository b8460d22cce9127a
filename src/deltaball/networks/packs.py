"""K networks of one shape as one torch function of x: stacked weights, one forward pass for all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deltaball.networks.arithmetic import ACTIVATIONS, CONVOLUTIONS, pooled, product
from deltaball.networks.layers import Activation, Conv, Dense, Flatten, Layers, MaxPool
from deltaball.networks.models import Layered


@dataclass(frozen=True)
class Pack(Layered):
    """K networks with the same `layers`; each of `weights` is [K, *shape] in Keras' order and layout.

    `layers` is the list that certificates and solvers read; calling the pack is the function that attacks see.
    """

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

    def one(self, k: int) -> "Pack":
        return Pack(self.layers, tuple(weight[k : k + 1] for weight in self.weights))

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
    remaining = iter(weights)
    for layer in layers:
        match layer:
            case Dense():
                kernel, bias = next(remaining), next(remaining)
                x = product(x, kernel) + bias[:, None]
            case Conv():
                kernel, bias = next(remaining), next(remaining)
                x = CONVOLUTIONS[convolution](x if x.ndim == 5 else x.expand(networks, *x.shape), kernel, bias)
            case Activation():
                x = ACTIVATIONS[layer.name](x)
            case MaxPool():
                x = pooled(x)
            case Flatten():
                x = x.flatten(-3)
    assert x.ndim == 3 and len(x) == networks
    return x
