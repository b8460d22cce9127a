"""Auto-encoders: images to codes and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from deltaball.networks.coders import Coders
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pass


def drawn_weights(coders: Coders, generator: np.random.Generator) -> list[np.ndarray]:
    """The weights that training starts from."""
    return [weight for part in coders.parts for weight in initial_weights(part, generator)]


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
