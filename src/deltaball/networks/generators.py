"""Generators: networks from images to images, each beside a classifier that it is to mislead."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deltaball.networks.arithmetic import sigmoid
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pack, Pass


@dataclass(frozen=True)
class Generator:
    """K generators with the same `layers` up to their sigmoid; each of `weights` is [K, *shape]."""

    layers: Layers
    weights: tuple[torch.Tensor, ...]
    convolution: str = "looped"  # one of arithmetic.CONVOLUTIONS

    @staticmethod
    def of(layers: Layers, networks: Sequence[Sequence[np.ndarray]], device: str = "cpu") -> "Generator":
        """Stack the weights of K generators."""
        return Generator(layers, Pack.of(layers, networks, device).weights)

    def part(self, networks: slice) -> "Generator":
        """The generators of these networks of a pack."""
        return Generator(self.layers, tuple(weight[networks] for weight in self.weights), self.convolution)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """What each makes of images: [K, n, h, w, c] in [0, 1], of x [n, h, w, c] or [K, n, h, w, c]."""
        return sigmoid(Pass(self.convolution).through(self.layers, self.weights, x))
