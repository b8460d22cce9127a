"""The study: what a YAML file may say, typed. Standard library and pydantic only.

A study lists grids of networks and the measures to take of each. Every hyper-parameter of a grid is an axis, a
value or a list of values; the grid's networks are the product of its axes. A new axis is one field here (its
default must be what was done before, so that old ids stay valid) and one use where networks are built or trained.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

from deltaball import catalogue
from deltaball.catalogue import DatasetFacts

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _listed(values: Any) -> Any:
    return values if isinstance(values, list) else [values]


def _distinct(values: list[Any]) -> list[Any]:
    repeated = next((value for value in values if values.count(value) > 1), None)
    if repeated is not None:
        raise ValueError(f"{repeated!r} is listed twice; list each once")
    return values


def axis(kind: Any) -> Any:
    """The type of an axis: one value of `kind`, or a list of distinct ones."""
    several = Annotated[list[kind], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
    return Annotated[
        several, AfterValidator(_distinct), BeforeValidator(_listed, json_schema_input_type=kind | several)
    ]


Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Proportion = Annotated[float, Field(ge=0, lt=1)]
Radius = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
ActivationName = Literal["relu", "tanh", "sigmoid"]

Counts = axis(Count)
Rates = axis(Positive)
Proportions = axis(Proportion)
Seeds = axis(Seed)
Activations = axis(ActivationName)
Optimizers = axis(Literal["sgd", "adam"])


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Fcn(_Strict):
    """Axes of a fully connected network."""

    architecture: Literal["fcn"]
    depth: Counts = Field(description="hidden layers")
    width: Counts = Field(description="units of each hidden layer")
    activation: Activations


class Cnn(_Strict):
    """Axes of a convolutional network: convolution, activation and 2×2 max-pool, then dense layers."""

    architecture: Literal["cnn"]
    fc_depth: Counts = Field(description="hidden dense layers after the convolutions")
    fc_width: Counts = Field(description="units of each hidden dense layer")
    activation: Activations
    filters: Counts = Field(description="filters of each convolution")
    kernel: Counts = Field(description="side of the convolution kernel, pixels")
    conv_depth: Counts = Field(description="how many times convolution and pool are repeated")


class Vgg(Cnn):
    """Axes of a VGG-style network: each of `conv_depth` blocks is two convolutions and a 2×2 max-pool."""

    architecture: Literal["vgg"]


class Sgd(_Strict):
    """Axes of training by gradient descent; networks that differ in `epochs` alone are one trajectory."""

    ALONG: ClassVar[str] = "epochs"
    INSIDE_PACK: ClassVar[frozenset[str]] = frozenset({"learning_rate", "seed"})

    method: Literal["sgd"]
    optimizer: Optimizers = Field(["sgd"], description="plain SGD, or Adam with Keras' defaults")
    learning_rate: Rates
    epochs: Counts = Field(description="passes over the training split")
    batch_size: Counts = [128]
    seed: Seeds = Field([0], description="draws the initial weights and the order of the data")


class Imp(_Strict):
    """Axes of iterative magnitude pruning (paper 004, B.6 and B.7), each round trained by SGD."""

    ALONG: ClassVar[str] = "epochs"
    INSIDE_PACK: ClassVar[frozenset[str]] = frozenset({"learning_rate", "seed", "ranking", "kept"})

    method: Literal["imp"]
    proportion: Proportions = Field(description="share of the prunable weights removed in the end")
    ranking: axis(Literal["global", "layer"]) = Field(
        ["global"], description="smallest magnitudes of all hidden kernels together, or of each"
    )
    iterations: Counts = Field(description="rounds of pruning, each removing an equal share of what remains")
    optimizer: Optimizers = ["sgd"]
    learning_rate: Rates
    epochs: Counts = Field(description="passes over the training split in each round")
    batch_size: Counts = [128]
    seed: Seeds = [0]


class Hmc(_Strict):
    """Axes of Hamiltonian Monte Carlo (paper 004, B.8 and B.9); `posterior_samples` counts along one chain."""

    ALONG: ClassVar[str] = "posterior_samples"
    INSIDE_PACK: ClassVar[frozenset[str]] = frozenset({"step_size", "seed"})

    method: Literal["hmc"]
    step_size: Rates = Field(description="step of the leapfrog integrator")
    leapfrog_steps: Counts = Field(description="steps of one trajectory of the integrator")
    posterior_samples: Counts = Field(description="samples of the posterior that the network averages")
    seed: Seeds = [0]


class Grid(_Strict):
    """A grid of networks: one data set, one architecture, one method, and the axes of both."""

    name: Name
    dataset: Name = Field(description="mnist5k, mnist, fashion_mnist, cifar10, or the NAME of a NAME.npz")

    @classmethod
    def axis_names(cls) -> list[str]:
        """The names of the axes, in the order of the tables' columns."""
        return [name for name in cls.model_fields if name not in ("name", "dataset", "architecture", "method")]

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The axes that may be left out, each with the value it then has."""
        fields = cls.model_fields
        return {name: fields[name].default[0] for name in cls.axis_names() if not fields[name].is_required()}

    def points(self) -> Iterator[dict[str, Any]]:
        """Every combination of the axes' values."""
        names = self.axis_names()
        for values in itertools.product(*(getattr(self, name) for name in names)):
            yield dict(zip(names, values, strict=True))


class FcnSgd(Grid, Sgd, Fcn): ...


class CnnSgd(Grid, Sgd, Cnn): ...


class VggSgd(Grid, Sgd, Vgg): ...


class FcnImp(Grid, Imp, Fcn): ...


class FcnHmc(Grid, Hmc, Fcn): ...


GRIDS = {"fcn-sgd": FcnSgd, "cnn-sgd": CnnSgd, "vgg-sgd": VggSgd, "fcn-imp": FcnImp, "fcn-hmc": FcnHmc}


def all_axes() -> dict[str, type]:
    """Every axis that any grid can have and the type of its values (int, float or str): the tables' axis columns."""
    found: dict[str, type] = {}
    for grid in GRIDS.values():
        for name in grid.axis_names():
            (kind,) = get_args(grid.model_fields[name].annotation)
            found.setdefault(name, str if get_origin(kind) is Literal else kind.__origin__)
    return found


# R is the share of robust points: it falls as δ grows. D is a mean variation: it rises.
Quantity = Literal["R", "D"]


class _Measure(_Strict):
    norm: Literal["linf"] = "linf"
    delta: axis(Radius) = Field(description="radii of the ball, in pixel units of [0, 1]")
    attack: Literal["fgsm"] = "fgsm"
    datasets: Annotated[list[Name], Field(min_length=1)] | None = Field(
        None, description="only networks of these data sets; null is all"
    )


class ClassChange(_Measure):
    """g: is the predicted class the same in the whole ball (paper 004, Definition 1)? R(g) is its mean."""

    quantity: ClassVar[Quantity] = "R"

    notion: Literal["class_change"]


class SoftmaxVariation(_Measure):
    """ḡ: the largest change of any class's softmax in the ball (Definition 3, h = L∞). D(ḡ) is its mean."""

    quantity: ClassVar[Quantity] = "D"

    notion: Literal["softmax_variation"]


class VariationAbove(_Measure):
    """Robust unless ḡ exceeds `gamma` (paper 004, Sections 2 and 4.2). R is its mean."""

    quantity: ClassVar[Quantity] = "R"

    notion: Literal["variation_above"]
    gamma: axis(Share) = Field(description="threshold on the softmax variation")


NOTIONS = {
    "class_change": ClassChange,
    "softmax_variation": SoftmaxVariation,
    "variation_above": VariationAbove,
}


def _union(members: dict[str, type[_Strict]], tag: Any) -> Any:
    union: Any = None
    for name, member in members.items():
        tagged = Annotated[member, Tag(name)]
        union = tagged if union is None else union | tagged
    return Annotated[union, Discriminator(tag)]


def _grid_tag(grid: Any) -> str | None:
    return f"{grid.get('architecture')}-{grid.get('method')}" if isinstance(grid, dict) else None


def _notion_tag(measure: Any) -> str | None:
    return str(measure.get("notion")) if isinstance(measure, dict) else None


class Guarantee(_Strict):
    """How sure: P(|estimate - truth| > epsilon) ≤ 1 - confidence, by Hoeffding's inequality (Theorems 1, 2)."""

    epsilon: Share
    confidence: Share
    simultaneous: bool = Field(False, description="for all estimates of the study at once, not for each alone")
    seed: Seed = Field(0, description="draws the test points")


class Compute(_Strict):
    """Where and in what portions the networks are trained and measured; changes no result's identity."""

    device: Literal["cpu", "cuda"] = "cpu"
    shard_minutes: Positive = Field(15.0, description="estimated device-minutes of one job")


class Analysis(_Strict):
    """What is decided before anything is seen."""

    equivalence_margin: Share = Field(
        0.05, description="pruned networks within this of their dense trunks, on average, are equivalent to them"
    )


def _not_the_store(name: str) -> str:
    if name == "store":
        raise ValueError("'store' is the folder of the weights of all studies; choose another name")
    return name


def _named_apart(grids: list[Grid]) -> list[Grid]:
    _distinct([grid.name for grid in grids])
    return grids


class Study(_Strict):
    """A whole study, checked. Relative folders are relative to the working directory."""

    model_config = ConfigDict(title="deltaball study")

    study: Annotated[Name, AfterValidator(_not_the_store)] = Field(description="names the folder of the results")
    description: str = ""
    data: str = Field("data", description="folder in which NAME.npz files are looked for")
    results: str = "results"
    compute: Compute = Compute()
    guarantee: Guarantee
    analysis: Analysis = Analysis()
    measures: list[_union(NOTIONS, _notion_tag)] = Field(min_length=1)
    grids: Annotated[list[_union(GRIDS, _grid_tag)], Field(min_length=1), AfterValidator(_named_apart)]

    @property
    def folder(self) -> Path:
        """Where this study's results are written."""
        return Path(self.results) / self.study

    @property
    def store(self) -> Path:
        """Where weights and outcomes are kept, shared by all studies."""
        return Path(self.results) / "store"

    def facts(self) -> dict[str, DatasetFacts]:
        """The facts of every data set of the study, by name. Raises InputError for one that is not there."""
        return {name: catalogue.facts(name, Path(self.data)) for name in sorted({grid.dataset for grid in self.grids})}

    def estimates(self) -> int:
        """How many numbers with a guarantee the study prints: networks × the measures that apply to them."""
        total = 0
        for grid in self.grids:
            networks = math.prod(len(getattr(grid, name)) for name in grid.axis_names())
            for measure in self.measures:
                if measure.datasets is None or grid.dataset in measure.datasets:
                    total += networks * len(measure.delta) * len(getattr(measure, "gamma", [None]))
        return total

    def estimates_at_once(self) -> int:
        """How many of them share one α: all when the guarantee is simultaneous, else each has its own."""
        return max(1, self.estimates()) if self.guarantee.simultaneous else 1
