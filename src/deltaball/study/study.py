"""The study: what a YAML file may say, typed. Standard library and pydantic only.

A study lists grids of networks and the measures to take of each. Every hyper-parameter of a grid is an axis, a
value or a list of values; the grid's networks are the product of its axes.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from deltaball.base.errors import InputError, alternatives, shown
from deltaball.data import catalogue, corrupted_sets
from deltaball.data.catalogue import DatasetFacts
from deltaball.data.corrupted_sets import SetFacts
from deltaball.study.autoencoders import AutoEncoder
from deltaball.study.axes import Name, Positive, Seed, Share, Strict, axis, distinct, radius
from deltaball.study.grids import AnyGrid, count_matching
from deltaball.study.kernels import KERNELS, entry_of
from deltaball.study.measures import ENTRIES, AnyMeasure, Convergence, notion_tag, tagged
from deltaball.study.papers import PAPERS
from deltaball.study.transfers import NONE, Transfer


class Guarantee(Strict):
    """How sure: P(|estimate - truth| > epsilon) ≤ 1 - confidence, by Hoeffding's inequality (Theorems 1, 2)."""

    epsilon: Share
    confidence: Share
    simultaneous: bool = Field(False, description="for all estimates of the study at once, not for each alone")
    seed: Seed = Field(0, description="draws the test points")


class Compute(Strict):
    """Where and in what portions the networks are trained and measured; changes no result's identity."""

    device: Literal["cpu", "cuda"] = "cpu"
    shard_minutes: Positive = Field(15.0, description="estimated device-minutes of one job")


class Analysis(Strict):
    """What is decided before anything is seen."""

    equivalence_margin: Share = Field(
        0.05, description="pruned networks within this of their dense trunks, on average, are equivalent to them"
    )
    within: axis(radius(Positive)) = Field(
        [20 / 255], description="ε of adversarial frequency and severity, where margins are measured that far"
    )
    reference: Name | None = Field(
        None, description="the grid whose networks' mean error under each corruption is the unit of mCE"
    )


def _not_the_store(name: str) -> str:
    if name == "store":
        raise ValueError("'store' is the folder of the weights of all studies; choose another name")
    return name


def _folder(path: str) -> str:
    if not path.strip() or not path.isprintable():
        raise ValueError(f"{shown(path)} cannot be a folder")
    return path


Folder = Annotated[str, AfterValidator(_folder)]


def _named_apart(entries: list[Any]) -> list[Any]:
    distinct([one.name for one in entries])
    return entries


PAPER = "004"


class Study(Strict):
    """A whole study, checked. Relative folders are relative to the working directory."""

    model_config = ConfigDict(title="deltaball study")

    study: Annotated[Name, AfterValidator(_not_the_store)] = Field(description="names the folder of the results")
    description: str = ""
    paper: Literal[tuple(PAPERS)] = Field(PAPER, description="whose claims are tested, and whose figures come first")
    data: Annotated[str, AfterValidator(_folder)] = Field(
        "data", description="folder in which NAME.npz files are looked for"
    )
    results: Annotated[str, AfterValidator(_folder)] = "results"
    compute: Compute = Compute()
    guarantee: Guarantee
    analysis: Analysis = Analysis()
    measures: list[tagged(ENTRIES, notion_tag)] = Field(min_length=1)
    convergence: list[Convergence] = Field([])
    grids: Annotated[list[AnyGrid], Field(min_length=1), AfterValidator(_named_apart)]
    autoencoders: Annotated[list[AutoEncoder], AfterValidator(_named_apart)] = Field(
        [], description="trained beside the networks, once per data set and seed; they have no rows"
    )

    transfers: Annotated[list[Transfer], AfterValidator(_named_apart)] = Field(
        [], description="paired auto-encoders (paper 003), for the axis transfer of grids; they have no rows"
    )

    @model_validator(mode="after")
    def _known_transfers(self) -> "Study":
        there = self.transfer_named
        for place, grid in enumerate(self.grids):
            where = f"grids[{place}].transfer"
            for name in grid.transfer:
                if name == NONE:
                    continue
                if name not in there:
                    known = (
                        alternatives(name, [NONE, *there]) if there else "the study has none; list it under transfers"
                    )
                    raise ValueError(f"{where}: there is no '{name}'; {known}")
                if there[name].dataset != grid.dataset:
                    raise ValueError(f"{where}: '{name}' is of {there[name].dataset}, and the grid of {grid.dataset}")
        return self

    @model_validator(mode="after")
    def _known_autoencoders(self) -> "Study":
        there = [one.name for one in self.autoencoders]
        asked = {f"measures[{place}]": one for place, one in enumerate(self.measures)}
        asked |= {f"convergence[{place}].measure": one.measure for place, one in enumerate(self.convergence)}
        asked |= {f"grids[{place}] ({one.name})": one for place, one in enumerate(self.grids)}
        for where, one in asked.items():
            unknown = next((name for name in getattr(one, "autoencoder", None) or () if name not in there), None)
            if unknown is not None:
                known = alternatives(unknown, there) if there else "the study has none; list it under autoencoders"
                raise ValueError(f"{where}.autoencoder: there is no '{unknown}'; {known}")
        return self

    @model_validator(mode="after")
    def _reference_is_there(self) -> "Study":
        names = [grid.name for grid in self.grids]
        if self.analysis.reference is not None and self.analysis.reference not in names:
            wrong = self.analysis.reference
            raise ValueError(f"analysis.reference: no grid '{wrong}'; {alternatives(wrong, names)}")
        return self

    @property
    def transfer_named(self) -> dict[str, Transfer]:
        """The transfers by name."""
        return {one.name: one for one in self.transfers}

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

    def corrupted_sets(self, entry: AnyMeasure) -> dict[str, SetFacts]:
        """The corrupted sets that a measure names. Raises InputError for one that is damaged, or not there."""
        found = {}
        for name in entry.perturbation or ():
            if not entry_of(name).is_brought:
                continue
            known = corrupted_sets.facts(name, Path(self.data))
            if known is None:
                raise InputError(
                    f"perturbation: no '{name}': {alternatives(name, KERNELS)}; or put {Path(self.data) / name}.npz "
                    f"in place ({corrupted_sets.SAVED})"
                )
            found[name] = known
        return found

    def estimates(self) -> int:
        """How many numbers with a guarantee the study prints: networks × the measures that apply to them."""
        return sum(
            count_matching(entry.wanted_in(place), grid) * len(entry.forms) * len(entry.thresholds) * len(entry.judges)
            for grid in self.grids
            for entry in self.measures
            for place in entry.neighbourhoods
        )

    def estimates_at_once(self) -> int:
        """How many of them share one α: all when the guarantee is simultaneous, else each has its own."""
        return max(1, self.estimates()) if self.guarantee.simultaneous else 1
