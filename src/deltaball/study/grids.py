"""Grids of networks: the product of the axes of an architecture and a method."""

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import Field, model_validator

from deltaball.study.architectures import Cnn, Fcn, Vgg
from deltaball.study.axes import Count, Name, Seed, Strict
from deltaball.study.methods import Hmc, Imp, Sgd

# Axes by which samples are drawn even where they are at their defaults. Closed: what was drawn must stay drawn.
DRAWN_BY = frozenset({"optimizer", "batch_size", "seed", "ranking", "thinning", "prior_scale", "likelihood_scale"})

DRAWN_BY |= {"train_points", "burn_in", "start", "warm_epochs"}


class Sample(Strict):
    """A part of a grid that is drawn by a seed: what is too dear as a whole is still spread over all its axes."""

    trajectories: Count = Field(description="how many combinations of all axes but epochs, or posterior_samples")
    seed: Seed = 0


class Grid(Strict):
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

    def groups(self) -> dict[str, str]:
        """What all networks of the grid belong to."""
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


def kinds(position: int) -> Any:
    return Literal[tuple(dict.fromkeys(name.split("-")[position] for name in GRIDS))]


def grid_tag(grid: Any) -> str | None:
    return f"{grid.get('architecture')}-{grid.get('method')}" if isinstance(grid, dict) else None


def chosen(wanted: Mapping[str, Sequence[Any]], groups: Mapping[str, str], axes: Mapping[str, Any]) -> bool:
    """Whether a network with these axes, of these `groups` (grid, dataset, architecture, method), is a wanted one."""
    return all((groups[name] if name in groups else axes.get(name)) in values for name, values in wanted.items())


def how_many(wanted: Mapping[str, Sequence[Any]], grid: Grid) -> int:
    """How many of a grid's networks are wanted ones."""
    groups, names = grid.groups(), grid.axis_names()
    if not chosen({name: values for name, values in wanted.items() if name not in names}, groups, {}):
        return 0
    if grid.sample is not None:
        return sum(chosen(wanted, groups, axes) for axes in grid.points())
    return math.prod(sum(name not in wanted or one in wanted[name] for one in getattr(grid, name)) for name in names)
