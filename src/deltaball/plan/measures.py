"""The numbers that a study asks for, one by one."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from deltaball.base.errors import InputError
from deltaball.base.guarantees import confidence_each, samples_needed
from deltaball.data.corrupted_sets import SetFacts
from deltaball.plan.networks import Network
from deltaball.study.autoencoders import AutoEncoder
from deltaball.study.corruptions import QUANTITIES
from deltaball.study.grids import count_matching, matches
from deltaball.study.judges import JUDGES
from deltaball.study.kernels import ChosenKernel
from deltaball.study.measures import Neighbourhood
from deltaball.study.notions import NOTIONS, Notion
from deltaball.study.study import Guarantee, Study


@dataclass(frozen=True)
class Measure:
    """One number per network: notion × norm × δ (or kernel) × judge, on so many test points."""

    notion: str  # of NOTIONS
    norm: str | None  # None of a kernel
    delta: float | None
    judge: str  # of JUDGES
    gamma: float | None = None  # the notion's threshold, whatever its symbol
    settings: tuple[tuple[str, float], ...] = ()  # what the judge takes: steps, restarts, seconds
    kernel: ChosenKernel | None = field(default=None, repr=False)  # from where images are drawn, in place of the ball
    samples: int = field(default=0, compare=False)
    epsilon: float = field(default=1.0, compare=False)  # in the units of the measure
    confidence: float = field(default=0.0, compare=False)
    wanted: Mapping[str, Sequence[Any]] = field(default_factory=dict, compare=False, repr=False)  # which networks

    @property
    def label(self) -> str:
        """The judge in the tables; with its settings where they are not the defaults."""
        if dict(self.settings) == JUDGES[self.judge].settings:
            return self.judge
        return f"{self.judge}-{'x'.join(f'{value:g}' for _, value in self.settings)}"

    @property
    def name(self) -> str:
        """The measure's name in the tables."""
        # repr, because :g would give 8/255 and its neighbours one name.
        threshold = "" if self.gamma is None else f"_{self.gamma!r}"
        where = self.kernel.label if self.kernel else f"{self.norm}_{self.delta!r}"
        return f"{self.notion}{threshold}_{where}_{self.label}"

    @property
    def kept_as(self) -> str:
        """What its outcomes are not mistaken for another's by: the name, and by which rules the judge looks."""
        version = JUDGES[self.judge].version
        return self.name if version == 1 else f"{self.name}@{version}"

    @property
    def search(self) -> "Measure":
        """The measure whose outcomes are looked for and kept: itself, but where it makes another number of them."""
        own = JUDGES[self.judge].outcomes_of
        if not own:
            return self
        taken = JUDGES[own].settings
        return replace(self, judge=own, settings=tuple(one for one in self.settings if one[0] in taken))

    @property
    def where(self) -> str:
        """Where it looks, in words."""
        return self.kernel.words if self.kernel else f"{self.norm} of δ = {self.delta:g}"

    @property
    def attack(self) -> str | None:
        """The attack in the tables, None for a certificate."""
        return self.label if JUDGES[self.judge].key == "attack" else None

    @property
    def certificate(self) -> str | None:
        """The certificate in the tables, None for an attack."""
        return self.label if JUDGES[self.judge].key == "certificate" else None

    @property
    def sampling(self) -> str | None:
        """What draws images in the tables, None for attacks and certificates."""
        return self.label if JUDGES[self.judge].key == "sampling" else None

    @property
    def is_share(self) -> bool:
        """Whether each outcome is 0 or 1; those of a sample are shares of its images."""
        return NOTIONS[self.notion].is_share and self.sampling is None

    @property
    def corrupts(self) -> bool:
        """Whether it is agreement or accuracy under corruption."""
        if self.kernel is None or self.judge != "mean":
            return False
        return bool(self.kernel.entry.corruptions) and self.notion in QUANTITIES

    @property
    def highest(self) -> float:
        """The largest value an outcome can have; the smallest is 0."""
        return NOTIONS[self.notion].highest(self.reach)

    @property
    def reach(self) -> float | None:
        """The radius of its ball, or of the ball that its kernel fills; None of other kernels."""
        return self.kernel.size if self.kernel and JUDGES[self.judge].of_balls else self.delta

    def applies_to(self, network: Network) -> bool:
        return matches(self.wanted, network.groups, network.axes)


@dataclass(frozen=True)
class Experiment:
    """For each of `epsilons`, `draws` sets of as many test points as it needs (paper 004, Section 4.1)."""

    measures: tuple[Measure, ...]
    networks: tuple[Network, ...]
    epsilons: tuple[float, ...]  # falling
    draws: int


def measures(study: Study) -> list[Measure]:
    """The study's measures, one per form of a notion × threshold × norm × δ × judge.

    Raises InputError when two entries ask for the same number.
    """
    found: list[Measure] = []
    places: list[int] = []  # of the entries that ask for them
    for place, entry in enumerate(study.measures):
        at_once, brought = study.estimates_at_once(), study.corrupted_sets(entry)
        for measure in of_entry(entry, study.guarantee, at_once, study.autoencoders, brought):
            for twin, earlier in zip(found, places, strict=True):
                if twin == measure and _overlap(study, twin, measure):
                    raise InputError(
                        f"measures[{earlier}] and measures[{place}] both ask for {measure.notion} in {measure.where} "
                        f"by {measure.label} of some networks; leave it out of one, or let their "
                        "`only` differ"
                    )
            found.append(measure)
            places.append(place)
    return found


def of_entry(
    entry: Any,
    guarantee: Guarantee,
    at_once: int,
    autoencoders: Sequence[AutoEncoder] = (),
    brought: Mapping[str, SetFacts] = MappingProxyType({}),
) -> Iterator[Measure]:
    """The measures of an entry, where so many estimates share one α.

    Kernels may be of these auto-encoders, and of corrupted sets that were `brought`, by their names.
    """
    epsilon = (entry.guarantee and entry.guarantee.epsilon) or guarantee.epsilon
    confidence = (entry.guarantee and entry.guarantee.confidence) or guarantee.confidence
    samples = samples_needed(epsilon, confidence, estimates=at_once)
    for judge in entry.judges:
        for notion, gamma, place in _each(entry):
            norm, delta, named = place
            kernel = _labelled(named, autoencoders, brought) if named else named
            settings = tuple(
                (name, value if getattr(entry, name) is None else getattr(entry, name))
                for name, value in _usual(judge, kernel).items()
            )
            where, wanted = (notion.name, norm, delta, judge, gamma, settings, kernel), entry.wanted_in(place)
            measure = Measure(*where, samples, wanted=wanted)
            yield replace(measure, epsilon=epsilon * measure.highest, confidence=confidence_each(confidence, at_once))


def _labelled(
    kernel: ChosenKernel, autoencoders: Sequence[AutoEncoder], brought: Mapping[str, SetFacts]
) -> ChosenKernel:
    """A kernel that names an auto-encoder, with the label of this one; and that of a file with what the file holds."""
    if kernel.entry.is_brought:
        return ChosenKernel(kernel.name, (("content", brought[kernel.name].content),))
    labels = {one.name: one.label for one in autoencoders}
    told = [(key, labels[value] if key == "autoencoder" else value) for key, value in kernel.parameters]
    return ChosenKernel(kernel.name, tuple(told))


def _usual(judge: str, kernel: ChosenKernel | None) -> Mapping[str, float]:
    """The settings of a judge where an entry says nothing."""
    usual = JUDGES[judge].settings
    return {**usual, "draws": kernel.entry.draws} if kernel and kernel.entry.draws else usual


def _each(entry: Any) -> Iterator[tuple[Notion, float | None, Neighbourhood]]:
    # Norms before thresholds and radii, as tables have had them.
    where = itertools.groupby(entry.neighbourhoods, lambda one: one.norm)
    for notion, (_, alike) in itertools.product(entry.forms, [(norm, [*members]) for norm, members in where]):
        yield from ((notion, gamma, one) for gamma, one in itertools.product(entry.thresholds, alike))


def _overlap(study: Study, one: Measure, other: Measure) -> bool:
    """Whether two measures apply to the same network."""
    both = {**one.wanted, **other.wanted}
    both |= {
        name: [value for value in one.wanted[name] if value in values]
        for name, values in other.wanted.items()
        if name in one.wanted
    }
    return any(count_matching(both, grid) for grid in study.grids)
