"""From a study to work: networks, trajectories, packs, shards, and what each costs. Light: no array library.

An id is the hash of what makes a network or trajectory what it is: data set, architecture, method and the
hyper-parameters that differ from their defaults. So a value added to an axis changes no old id, and neither does
an axis added later with a no-op default.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any

from deltaball import architectures, costs
from deltaball.architectures import Layers
from deltaball.catalogue import DatasetFacts
from deltaball.errors import InputError
from deltaball.guarantees import confidence_each, samples_needed
from deltaball.study import (
    ATTACKS,
    EXACT_SECONDS,
    FMN_STEPS,
    GRIDS,
    PGD_RESTARTS,
    PGD_STEPS,
    Grid,
    Imp,
    Study,
    chosen,
    how_many,
)

# How many numbers a pack may stack: parameters of all its networks together. A CPU core's cache holds about
# a million floats; a GPU is filled by more.
PACK_PARAMETERS = {"cpu": 2_000_000, "cuda": 64_000_000}
PACK_NETWORKS = 64


@dataclass(frozen=True)
class Network:
    """One trained model of the study: one row of ``networks.parquet``."""

    id: str
    grid: str
    dataset: str
    method: str
    architecture: str
    axes: Mapping[str, Any] = field(repr=False)
    trajectory_id: str
    checkpoint: int  # epochs (or samples) of its trajectory after which it stands
    trunk: tuple[str, int] | None  # of a pruned network: the dense trajectory and checkpoint it was pruned from

    @property
    def places(self) -> dict[str, str]:
        """What it shares with its whole grid."""
        return {name: getattr(self, name) for name in ("grid", "dataset", "architecture", "method")}


@dataclass(frozen=True)
class Trajectory:
    """One training run or one chain; its networks are its checkpoints."""

    id: str
    grid: str  # the first grid that needs it
    dataset: str
    method: str
    architecture: str
    axes: Mapping[str, Any] = field(repr=False)  # without the axis along the trajectory
    checkpoints: tuple[int, ...]
    parent: tuple[str, int] | None  # the trajectory and checkpoint whose weights it prunes
    origin: str  # the trajectory whose initial weights and order of data it uses: its trunk's, or its own
    parameters: int
    flop: float  # training, forward and backward

    @property
    def shape(self) -> tuple[Any, ...]:
        """What trajectories of one pack have in common. Sorts a trunk before what is pruned from it."""
        round_of_pruning = (self.axes["epochs"], len(self.axes["kept"])) if self.method == "imp" else ()
        varying = INSIDE_PACK[self.method] | {"epochs"}
        fixed = tuple(sorted((name, str(value)) for name, value in self.axes.items() if name not in varying))
        return (self.dataset, self.architecture, fixed, self.method == "imp", self.method, round_of_pruning)


@dataclass(frozen=True)
class Shard:
    """Packs that one job trains and measures; `id` is a hash of the trajectories and their checkpoints."""

    id: str
    grid: str
    dataset: str
    packs: tuple[tuple[Trajectory, ...], ...]
    minutes: float  # estimated, on the study's device

    @property
    def trajectories(self) -> list[Trajectory]:
        return [trajectory for pack in self.packs for trajectory in pack]


@dataclass(frozen=True)
class Measure:
    """One number per network: notion × norm × δ × what judges it, on so many test points."""

    notion: str
    norm: str
    delta: float
    by: str  # an attack or a certificate
    gamma: float | None = None
    settings: tuple[tuple[str, float], ...] = ()  # what `by` takes: steps, restarts, seconds
    samples: int = field(default=0, compare=False)
    epsilon: float = field(default=1.0, compare=False)  # in the units of the measure
    confidence: float = field(default=0.0, compare=False)
    wanted: Mapping[str, Sequence[Any]] = field(default_factory=dict, compare=False, repr=False)  # which networks

    @property
    def judge(self) -> str:
        """The attack or certificate in the tables; with its settings where they are not the defaults."""
        if self.settings == _SETTINGS.get(self.by, ()):
            return self.by
        return f"{self.by}-{'x'.join(f'{value:g}' for _, value in self.settings)}"

    @property
    def name(self) -> str:
        """The measure's name in the tables."""
        # repr, because :g would give 8/255 and its neighbours one name.
        threshold = "" if self.gamma is None else f"_{self.gamma!r}"
        return f"{self.notion}{threshold}_{self.norm}_{self.delta!r}_{self.judge}"

    @property
    def attack(self) -> str | None:
        """The attack in the tables, None for a certificate."""
        return self.judge if self.by in ATTACKS else None

    @property
    def certificate(self) -> str | None:
        """The certificate in the tables, None for an attack."""
        return None if self.by in ATTACKS else self.judge

    @property
    def highest(self) -> float:
        """The largest value an outcome can have; the smallest is 0."""
        return self.delta if self.notion == "margin" else 1.0

    def applies_to(self, network: Network) -> bool:
        return chosen(self.wanted, network.places, network.axes)


_SETTINGS = {
    "pgd": (("steps", PGD_STEPS), ("restarts", PGD_RESTARTS)),
    "fmn": (("steps", FMN_STEPS),),
    "exact": (("seconds", EXACT_SECONDS),),
}


@dataclass(frozen=True)
class Experiment:
    """For each of `epsilons`, `draws` sets of as many test points as it needs (paper 004, Section 4.1)."""

    measures: tuple[Measure, ...]
    networks: tuple[Network, ...]
    epsilons: tuple[float, ...]  # falling
    draws: int


DEFAULTS = {tuple(name.split("-")): grid.defaults() for name, grid in GRIDS.items()}
INSIDE_PACK = {name.split("-")[1]: grid.INSIDE_PACK for name, grid in GRIDS.items()}


def measures(study: Study) -> list[Measure]:
    """The study's measures, one per notion × γ × norm × δ × attack or certificate.

    Raises InputError when two entries ask for the same number.
    """
    found: list[Measure] = []
    for entry in study.measures:
        for measure in _of_entry(entry, study):
            twin = next((other for other in found if other == measure and _overlap(study, other, measure)), None)
            if twin:
                raise InputError(f"measures: {measure.name} is asked for twice; list each δ once per notion")
            found.append(measure)
    return found


def _of_entry(entry: Any, study: Study) -> Iterator[Measure]:
    guarantee = study.guarantee
    epsilon = (entry.guarantee and entry.guarantee.epsilon) or guarantee.epsilon
    confidence = (entry.guarantee and entry.guarantee.confidence) or guarantee.confidence
    at_once = study.estimates_at_once()
    samples = samples_needed(epsilon, confidence, estimates=at_once)
    for by in entry.by:
        settings = tuple(
            (name, value if getattr(entry, name) is None else getattr(entry, name))
            for name, value in _SETTINGS.get(by, ())
        )
        for norm, gamma, delta in itertools.product(entry.norm, getattr(entry, "gamma", [None]), entry.delta):
            one = Measure(entry.notion, norm, delta, by, gamma, settings, samples, wanted=entry.wanted)
            yield replace(one, epsilon=epsilon * one.highest, confidence=confidence_each(confidence, at_once))


def _overlap(study: Study, one: Measure, other: Measure) -> bool:
    """Whether two measures apply to the same network."""
    both = {**one.wanted, **other.wanted}
    both |= {
        name: [value for value in one.wanted[name] if value in values]
        for name, values in other.wanted.items()
        if name in one.wanted
    }
    return any(how_many(both, grid) for grid in study.grids)


@dataclass(frozen=True)
class Plan:
    """Everything a study asks for. Built by `plan`; the same study and rates always give the same plan."""

    study: Study
    facts: dict[str, DatasetFacts]
    networks: list[Network]
    trajectories: dict[str, Trajectory]
    rates: costs.Rates  # of the study's device

    @cached_property
    def shards(self) -> dict[str, Shard]:
        """The jobs by id, cut to the study's `shard_minutes`."""
        return {shard.id: shard for shard in _shards(self)}

    @cached_property
    def shard_of(self) -> dict[str, str]:
        """Which shard trains a trajectory, both by id."""
        return {one.id: shard.id for shard in self.shards.values() for one in shard.trajectories}

    def needed_by(self, shard: Shard) -> list[str]:
        """The other shards, by id, that train what this one prunes."""
        parents = {self.shard_of[one.parent[0]] for one in shard.trajectories if one.parent}
        trunks = {self.shard_of[one.trunk[0]] for one in self.networks_of(shard.trajectories) if one.trunk}
        return sorted((parents | trunks) - {shard.id})

    @cached_property
    def measures(self) -> list[Measure]:
        return measures(self.study)

    @cached_property
    def experiments(self) -> list["Experiment"]:
        """The study's convergence experiments."""
        found = []
        for entry in self.study.convergence:
            measures = list(_of_entry(entry.measure, self.study))
            networks = tuple(one for one in self.networks if measures[0].applies_to(one))
            found.append(Experiment(tuple(measures), networks, tuple(sorted(entry.epsilon, reverse=True)), entry.draws))
        return found

    def measures_of(self, network: Network) -> list[Measure]:
        """The measures that apply to a network."""
        return [one for one in self.measures if one.applies_to(network)]

    def asked_of(self, network: Network) -> dict[Measure, int]:
        """Everything that is to be measured on a network, and on how many points: all of them for experiments."""
        asked = {one: one.samples for one in self.measures_of(network)}
        for experiment in self.experiments:
            if network in experiment.networks:
                asked |= dict.fromkeys(experiment.measures, self.facts[network.dataset].test)
        return asked

    def evicts(self, shard: Shard) -> bool:
        """Whether the weights of a shard's networks go once they are measured, in the job that trains them."""
        return next(grid.weights == "evict" for grid in self.study.grids if grid.name == shard.grid)

    def shard(self, identity: str) -> Shard:
        """The shard of this id. Raises InputError when the study plans no such shard."""
        if identity not in self.shards:
            raise InputError(f"the study '{self.study.study}' plans no shard '{identity}' (was it edited meanwhile?)")
        return self.shards[identity]

    def networks_of(self, trajectories: Iterable[Trajectory]) -> list[Network]:
        """The networks that stand on these trajectories, in the plan's order."""
        wanted = {trajectory.id for trajectory in trajectories}
        return [network for network in self.networks if network.trajectory_id in wanted]

    def packed(self, checkpoints: Iterable[tuple[str, int]]) -> list[tuple[Trajectory, ...]]:
        """Packs of the trajectories that reach these (trajectory, checkpoint)s, with no other checkpoint."""
        wanted: dict[str, set[int]] = {}
        for identity, step in checkpoints:
            wanted.setdefault(identity, set()).add(step)
        found = [
            replace(self.trajectories[identity], checkpoints=tuple(sorted(steps))) for identity, steps in wanted.items()
        ]
        return list(_packs(found, self.study.compute.device))

    def layers(self, trajectory: Trajectory | Network) -> Layers:
        """The layers of a trajectory's networks."""
        facts = self.facts[trajectory.dataset]
        return architectures.layers(trajectory.architecture, trajectory.axes, facts.shape, facts.classes)

    def seconds(self, pack: Sequence[Trajectory]) -> float:
        """Estimated seconds of training a pack on the study's device."""
        first, checkpoints = pack[0], [one.checkpoints for one in pack]
        facts, device = self.facts[first.dataset], self.study.compute.device
        work = costs.training(first.method, first.axes, self.layers(first), facts, checkpoints, device)
        return self.rates.of(work)


def plan(study: Study) -> Plan:
    """Plan a study. Raises InputError when two grids contain the same network, or the device's rates are damaged."""
    facts = study.facts()
    networks: list[Network] = []
    steps: dict[str, _Step] = {}
    checkpoints: dict[str, set[int]] = {}
    owners: dict[str, str] = {}
    for grid in study.grids:
        identify = _Identity(grid, facts[grid.dataset])
        for axes in grid.points():
            chain = list(_chain(identify, axes))
            for step, checkpoint in chain:
                steps.setdefault(step.id, step)
                checkpoints.setdefault(step.id, set()).add(checkpoint)
            step, checkpoint = chain[-1]
            network_id = identify.network(axes)
            if network_id in owners:
                raise InputError(
                    f"grids '{owners[network_id]}' and '{grid.name}' both contain the network {_spoken(axes)}; "
                    "take it out of one of them"
                )
            owners[network_id] = grid.name
            networks.append(
                Network(
                    network_id,
                    grid.name,
                    grid.dataset,
                    grid.method,
                    grid.architecture,
                    axes,
                    step.id,
                    checkpoint,
                    (chain[0][0].id, chain[0][1]) if grid.method == "imp" else None,
                )
            )
    trajectories = {
        identity: _costed(step, tuple(sorted(checkpoints[identity])), facts[step.dataset])
        for identity, step in steps.items()
    }
    evicting = {grid.name for grid in study.grids if grid.weights == "evict"}
    for one in trajectories.values():
        if one.parent and trajectories[one.parent[0]].grid in evicting:
            owner = trajectories[one.parent[0]].grid
            raise InputError(f"grids: {owner}: weights: 'evict', but grid '{one.grid}' prunes them; possible: keep")
    return Plan(study, facts, networks, trajectories, costs.read(study.store, study.compute.device))


@dataclass(frozen=True)
class _Step:
    """A trajectory before its checkpoints are known."""

    id: str
    grid: str
    dataset: str
    method: str
    architecture: str
    axes: Mapping[str, Any]
    parent: tuple[str, int] | None
    origin: str


class _Identity:
    """Ids of one grid's networks and trajectories."""

    def __init__(self, grid: Grid, facts: DatasetFacts) -> None:
        self.grid = grid
        self.base: dict[str, Any] = {"dataset": facts.name, "architecture": grid.architecture}
        if not facts.is_catalogued:
            self.base["data"] = facts.fingerprint
        if architectures.VERSIONS[grid.architecture] != 1:
            self.base["version"] = architectures.VERSIONS[grid.architecture]

    def network(self, axes: Mapping[str, Any]) -> str:
        return self._hash("network", self.grid.method, axes)

    def trajectory(self, method: str, axes: Mapping[str, Any]) -> str:
        return self._hash("trajectory", method, axes)

    def _hash(self, kind: str, method: str, axes: Mapping[str, Any]) -> str:
        defaults = DEFAULTS[self.grid.architecture, method]
        named = {name: value for name, value in axes.items() if name not in defaults or value != defaults[name]}
        content = {**self.base, "kind": kind, "method": method, "axes": named}
        content = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def _chain(identify: _Identity, axes: Mapping[str, Any]) -> Iterator[tuple[_Step, int]]:
    """The trajectories a network needs, each with the checkpoint wanted of it; the network is the last."""
    grid = identify.grid
    along = grid.ALONG

    def step(
        method: str, fixed: Mapping[str, Any], parent: tuple[str, int] | None = None, origin: str | None = None
    ) -> _Step:
        identity = identify.trajectory(method, fixed)
        place = grid.name, grid.dataset, method, grid.architecture
        return _Step(identity, *place, fixed, parent, origin or identity)

    if not isinstance(grid, Imp):
        yield step(grid.method, {name: value for name, value in axes.items() if name != along}), axes[along]
        return
    # The dense first round is plain SGD, shared by every schedule and with every SGD grid. A later round depends
    # on the epochs and on the shares kept so far, so equal rounds of different schedules are one trajectory:
    # p = .5 in one round is the first round of p = .75 in two.
    pruning = {"proportion", "iterations", "ranking", along}
    dense = {name: value for name, value in axes.items() if name not in pruning}
    trunk = step("sgd", dense)
    yield trunk, axes[along]
    if axes["proportion"] == 0:
        return
    parent, kept = (trunk.id, axes[along]), ()
    for turn in range(1, axes["iterations"] + 1):
        kept = (*kept, round((1 - axes["proportion"]) ** (turn / axes["iterations"]), 12))
        fixed = {**dense, "ranking": axes["ranking"], along: axes[along], "kept": kept}
        pruned = step("imp", fixed, parent, trunk.id)
        yield pruned, axes[along]
        parent = (pruned.id, axes[along])


def _costed(step: _Step, checkpoints: tuple[int, ...], facts: DatasetFacts) -> Trajectory:
    network = architectures.layers(step.architecture, step.axes, facts.shape, facts.classes)
    points = facts.train * checkpoints[-1]
    if step.method == "hmc":
        seen = step.axes["train_points"] or facts.train
        transitions = step.axes["burn_in"] + checkpoints[-1]
        points = seen * (step.axes["warm_epochs"] + step.axes["leapfrog_steps"] * transitions)
    # A backward pass costs two forward passes.
    flop = 3.0 * architectures.forward_flop(network) * points
    parameters = architectures.parameters(network)
    return Trajectory(
        step.id,
        step.grid,
        step.dataset,
        step.method,
        step.architecture,
        step.axes,
        checkpoints,
        step.parent,
        step.origin,
        parameters,
        flop,
    )


def trainings_alone(networks: Iterable[Network]) -> int:
    """How many trainings these networks would take if nothing were shared: one, and one more per round of pruning."""
    return sum(1 + (network.axes["iterations"] if network.axes.get("proportion") else 0) for network in networks)


def stored_bytes(trajectory: Trajectory) -> int:
    """Bytes of a trajectory's checkpoints: float32 weights, Adam's two moments, an IMP mask, HMC's samples."""
    if trajectory.method == "hmc":
        return 4 * trajectory.parameters * (trajectory.checkpoints[-1] // trajectory.axes["thinning"])
    each = 4 * trajectory.parameters
    if trajectory.axes.get("optimizer") == "adam":
        each *= 3
    if trajectory.method == "imp":
        each += trajectory.parameters // 8  # the mask, one bit a weight
    return each * len(trajectory.checkpoints)


def _shards(plan: Plan) -> Iterator[Shard]:
    target = plan.study.compute.shard_minutes
    by_grid: dict[str, list[Trajectory]] = {grid.name: [] for grid in plan.study.grids}
    for trajectory in plan.trajectories.values():
        by_grid[trajectory.grid].append(trajectory)
    for members in by_grid.values():
        current: list[tuple[Trajectory, ...]] = []
        spent = 0.0
        for pack in _packs(members, plan.study.compute.device):
            minutes = plan.seconds(pack) / 60
            if current and spent + minutes > target:
                yield _shard(current, spent)
                current, spent = [], 0.0
            current.append(pack)
            spent += minutes
        if current:
            yield _shard(current, spent)


def _packs(members: Iterable[Trajectory], device: str) -> Iterator[tuple[Trajectory, ...]]:
    ordered = sorted(members, key=lambda one: (one.shape, one.id))
    for _, group in groupby(ordered, key=lambda one: one.shape):
        alike = list(group)
        size = max(1, min(PACK_NETWORKS, PACK_PARAMETERS[device] // alike[0].parameters))
        for start in range(0, len(alike), size):
            yield tuple(alike[start : start + size])


def _shard(packs: list[tuple[Trajectory, ...]], minutes: float) -> Shard:
    content = json.dumps(sorted([one.id, *one.checkpoints] for pack in packs for one in pack))
    first = packs[0][0]
    identity = f"{first.grid}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"
    return Shard(identity, first.grid, first.dataset, tuple(packs), minutes)


def _spoken(axes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in axes.items())
