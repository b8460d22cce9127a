"""Auto-encoders: images to codes and back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Activation, Conv, Dense, Flatten, Layers
from deltaball.networks.packs import Pass

RELU = Activation("relu")


@dataclass(frozen=True)
class Coders:
    """The layers of an encoder and of its decoder; weights are those of the one, then those of the other.

    The encoder has three convolutions of stride 2, 4×4, each with twice as many filters as the one before, and a dense
    layer to the code. The decoder has a dense layer back, and enlarges what it gives three times to the sizes that the
    encoder had, each time by the nearest pixel and with a convolution, 3×3. ReLU between, and a sigmoid at the end.
    """

    shape: tuple[int, int, int]  # (height, width, channels) of an image
    latent: int
    filters: int

    @cached_property
    def encoder(self) -> Layers:
        """From images to codes [latent]."""
        convolutions = [layer for one in (1, 2, 4) for layer in (Conv(one * self.filters, 4, 2), RELU)]
        return Layers(self.shape, (*convolutions, Flatten(), Dense(self.latent)))

    @cached_property
    def enlarging(self) -> Layers:
        """The decoder's dense layer, from codes to the smallest maps, flat."""
        return Layers((1, 1, self.latent), (Flatten(), Dense(math.prod(self.sizes[-1]))))

    @cached_property
    def convolving(self) -> list[Layers]:
        """The decoder's convolutions, each of maps that are enlarged already."""
        steps = zip(self.sizes[:0:-1], self.sizes[-2::-1], strict=True)
        return [Layers((height, width, smaller[2]), (Conv(filters, 3),)) for smaller, (height, width, filters) in steps]

    @cached_property
    def sizes(self) -> list[tuple[int, int, int]]:
        """Of the image, and of the maps after each of the encoder's convolutions."""
        return [self.shape, *(layer.output(shape) for layer, shape in self.encoder.walk() if isinstance(layer, Conv))]

    @property
    def parts(self) -> list[Layers]:
        """In the order of the weights."""
        return [self.encoder, self.enlarging, *self.convolving]

    def initial(self, generator: np.random.Generator) -> list[np.ndarray]:
        """The weights that training starts from."""
        return [weight for part in self.parts for weight in initial_weights(part, generator)]


@dataclass(frozen=True)
class AutoEncoder:
    """Coders with their weights, which may be differentiated."""

    coders: Coders
    weights: Sequence[torch.Tensor]

    @staticmethod
    def of(coders: Coders, weights: Sequence[np.ndarray], device: str = "cpu") -> "AutoEncoder":
        return AutoEncoder(coders, [torch.from_numpy(weight).to(device) for weight in weights])

    @staticmethod
    def kept(shape: tuple[int, int, int], weights: Sequence[np.ndarray], device: str = "cpu") -> "AutoEncoder":
        """That of images `shape` which has these weights."""
        # Three convolutions and a dense layer, each with its bias, are the encoder.
        return AutoEncoder.of(Coders(shape, len(weights[7]), len(weights[1])), weights, device)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Codes [n, latent] of images [n, h, w, c] in [0, 1]."""
        return _through(self.coders.encoder, self._own[0], images)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Images [n, h, w, c] in [0, 1] of codes [n, latent]."""
        _, (kernel, bias), *others = self._own
        maps = _through(self.coders.enlarging, (kernel, bias), codes[:, None, None]).relu()
        maps = maps.unflatten(1, self.coders.sizes[-1])
        for place, (part, own) in enumerate(zip(self.coders.convolving, others, strict=True)):
            enlarged = functional.interpolate(maps.permute(0, 3, 1, 2), part.shape[:2], mode="nearest")
            maps = _through(part, own, enlarged.permute(0, 2, 3, 1))
            maps = maps.sigmoid() if place == len(others) - 1 else maps.relu()
        return maps

    @cached_property
    def _own(self) -> list[Sequence[torch.Tensor]]:
        """The weights of each part."""
        left, found = list(self.weights), []
        for part in self.coders.parts:
            count = len(part.weights)
            found.append(left[:count])
            left = left[count:]
        return found


def _through(layers: Layers, weights: Sequence[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """What layers give for images [n, h, w, c], as one network."""
    return Pass().through(layers, [weight[None] for weight in weights], images[None])[0]
