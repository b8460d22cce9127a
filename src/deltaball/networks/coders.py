"""The layers of auto-encoders: images to codes and back. Light: no array library."""

import math
from dataclasses import dataclass
from functools import cached_property

from deltaball.networks.layers import RELU, Conv, Dense, Flatten, Layers


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
    def decoder(self) -> list[Layers]:
        """Its parts; between them maps are enlarged."""
        return [self.enlarging, *self.convolving]

    @property
    def parts(self) -> list[Layers]:
        """In the order of the weights."""
        return [self.encoder, *self.decoder]
