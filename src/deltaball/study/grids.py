"""Grids of networks: the product of the axes of an architecture, a method and an objective.

These three parts are tagged: a grid names one of each, and has the axes of all three beside each other. Which go
together is said by the method.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field, GetJsonSchemaHandler, create_model, model_validator
from pydantic_core import CoreSchema, core_schema

from deltaball.base.errors import alternatives, shown
from deltaball.study.architectures import ARCHITECTURES, TRAINED
from deltaball.study.axes import Count, Name, Seed, Strict, axis
from deltaball.study.choosing import Choice
from deltaball.study.methods import METHODS
from deltaball.study.objectives import DEFAULT, OBJECTIVES
from deltaball.study.transfers import NONE

# The parts of a grid, by the tags that name them.
PARTS: dict[str, Mapping[str, type[Strict]]] = {
    "architecture": ARCHITECTURES,
    "method": METHODS,
    "objective": OBJECTIVES,
}

# Axes by which samples are drawn even where they are at their defaults. Closed: what was drawn must stay drawn.
DRAWN_BY = frozenset({"optimizer", "batch_size", "seed", "ranking", "thinning", "prior_scale", "likelihood_scale"})

# Those of chains; gradient descent has some of the same name since.
CHAINS_DRAWN_BY = DRAWN_BY | {"train_points", "burn_in", "start", "warm_epochs"}


# The key of `only` that asks for networks by the place of their trajectory in their grid's draw.
DRAWN = "drawn"

# Axes that every grid has, whatever its parts: what is done with a classifier when it is trained.
AFTERWARDS = ("transfer",)


class Sample(Strict):
    """A part of a grid that is drawn by a seed: what is too dear as a whole is still spread over all its axes."""

    trajectories: Count = Field(description="how many combinations of all axes but epochs, or posterior_samples")
    seed: Seed = 0


class Grid(Strict):
    """A grid of networks: one data set, one architecture, one method, one objective, and the axes of these three."""

    name: Name
    dataset: Name = Field(description="mnist5k, mnist, fashion_mnist, cifar10, or the NAME of a NAME.npz")
    weights: Literal["keep", "evict"] = Field(
        "keep", description="evict takes them from the store once measured, by the job that trains; rows stay"
    )
    transfer: axis(Name) = Field(
        [NONE], description="of the study's transfers, those through which images pass first; none is no transfer"
    )
    sample: Sample | None = Field(None, description="only so many of the grid's trajectories; null is all")
    choose: Choice | None = Field(
        None, description="which value of an axis counts where trainings are compared; all are trained and measured"
    )

    @classmethod
    def axis_names(cls) -> list[str]:
        """The names of the axes, in the order of the tables' columns; which objective it is counts as one."""
        properties = {*Grid.model_fields, "architecture", "method"}.difference(AFTERWARDS)
        return [name for name in cls.model_fields if name not in properties]

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The axes that may be left out, each with the value it then has."""
        fields = {name: cls.model_fields[name] for name in cls.axis_names()}
        return {name: _values(field.default)[0] for name, field in fields.items() if not field.is_required()}

    def groups(self) -> dict[str, str]:
        """What all networks of the grid belong to."""
        return {"grid": self.name, "dataset": self.dataset, "architecture": self.architecture, "method": self.method}

    def values(self, name: str) -> Sequence[Any]:
        """The values of an axis."""
        return _values(getattr(self, name))

    def networks(self) -> Iterator[dict[str, Any]]:
        """The axes of every network: all combinations of their values; of a sample, those that are drawn."""
        for axes in self._combinations():
            if self.sample is None or self.rank(axes) < self.sample.trajectories:
                yield axes

    def rank(self, axes: Mapping[str, Any]) -> int:
        """The place of a network's trajectory in the order in which a sample draws them, from 0."""
        return self._ranks[self._trajectory(axes)]

    @cached_property
    def _ranks(self) -> dict[str, int]:
        """The places of the grid's trajectories: by their hashes, so that a larger sample holds a smaller."""
        seed = self.sample.seed if self.sample else 0
        trajectories = {self._trajectory(axes) for axes in self._combinations()}
        ranked = sorted(trajectories, key=lambda one: hashlib.sha256(f"{seed} {one}".encode()).digest())
        return {one: place for place, one in enumerate(ranked)}

    def _combinations(self) -> Iterator[dict[str, Any]]:
        names = self.axis_names()
        for values in itertools.product(*map(self.values, names)):
            yield dict(zip(names, values, strict=True))

    def _trajectory(self, axes: Mapping[str, Any]) -> str:
        """A trajectory as it is drawn by; an axis that is added later, at its default, changes no draw."""
        defaults = self._undrawn
        named = {name: value for name, value in axes.items() if name not in defaults or value != defaults[name]}
        return " ".join(f"{name}={value}" for name, value in named.items() if name != self.along)

    @cached_property
    def _undrawn(self) -> dict[str, Any]:
        """The axes that no draw names while they have these values."""
        drawn_by = CHAINS_DRAWN_BY if METHODS[self.method].averages_samples else DRAWN_BY
        return {name: value for name, value in self.defaults().items() if name not in drawn_by}

    @model_validator(mode="after")
    def _enough_to_draw(self) -> "Grid":
        if self.sample is not None:
            there = len(self._ranks)
            if self.sample.trajectories > there:
                raise ValueError(
                    f"sample.trajectories {self.sample.trajectories}: there are {there}; leave it out for all"
                )
        return self


def _values(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def fits(architecture: str, method: str, objective: str = DEFAULT) -> bool:
    """Whether there are grids of these three parts."""
    takes = METHODS[method]
    return architecture in (takes.architectures or TRAINED) and objective in (takes.objectives or OBJECTIVES)


@cache
def combinations() -> tuple[tuple[str, str, str], ...]:
    """Every (architecture, method, objective) of which there are grids."""
    every = ((one, method, objective) for objective in OBJECTIVES for method in METHODS for one in ARCHITECTURES)
    return tuple(three for three in every if fits(*three))


@cache
def grid_model(architecture: str, method: str, objective: str = DEFAULT) -> type[Grid]:
    """The model of the grids of these three parts: its fields are theirs, beside each other."""
    parts = (OBJECTIVES[objective], METHODS[method], ARCHITECTURES[architecture])
    return create_model(f"{architecture}-{method}-{objective}", __base__=(Grid, *parts))


def model_of(content: Any) -> type[Grid]:
    """The model that a grid as it is written belongs to. Raises ValueError when its tags name none."""
    if not isinstance(content, dict):
        raise ValueError(f"{shown(content)} should be a mapping with keys of its own")
    tags = {"objective": DEFAULT} | content
    if "files" in tags:
        tags = {"architecture": "file"} | tags
    for tag, members in PARTS.items():
        if tag not in tags:
            raise ValueError(f"missing key '{tag}'; {alternatives('', members)}")
        if not isinstance(tags[tag], str) or tags[tag] not in members:
            raise ValueError(f"{tag} {shown(tags[tag])} is not known; {alternatives(tags[tag], members)}")
    three = [tags[tag] for tag in PARTS]
    if not fits(*three):
        raise ValueError(_misfit(*three))
    return grid_model(*three)


def _misfit(architecture: str, method: str, objective: str) -> str:
    """Why there are no grids of these three parts, and of which there are."""
    if fits(architecture, method):
        objectives = ", ".join(other for other in OBJECTIVES if fits(architecture, method, other))
        return f"method '{method}' does not go with objective '{objective}'; possible: {objectives}"
    pairs = ", ".join(f"{one} with {other}" for other, one, named in combinations() if named == DEFAULT)
    return f"method '{method}' does not go with architecture '{architecture}'; possible: {pairs}"


class _Composed:
    """How a grid is validated and described: by the parts that its tags name."""

    def __get_pydantic_core_schema__(self, *_: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda content: content if isinstance(content, Grid) else model_of(content).model_validate(content)
        )

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        def open_to_others(part: type[Strict]) -> dict[str, Any]:
            reference = handler(part.__pydantic_core_schema__)
            handler.resolve_ref_schema(reference).pop("additionalProperties")
            return reference

        parts = [{"oneOf": [open_to_others(one) for one in members.values()]} for members in PARTS.values()]
        fits = [
            {"if": {"properties": {"method": {"const": name}}}, "then": {"properties": takes}}
            for name, method in METHODS.items()
            if (takes := _taken(method))
        ]
        return {"type": "object", "allOf": [open_to_others(Grid), *parts, *fits], "unevaluatedProperties": False}


def _taken(method: Any) -> dict[str, Any]:
    """The tags that a method goes with, as properties of a JSON schema."""
    takes = {"architecture": method.architectures or TRAINED, "objective": method.objectives}
    return {tag: {"enum": list(names)} for tag, names in takes.items() if names}


AnyGrid = Annotated[Grid, _Composed()]


@cache
def all_axes() -> Mapping[str, type]:
    """Every axis that any grid can have and the type of its values (int, float or str): the tables' axis columns.

    Which objective it is, is a column once there are several.
    """
    found: dict[str, type] = {"objective": str} if len(OBJECTIVES) > 1 else {}
    # Of the parts, and not of the grids' models: of these there are more than a hundred, and each costs milliseconds.
    for architecture, method, objective in combinations():
        for part in (ARCHITECTURES[architecture], METHODS[method], OBJECTIVES[objective]):
            for name, field in part.model_fields.items():
                if name not in found and name not in PARTS:
                    found[name] = _kind(field.annotation)
    found |= dict.fromkeys(AFTERWARDS, str)
    return MappingProxyType(found)


def _kind(axis: Any) -> type:
    """The type of the values of an axis."""
    values = getattr(axis, "__value__", axis)
    (kind,) = get_args(values.__origin__ if get_origin(values) is Annotated else values)
    if NoneType in get_args(kind):  # null is a value of this axis
        kind = get_args(kind)[0]
    return str if get_origin(kind) is Literal else kind.__origin__


def matches(wanted: Mapping[str, Sequence[Any]], groups: Mapping[str, Any], axes: Mapping[str, Any]) -> bool:
    """Whether a network with these axes, of these `groups` (see `Network.groups`), is a wanted one."""
    return all((groups[name] if name in groups else axes.get(name)) in values for name, values in wanted.items())


def count_matching(wanted: Mapping[str, Sequence[Any]], grid: Grid) -> int:
    """How many of a grid's networks are wanted ones."""
    groups, names = grid.groups(), grid.axis_names()
    if not matches({name: values for name, values in wanted.items() if name not in {*names, DRAWN}}, groups, {}):
        return 0
    if DRAWN in wanted:
        return sum(matches(wanted, {**groups, DRAWN: grid.rank(axes)}, axes) for axes in grid.networks())
    if grid.sample is not None:
        return sum(matches(wanted, groups, axes) for axes in grid.networks())
    return math.prod(sum(name not in wanted or one in wanted[name] for one in grid.values(name)) for name in names)
