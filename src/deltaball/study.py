"""The study: what a YAML file may say, typed. Standard library and pydantic only.

A study lists grids of networks and the measures to take of each. Every hyper-parameter of a grid is an axis, a
value or a list of values; the grid's networks are the product of its axes. A new axis is one field here (its
default must be what was done before, so that old ids stay valid) and one use where networks are built or trained.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import NoneType
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
    create_model,
    model_validator,
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
Seed = Annotated[int, Field(ge=0)]
ActivationName = Literal["relu", "tanh", "sigmoid"]

Counts = axis(Count)
Rates = axis(Positive)
Proportions = axis(Proportion)
Seeds = axis(Seed)
Delays = axis(Annotated[int, Field(ge=0)])
Activations = axis(ActivationName)
Optimizers = axis(Literal["sgd", "adam"])
Precisions = axis(Literal["float32", "bfloat16"])


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
    precision: Precisions = Field(
        ["float32"], description="of products and activations in training; weights, updates and measures are float32"
    )
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
    precision: Precisions = ["float32"]
    seed: Seeds = [0]


class Hmc(_Strict):
    """Axes of Hamiltonian Monte Carlo (paper 004, B.8 and B.9); `posterior_samples` counts along one chain."""

    ALONG: ClassVar[str] = "posterior_samples"
    INSIDE_PACK: ClassVar[frozenset[str]] = frozenset(
        {"step_size", "thinning", "prior_scale", "likelihood_scale", "seed"}
    )

    method: Literal["hmc"]
    step_size: Rates = Field(description="step of the leapfrog integrator")
    leapfrog_steps: Counts = Field(description="steps of one trajectory of the integrator")
    posterior_samples: Counts = Field(description="samples of the posterior that the network averages")
    thinning: Counts = Field([1], description="of those samples, average every so many-th only")
    prior_scale: Rates = Field([1.0], description="standard deviation of the normal prior on every weight and bias")
    likelihood_scale: Rates = Field([1.0], description="factor of the log-likelihood; 1 samples the posterior")
    train_points: axis(Count | None) = Field([None], description="training points seen, drawn by seed; null is all")
    burn_in: Delays = Field([0], description="transitions before the first sample")
    start: axis(Literal["glorot", "prior"]) = Field(["glorot"], description="what the first weights are drawn from")
    warm_epochs: Delays = Field([0], description="epochs of SGD between that draw and the chain")
    seed: Seeds = Field([0], description="draws the training points, the start and the chain")


# Axes by which samples are drawn even where they are at their defaults. Closed: what was drawn must stay drawn.
DRAWN_BY = frozenset({"optimizer", "batch_size", "seed", "ranking", "thinning", "prior_scale", "likelihood_scale"})
DRAWN_BY |= {"train_points", "burn_in", "start", "warm_epochs"}


class Sample(_Strict):
    """A part of a grid that is drawn by a seed: what is too dear as a whole is still spread over all its axes."""

    trajectories: Count = Field(description="how many combinations of all axes but epochs, or posterior_samples")
    seed: Seed = 0


class Grid(_Strict):
    """A grid of networks: one data set, one architecture, one method, and the axes of both."""

    name: Name
    dataset: Name = Field(description="mnist5k, mnist, fashion_mnist, cifar10, or the NAME of a NAME.npz")
    weights: Literal["keep", "evict"] = Field(
        "keep", description="evict takes them from the store once measured, by the job that trains; rows stay"
    )
    sample: Sample | None = Field(None, description="only so many of the grid's trajectories; null is all")

    @classmethod
    def axis_names(cls) -> list[str]:
        """The names of the axes, in the order of the tables' columns."""
        properties = ("name", "dataset", "weights", "sample", "architecture", "method")
        return [name for name in cls.model_fields if name not in properties]

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The axes that may be left out, each with the value it then has."""
        fields = cls.model_fields
        return {name: fields[name].default[0] for name in cls.axis_names() if not fields[name].is_required()}

    def places(self) -> dict[str, str]:
        """What all networks of the grid share."""
        return {"grid": self.name, "dataset": self.dataset, "architecture": self.architecture, "method": self.method}

    def points(self) -> Iterator[dict[str, Any]]:
        """Every combination of the axes' values; of a sample, those that are drawn."""
        for axes in self._combinations():
            if self.sample is None or self._trajectory(axes) in self.drawn:
                yield axes

    @cached_property
    def drawn(self) -> frozenset[str]:
        """The trajectories of the sample: those whose hashes are smallest, so that a larger sample holds a smaller."""
        found = {self._trajectory(axes) for axes in self._combinations()}
        ranked = sorted(found, key=lambda one: hashlib.sha256(f"{self.sample.seed} {one}".encode()).digest())
        return frozenset(ranked[: self.sample.trajectories])

    def _combinations(self) -> Iterator[dict[str, Any]]:
        names = self.axis_names()
        for values in itertools.product(*(getattr(self, name) for name in names)):
            yield dict(zip(names, values, strict=True))

    def _trajectory(self, axes: Mapping[str, Any]) -> str:
        """A trajectory as it is drawn by; an axis that is added later, at its default, changes no draw."""
        defaults = {name: value for name, value in self.defaults().items() if name not in DRAWN_BY}
        named = {name: value for name, value in axes.items() if name not in defaults or value != defaults[name]}
        return " ".join(f"{name}={value}" for name, value in named.items() if name != self.ALONG)

    @model_validator(mode="after")
    def _enough_to_draw(self) -> "Grid":
        if self.sample is not None:
            there = len({self._trajectory(axes) for axes in self._combinations()})
            if self.sample.trajectories > there:
                raise ValueError(
                    f"sample.trajectories {self.sample.trajectories}: there are {there}; leave it out for all"
                )
        return self


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
            if NoneType in get_args(kind):  # null is a value of this axis
                kind = get_args(kind)[0]
            found.setdefault(name, str if get_origin(kind) is Literal else kind.__origin__)
    return found


# R is the share of robust points: it falls as δ grows. D is a mean variation: it rises. M is a mean distance.
Quantity = Literal["R", "D", "M"]
ATTACKS = ("fgsm", "pgd", "fmn")
CERTIFICATES = ("ibp", "crown", "exact")
PGD_STEPS, PGD_RESTARTS, FMN_STEPS = 40, 2, 100
EXACT_SECONDS = 60.0


def _kinds(position: int) -> Any:
    return Literal[tuple(dict.fromkeys(name.split("-")[position] for name in GRIDS))]


Only = create_model(
    "Only",
    __base__=_Strict,
    __doc__="The networks whose properties are all among those listed.",
    **{
        name: (axis(kind) | None, None)
        for name, kind in {
            "grid": Name,
            "dataset": Name,
            "architecture": _kinds(0),
            "method": _kinds(1),
            **all_axes(),
        }.items()
    },
)


class Points(_Strict):
    """Another ε or confidence than the study's, and so another number of test points, for some measures."""

    epsilon: Share | None = None
    confidence: Share | None = None


class AnyMeasure(_Strict):
    """What entries of all notions have in common."""

    quantity: ClassVar[Quantity]
    # Which attacks and certificates can say something about the notion, and why others cannot.
    attacks: ClassVar[tuple[str, ...]]
    certificates: ClassVar[tuple[str, ...]]
    because: ClassVar[str]

    norm: axis(Literal["linf", "l2", "l1"]) = Field(["linf"], description="of the ball, which is cut by [0, 1]")
    delta: axis(Annotated[float, Field(ge=0, allow_inf_nan=False)]) = Field(
        description="radii of the ball, in pixel units of [0, 1]"
    )
    attack: axis(Literal[ATTACKS]) | None = Field(
        None, description="finds violations: bounds R from above, D from below; fgsm where no certificate is asked"
    )
    certificate: axis(Literal[CERTIFICATES]) | None = Field(
        None, description="proves that there is none: bounds R from below, D from above; exact decides every point"
    )
    steps: Count | None = Field(None, description=f"of pgd ({PGD_STEPS} if left out) or fmn ({FMN_STEPS})")
    restarts: Count | None = Field(
        None, description=f"of pgd ({PGD_RESTARTS} if left out); all but one start at random"
    )
    seconds: Positive | None = Field(None, description=f"limit of exact per point ({EXACT_SECONDS:g} if left out)")
    guarantee: Points | None = Field(None, description="another ε or confidence than the study's")
    only: Only | None = Field(None, description="only these networks; null is all")

    @property
    def by(self) -> list[str]:
        """The attacks and certificates that are asked, attacks first."""
        return [*(self.attack or ([] if self.certificate else ["fgsm"])), *(self.certificate or [])]

    @property
    def wanted(self) -> dict[str, list[Any]]:
        """The properties that `only` asks for, each with the values that will do."""
        return {name: values for name, values in self.only or () if values is not None}

    @model_validator(mode="after")
    def _sensible(self) -> "AnyMeasure":
        for key, chosen, possible in (
            ("attack", self.attack, self.attacks),
            ("certificate", self.certificate, self.certificates),
        ):
            wrong = next((one for one in chosen or [] if one not in possible), None)
            if wrong:
                raise ValueError(f"{key} '{wrong}' cannot judge {self.notion}: {self.because}")
        if self.certificate and "exact" in self.certificate and "l2" in self.norm:
            raise ValueError("certificate 'exact' cannot judge norm l2: its programs are linear; possible: linf, l1")
        if "linf" in self.norm and max(self.delta) > 1:
            raise ValueError(f"delta {max(self.delta)} in norm linf: pixels lie in [0, 1]; at most 1")
        for key, takers in (("steps", ("pgd", "fmn")), ("restarts", ("pgd",)), ("seconds", ("exact",))):
            asked = [one for one in self.by if one in takers]
            if getattr(self, key) is not None and len(asked) != 1:
                wanted = " or ".join(takers)
                raise ValueError(f"{key} {getattr(self, key)} is for one of {wanted}, and this entry asks {self.by}")
        return self


class ClassChange(AnyMeasure):
    """g: is the predicted class the same in the whole ball (paper 004, Definition 1)? R(g) is its mean."""

    quantity: ClassVar[Quantity] = "R"
    attacks: ClassVar = ATTACKS
    certificates: ClassVar = CERTIFICATES
    because: ClassVar = ""

    notion: Literal["class_change"]


class SoftmaxVariation(AnyMeasure):
    """ḡ: the largest change of any class's softmax in the ball (Definition 3, h = L∞). D(ḡ) is its mean."""

    quantity: ClassVar[Quantity] = "D"
    attacks: ClassVar = ("fgsm", "pgd")
    certificates: ClassVar = ("ibp", "crown")
    because: ClassVar = "fmn looks for another class, and softmax is not piecewise linear; use fgsm, pgd, ibp or crown"

    notion: Literal["softmax_variation"]


class VariationAbove(AnyMeasure):
    """Robust unless ḡ exceeds `gamma` (paper 004, Sections 2 and 4.2). R is its mean."""

    quantity: ClassVar[Quantity] = "R"
    attacks: ClassVar = SoftmaxVariation.attacks
    certificates: ClassVar = SoftmaxVariation.certificates
    because: ClassVar = SoftmaxVariation.because

    notion: Literal["variation_above"]
    gamma: axis(Share) = Field(description="threshold on the softmax variation")


class Margin(AnyMeasure):
    """The distance to the closest point of another class, at most δ (papers 000 and 003, Section 5). M is its mean."""

    quantity: ClassVar[Quantity] = "M"
    attacks: ClassVar = ("fmn",)
    certificates: ClassVar = ("ibp", "crown")
    because: ClassVar = "it is a distance; use attack: fmn, or certificate: ibp or crown"

    notion: Literal["margin"]
    delta: axis(Positive) = Field(description="distances are cut at δ, which is the range of the measure")

    @property
    def by(self) -> list[str]:
        return [*(self.attack or ([] if self.certificate else ["fmn"])), *(self.certificate or [])]


NOTIONS = {
    "class_change": ClassChange,
    "softmax_variation": SoftmaxVariation,
    "variation_above": VariationAbove,
    "margin": Margin,
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


def chosen(wanted: Mapping[str, Sequence[Any]], places: Mapping[str, str], axes: Mapping[str, Any]) -> bool:
    """Whether a network with these axes, at these `places` (grid, dataset, architecture, method), is a wanted one."""
    return all((places[name] if name in places else axes.get(name)) in values for name, values in wanted.items())


def how_many(wanted: Mapping[str, Sequence[Any]], grid: Grid) -> int:
    """How many of a grid's networks are wanted ones."""
    places, names = grid.places(), grid.axis_names()
    if not chosen({name: values for name, values in wanted.items() if name not in names}, places, {}):
        return 0
    if grid.sample is not None:
        return sum(chosen(wanted, places, axes) for axes in grid.points())
    return math.prod(sum(name not in wanted or one in wanted[name] for one in getattr(grid, name)) for name in names)


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


class Convergence(_Strict):
    """How estimates close in on R or D as ε falls (paper 004, Section 4.1, Figure 1), for the networks of `only`."""

    measure: _union(NOTIONS, _notion_tag)
    epsilon: axis(Share) = Field(description="each gives N by Hoeffding's inequality")
    draws: Annotated[int, Field(ge=2)] = Field(50, description="sets of N test points per ε")

    @model_validator(mode="after")
    def _one_epsilon(self) -> "Convergence":
        if self.measure.guarantee:
            raise ValueError("measure.guarantee: the experiment lists its own epsilon; take it out")
        return self


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
    convergence: list[Convergence] = []
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
        return sum(
            how_many(entry.wanted, grid)
            * len(entry.norm)
            * len(entry.delta)
            * len(getattr(entry, "gamma", [0]))
            * len(entry.by)
            for grid in self.grids
            for entry in self.measures
        )

    def estimates_at_once(self) -> int:
        """How many of them share one α: all when the guarantee is simultaneous, else each has its own."""
        return max(1, self.estimates()) if self.guarantee.simultaneous else 1
