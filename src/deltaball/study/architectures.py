"""Architectures: the axes of each, and the layers that they make. Light: no array library.

A new architecture is one class here and one entry in ARCHITECTURES.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from deltaball.base.errors import InputError
from deltaball.data.catalogue import DatasetFacts
from deltaball.networks.layers import Activation, Conv, Dense, Flatten, Layer, Layers, MaxPool
from deltaball.study.axes import Activations, Counts, Repeats, Strict


class Architecture(Strict):
    """The axes of an architecture, and the layers that they make."""

    # Raise it when `layers` starts to mean another network under the same hyper-parameters: the version is part of
    # every id (version 1 is silent), so that stored weights are never taken for another's.
    VERSION: ClassVar[int] = 1

    @classmethod
    def layers(cls, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
        """The layers from images `shape` = (height, width, channels) to `classes` logits; the last is linear.

        Raises InputError, beginning with the axis, when there is no such network.
        """
        raise NotImplementedError

    def check_images(self, facts: DatasetFacts) -> None:
        """Raise InputError, beginning with the axis, for values of a grid's axes of which there is no network."""


class Fcn(Architecture):
    """Axes of a fully connected network."""

    architecture: Literal["fcn"]
    depth: Repeats = Field(description="hidden layers")
    width: Counts = Field(description="units of each hidden layer")
    activation: Activations

    @classmethod
    def layers(cls, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
        """`depth` hidden layers of `width` (paper 004, Appendix B)."""
        activation = Activation(axes["activation"])
        return Layers(shape, (Flatten(), *_dense(axes["depth"], axes["width"], activation, classes)))


class Cnn(Architecture):
    """Axes of a convolutional network: convolution, activation and 2×2 max-pool, then dense layers."""

    CONVOLUTIONS: ClassVar[int] = 1  # before each pool

    architecture: Literal["cnn"]
    fc_depth: Repeats = Field(description="hidden dense layers after the convolutions")
    fc_width: Counts = Field(description="units of each hidden dense layer")
    activation: Activations
    filters: Counts = Field(description="filters of each convolution")
    kernel: Counts = Field(description="side of the convolution kernel, pixels")
    conv_depth: Repeats = Field(description="how many times convolution and pool are repeated")

    @classmethod
    def layers(cls, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
        """`conv_depth` times (convolution, activation, 2×2 max-pool), then `fc_depth` hidden layers of `fc_width`.

        Paper 004, Appendix B. Raises InputError when pooling would leave no pixel.
        """
        activation = Activation(axes["activation"])
        fits = int(math.log2(min(shape[:2])))
        if axes["conv_depth"] > fits:
            raise InputError(
                f"conv_depth = {axes['conv_depth']} halves images of {shape[0]}×{shape[1]} to nothing; "
                f"at most {fits} fits"
            )
        convolution = (Conv(axes["filters"], axes["kernel"]), activation)
        block = (*convolution * cls.CONVOLUTIONS, MaxPool())
        dense = _dense(axes["fc_depth"], axes["fc_width"], activation, classes)
        return Layers(shape, (*block * axes["conv_depth"], Flatten(), *dense))

    def check_images(self, facts: DatasetFacts) -> None:
        deepest = {name: max(getattr(self, name)) for name in Cnn.model_fields if name != "architecture"}
        try:
            self.layers(deepest, facts.shape, facts.classes)
        except InputError as problem:
            raise InputError(f"conv_depth: {problem}") from None


class Vgg(Cnn):
    """Axes of a VGG-style network: each of `conv_depth` blocks is two convolutions and a 2×2 max-pool."""

    CONVOLUTIONS: ClassVar[int] = 2  # each with its activation (paper 004, B.5)

    architecture: Literal["vgg"]


ARCHITECTURES: dict[str, type[Architecture]] = {"fcn": Fcn, "cnn": Cnn, "vgg": Vgg}


def layers(architecture: str, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
    """The layers of a network from images `shape` = (height, width, channels) to `classes` logits.

    Every network ends in a linear layer. Raises InputError where the architecture does.
    """
    return ARCHITECTURES[architecture].layers(axes, shape, classes)


def _dense(depth: int, width: int, activation: Activation, classes: int) -> list[Layer]:
    hidden: list[Layer] = []
    for _ in range(depth):
        hidden += [Dense(width), activation]
    return [*hidden, Dense(classes)]
