"""Architectures: the axes of each, and the layers that they make. Light: no array library.

A new architecture is one class here and one entry in ARCHITECTURES.
"""

import glob
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints

from deltaball.base.errors import InputError
from deltaball.data.catalogue import DatasetFacts
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
    Layer,
    Layers,
    LeakyReLU,
    MaxPool,
    Residual,
    Subsample,
)
from deltaball.networks.support_vectors import SupportVectors
from deltaball.study.axes import Activations, Counts, Outputs, Proportions, Rates, Repeats, Strict, axis

# Of networks whose papers do not say (He et al. 2016 have these too): of the moving averages 0.9 stays in each step.
NORMALISATION = BatchNorm(epsilon=1e-5, momentum=0.9)


# Beyond which `output: clamp` cuts logits (paper 001).
CLAMPED = Clamp(-100.0, 100.0)


class Architecture(Strict):
    """The axes of an architecture, and the layers that they make."""

    # Raise it when `layers` starts to mean another network under the same hyper-parameters: the version is part of
    # every id (version 1 is silent), so that stored weights are never taken for another's.
    VERSION: ClassVar[int] = 1

    is_trained: ClassVar[bool] = True  # whether gradient descent trains its networks
    has_bounds: ClassVar[bool] = True  # whether certificates know what its layers compute

    @classmethod
    def identifying(cls, axes: Mapping[str, Any]) -> Mapping[str, Any]:
        """What of a network's or a trajectory's axes its id is made of."""
        return axes

    @classmethod
    def layers(cls, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
        """The layers from images `shape` = (height, width, channels) to `classes` logits.

        Raises InputError, beginning with the axis, when there is no such network.
        """
        raise NotImplementedError

    def check_images(self, facts: DatasetFacts) -> None:
        """Raise InputError, beginning with the key, for values of a grid's axes of which there is no network."""
        own = ARCHITECTURES[self.architecture]
        try:
            axes = {name: getattr(self, name)[0] for name in own.axis_names()}
            assert own.layers(axes, facts.shape, facts.classes).output == (facts.classes,)
        except InputError as problem:
            raise InputError(f"architecture: no '{self.architecture}' of images {[*facts.shape]}: {problem}") from None

    @classmethod
    def axis_names(cls) -> list[str]:
        """The names of its axes."""
        return [name for name in cls.model_fields if name != "architecture"]


class Fcn(Architecture):
    """Axes of a fully connected network."""

    architecture: Literal["fcn"]
    depth: Repeats = Field(description="hidden layers")
    width: Counts = Field(description="units of each hidden layer")
    activation: Activations
    output: Outputs = Field(["linear"], description="clamp cuts logits at ±100")

    @classmethod
    def layers(cls, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
        """`depth` hidden layers of `width` (paper 004, Appendix B)."""
        activation = Activation(axes["activation"])
        return Layers(shape, (Flatten(), *_dense(axes["depth"], axes["width"], activation, classes), *_output(axes)))


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
    output: Outputs = Field(["linear"], description="clamp cuts logits at ±100")

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
        return Layers(shape, (*block * axes["conv_depth"], Flatten(), *dense, *_output(axes)))

    def check_images(self, facts: DatasetFacts) -> None:
        deepest = {name: max(getattr(self, name)) for name in Cnn.axis_names()}
        try:
            self.layers(deepest, facts.shape, facts.classes)
        except InputError as problem:
            raise InputError(f"conv_depth: {problem}") from None


class Vgg(Cnn):
    """Axes of a VGG-style network: each of `conv_depth` blocks is two convolutions and a 2×2 max-pool."""

    CONVOLUTIONS: ClassVar[int] = 2  # each with its activation (paper 004, B.5)

    architecture: Literal["vgg"]


class Lenet(Architecture):
    """Axes of LeNet as Caffe has it (LeCun et al. 1998, without its tanh)."""

    architecture: Literal["lenet"]
    conv_activation: axis(Literal["none", "relu"]) = Field(
        ["none"], description="after each convolution; Caffe's has none there"
    )

    @classmethod
    def layers(cls, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
        """Convolutions of 20 and 50 filters of 5×5, a 2×2 max-pool after each, and 500 ReLUs (431,080 on MNIST).

        Pools round up, as Caffe's do.
        """
        after = (RELU,) if axes.get("conv_activation", "none") == "relu" else ()
        pool = MaxPool(ceil=True)
        convolutions = (Conv(20, 5, padding="valid"), *after, pool, Conv(50, 5, padding="valid"), *after, pool)
        return Layers(shape, (*convolutions, Flatten(), *_dense(1, 500, RELU, classes)))


class Nin(Architecture):
    """Axes of a network in network (Lin et al. 2014)."""

    architecture: Literal["nin"]
    width: Counts = Field([192], description="filters of the spatial convolutions; the others are in proportion")
    dropout: Proportions = Field([0.5], description="share that is dropped after each pool")

    @classmethod
    def layers(cls, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
        """Three spatial convolutions with two of 1×1 after each, pools of 3 with stride 2 between, and their mean.

        A ReLU follows every convolution, the last too. The second pool is a mean, and pools round up (Lasagne's model
        zoo, whose weights paper 002 uses): with stride 2 and an even side that is padding 'same'.
        """
        width, rate = axes["width"], axes["dropout"]
        dropout = (Dropout(rate),) if rate else ()
        first = _mlpconv(width, 5, math.ceil(width * 5 / 6), math.ceil(width / 2))
        second, third = _mlpconv(width, 5, width, width), _mlpconv(width, 3, width, classes)
        blocks = (*first, MaxPool(3, 2, "same"), *dropout, *second, AveragePool(3, 2, "same"), *dropout, *third)
        return Layers(shape, (*blocks, GlobalAveragePool()))


class Resnet20(Architecture):
    """Axes of a residual network of 20 layers (He et al. 2016, Section 4.2)."""

    BLOCKS: ClassVar[int] = 3  # of each of three stages, two convolutions each

    architecture: Literal["resnet20"]
    width: Counts = Field([16], description="filters of the first stage; the others have twice and four times as many")

    @classmethod
    def layers(cls, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
        """Shortcuts are free of weights (their option A): 269,722 weights on CIFAR-10 with width 16."""
        width = axes["width"]
        body: list[Layer] = [Conv(width, 3, bias=False), NORMALISATION, RELU]
        for stage in range(3):
            for block in range(cls.BLOCKS):
                body += _residual(width * 2**stage, halves=stage > 0 and block == 0)
        return Layers(shape, (*body, GlobalAveragePool(), Dense(classes)))


class Conv5(Architecture):
    """Axes of the network of three 5×5 convolutions of papers 000 and 003."""

    architecture: Literal["conv5"]
    filters: Counts = Field([128], description="filters of each convolution")
    fc_width: Counts = Field([1024], description="units of the hidden dense layer")

    @classmethod
    def layers(cls, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
        """Three times convolution, batch normalisation and leaky ReLU of slope 0.1; then a hidden dense layer.

        The papers do not say the strides. They are 2 here, with padding 'same', by which 4·4·128 numbers of an MNIST
        image enter a dense layer, as in paper 003's other networks. The convolutions have no bias, as normalisation
        takes it away.
        """
        leaky = LeakyReLU(0.1)
        block = (Conv(axes["filters"], 5, stride=2, bias=False), NORMALISATION, leaky)
        return Layers(shape, (*block * 3, Flatten(), Dense(axes["fc_width"]), leaky, Dense(classes)))


class MnistCCnn(Architecture):
    """The network of paper 003, Appendix B, for MNIST-C; it has no axes."""

    architecture: Literal["mnist_c_cnn"]

    @classmethod
    def layers(cls, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
        """Convolutions of 32 and 64 filters of 3×3, a 2×2 max-pool, 128 ReLUs; dropout (1,199,882 on MNIST)."""
        convolutions = (Conv(32, 3, padding="valid"), RELU, Conv(64, 3, padding="valid"), RELU, MaxPool())
        dense = (Flatten(), Dense(128), RELU, Dropout(0.5), Dense(classes))
        return Layers(shape, (*convolutions, Dropout(0.25), *dense))


class RbfSvm(Architecture):
    """Axes of a support vector machine with a radial basis function as its kernel (paper 003)."""

    is_trained: ClassVar[bool] = False
    has_bounds: ClassVar[bool] = False

    architecture: Literal["rbf_svm"]
    rbf_gamma: Rates = Field([0.05], description="γ of the kernel exp(-γ |x - v|²), of pixels in [0, 1]")

    @classmethod
    def layers(cls, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
        """One against one, on the pixels as they are."""
        return Layers(shape, (Flatten(), SupportVectors(axes["rbf_gamma"], classes)))


def _found(names: list[str]) -> list[str]:
    """The files that names and patterns stand for, each once."""
    found: dict[str, None] = {}
    for name in names:
        matching = sorted(glob.glob(name, recursive=True)) if _is_pattern(name) else [name]
        if not matching:
            raise ValueError(f"'{name}' matches no file")
        found |= dict.fromkeys(matching)
    missing = next((name for name in found if not Path(name).is_file()), None)
    if missing is not None:
        raise ValueError(f"there is no file '{missing}'")
    return list(found)


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


Files = Annotated[axis(Annotated[str, StringConstraints(min_length=1)]), AfterValidator(_found)]


class File(Architecture):
    """Networks that users bring: each a file, of which the layers are read. Files are known by their content."""

    is_trained: ClassVar[bool] = False

    architecture: Literal["file"] = "file"
    file: Files = Field(
        alias="files", description=".keras, .onnx or .safetensors files, or patterns such as zoo/*.onnx"
    )

    @classmethod
    def identifying(cls, axes: Mapping[str, Any]) -> Mapping[str, Any]:
        from deltaball.exchange import reading

        content = axes["content"] if "content" in axes else reading.digest(Path(axes["file"]))
        return {**{name: value for name, value in axes.items() if name != "file"}, "content": content}

    @classmethod
    def layers(cls, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
        """Those that the file has. Raises InputError where it cannot be read, or has something else than layers."""
        from deltaball.exchange import reading

        return reading.layers(Path(axes["file"]), shape, classes)

    def check_images(self, facts: DatasetFacts) -> None:
        for name in self.file:
            try:
                self.layers({"file": name}, facts.shape, facts.classes)
            except InputError as problem:
                raise InputError(f"files: {problem}") from None


ARCHITECTURES: dict[str, type[Architecture]] = {
    "fcn": Fcn,
    "cnn": Cnn,
    "vgg": Vgg,
    "lenet": Lenet,
    "nin": Nin,
    "resnet20": Resnet20,
    "conv5": Conv5,
    "mnist_c_cnn": MnistCCnn,
    "rbf_svm": RbfSvm,
    "file": File,
}

# Those whose networks gradient descent trains.
TRAINED = tuple(name for name, one in ARCHITECTURES.items() if one.is_trained)


def layers(architecture: str, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
    """The layers of a network from images `shape` = (height, width, channels) to `classes` logits.

    Raises InputError where the architecture does.
    """
    return ARCHITECTURES[architecture].layers(axes, shape, classes)


def generator(filters: int, depth: int, shape: tuple[int, int, int]) -> Layers:
    """The layers of a generator of images `shape` = (height, width, channels), up to its sigmoid (paper 003, Figure 6).

    `depth` times a 5×5 convolution, batch normalisation and leaky ReLU of slope 0.1; then a 5×5 convolution to the
    image's channels. All keep the image's sides. How many hidden ones there are, the papers do not say in words.
    """
    block = (Conv(filters, 5, bias=False), NORMALISATION, LeakyReLU(0.1))
    return Layers(shape, (*block * depth, Conv(shape[2], 5)))


def _dense(depth: int, width: int, activation: Activation, classes: int) -> list[Layer]:
    hidden: list[Layer] = []
    for _ in range(depth):
        hidden += [Dense(width), activation]
    return [*hidden, Dense(classes)]


def _output(axes: Mapping[str, Any]) -> tuple[Layer, ...]:
    """What follows the last dense layer."""
    return (CLAMPED,) if axes.get("output", "linear") == "clamp" else ()


def _mlpconv(filters: int, size: int, *inner: int) -> tuple[Layer, ...]:
    """A spatial convolution, then 1×1 ones of `inner` filters, each with its ReLU."""
    others = (one for filters_ in inner for one in (Conv(filters_, 1), RELU))
    return (Conv(filters, size), RELU, *others)


def _residual(filters: int, halves: bool) -> tuple[Layer, ...]:
    """A residual block of two convolutions and its ReLU; one that halves the sides of the image begins a stage."""
    # Around its pixel, as the shortcut takes every second one; 'same' would look to the right of it.
    first = Conv(filters, 3, 2, (1, 1, 1, 1), bias=False) if halves else Conv(filters, 3, bias=False)
    body = (first, NORMALISATION, RELU, Conv(filters, 3, bias=False), NORMALISATION)
    return (Residual(body, (Subsample(2, filters),) if halves else ()), RELU)
