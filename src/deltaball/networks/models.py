"""What is measured: K networks as one function of images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch

from deltaball.networks.layers import Layers

if TYPE_CHECKING:
    from deltaball.networks.generators import Generator


class Model(ABC):
    """K networks that classify images of one shape. All that attacks need; they ask nothing about what is inside."""

    @abstractmethod
    def __len__(self) -> int:
        """K, how many networks."""

    @abstractmethod
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [K, n, classes] of images x in [0, 1]: [n, h, w, c] shown to every network, or [K, n, h, w, c].

        Differentiable by x. What it gives for a network depends on no other one.
        """

    @property
    @abstractmethod
    def numbers(self) -> int:
        """How many numbers a network makes of one image, and holds at once."""

    @abstractmethod
    def one(self, k: int) -> Self:
        """Network k as a model of its own."""


class Layered(Model):
    """Networks with the same layers, whose weights are at hand: what certificates and linear programs need."""

    layers: Layers
    weights: tuple[torch.Tensor, ...]  # each [K, *shape], in the order of the layers
    convolution = "looped"  # how it is computed: one of arithmetic.CONVOLUTIONS
    generator: "Generator | None" = None  # of adversarial images, trained beside each network
    seen: Sequence[Any] = ()  # in training, what the batch normalisations saw in the last pass

    @property
    def numbers(self) -> int:
        return sum(self.layers.activations)

    @abstractmethod
    def part(self, networks: slice) -> Self:
        """Some of the networks."""

    @abstractmethod
    def fixed(self) -> Self:
        """The same networks, to whose weights no gradient flows."""

    def one(self, k: int) -> Self:
        return self.part(slice(k, k + 1))
