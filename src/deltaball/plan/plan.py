"""From a study to work: networks, trajectories, packs, shards, and what each costs. Light: no array library."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate, chain
from typing import Any

from deltaball.base.errors import InputError, alternatives
from deltaball.data.catalogue import DatasetFacts
from deltaball.networks.layers import Layers
from deltaball.plan import costs, memory, trajectories
from deltaball.plan.autoencoders import AutoEncoding, autoencoding
from deltaball.plan.identities import Identity
from deltaball.plan.measures import Experiment, Measure, measures, of_entry
from deltaball.plan.networks import CheckpointId, Network, Shard, Trajectory
from deltaball.plan.packing import packs, shards
from deltaball.plan.together import PACK_NETWORKS, Alone, Together
from deltaball.plan.trajectories import Trajectories
from deltaball.study.grids import AFTERWARDS
from deltaball.study.methods import METHODS, TRAININGS
from deltaball.study.study import Study
from deltaball.study.transfers import NONE


@dataclass(frozen=True)
class Plan:
    """Everything a study asks for. Built by `plan`; the same study and rates always give the same plan."""

    study: Study
    facts: dict[str, DatasetFacts]
    networks: list[Network]
    trajectories: dict[str, Trajectory]
    rates: costs.Rates  # of the study's device
    first: frozenset[str] = frozenset()  # ids of trajectories that share no shard with the others

    @cached_property
    def shards(self) -> dict[str, Shard]:
        """The jobs by id, cut to the study's `shard_minutes`."""
        compute = self.study.compute
        cut = partial(shards, alone=self.alone, minutes=compute.shard_minutes, device=compute.device)
        ahead = [one for one in self.trajectories.values() if one.id in self.first]
        others = [one for one in self.trajectories.values() if one.id not in self.first]
        return {shard.id: shard for part in (ahead, others) for shard in cut(part, most=self.most_networks)}

    @cached_property
    def shard_of(self) -> dict[str, str]:
        """Which shard trains a trajectory, both by id."""
        return {one.id: shard.id for shard in self.shards.values() for one in shard.trajectories}

    def drawn(self, grid: str, networks: int) -> list[str]:
        """The ids of trajectories that hold at least so many networks of a grid (or all), as a sample draws them."""
        own = [one for one in self.networks if one.grid == grid]
        counts = Counter(one.rank for one in own)
        before = accumulate((counts[rank] for rank in sorted(counts)), initial=0)
        chosen = {rank for rank, so_far in zip(sorted(counts), before, strict=False) if so_far < networks}
        return list(dict.fromkeys(one.trajectory_id for one in own if one.rank in chosen))

    def with_steps(self, wanted: Iterable[str]) -> frozenset[str]:
        """These trajectories, and those on the way to them that hold no network themselves; all by id."""
        found, waiting = set(), list(wanted)
        while waiting:
            identity = waiting.pop()
            if identity not in found:
                found.add(identity)
                parents = (parent for parent, _ in self.trajectories[identity].parents)
                waiting += [one for one in parents if one not in self._places_of]
        return frozenset(found)

    def needed_by(self, shard: Shard) -> list[str]:
        """The other shards, by id, that train what this one starts from."""
        parents = {self.shard_of[parent] for one in shard.trajectories for parent, _ in one.parents}
        trunks = {self.shard_of[one.trunk[0]] for one in self.networks_of(shard.trajectories) if one.trunk}
        return sorted((parents | trunks) - {shard.id})

    @cached_property
    def pairs(self) -> list[Trajectory]:
        """The trainings of paired auto-encoders."""
        return [one for one in self.trajectories.values() if one.method == "pair"]

    def autoencoders(self, dataset: str) -> list[AutoEncoding]:
        """The auto-encoders of a data set."""
        facts = self.facts[dataset]
        return [autoencoding(one, facts) for one in self.study.autoencoders if one.dataset == dataset]

    def autoencoder(self, name: str) -> AutoEncoding:
        """The auto-encoder of this name. Raises InputError where the study has none."""
        known = {one.entry.name: one for dataset in self.facts for one in self.autoencoders(dataset)}
        if name not in known:
            raise InputError(
                f"the study '{self.study.study}' has no auto-encoder '{name}'; {alternatives(name, known)}"
            )
        return known[name]

    def trained_before(self, shard: Shard) -> list[AutoEncoding]:
        """The auto-encoders that a shard's training job needs: those that objectives name, and to measure, all."""
        named = {one.axes.get("autoencoder") for one in shard.trajectories}
        return [one for one in self.autoencoders(shard.dataset) if one.id in named or self.evicts(shard)]

    @cached_property
    def measures(self) -> list[Measure]:
        return measures(self.study)

    @cached_property
    def experiments(self) -> list["Experiment"]:
        """The study's convergence experiments."""
        found, study = [], self.study
        for entry in study.convergence:
            brought = study.corrupted_sets(entry.measure)
            asked = of_entry(entry.measure, study.guarantee, study.estimates_at_once(), study.autoencoders, brought)
            measures = list(asked)
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
        return [self.networks[place] for place in sorted(chain(*(self._places_of.get(one, ()) for one in wanted)))]

    @cached_property
    def _places_of(self) -> dict[str, list[int]]:
        """Where in the plan's order the networks of a trajectory stand, by its id."""
        places: dict[str, list[int]] = {}
        for place, network in enumerate(self.networks):
            places.setdefault(network.trajectory_id, []).append(place)
        return places

    def packed(self, checkpoints: Iterable[CheckpointId]) -> list[tuple[Trajectory, ...]]:
        """Packs of the trajectories that reach these (trajectory, checkpoint)s, with no other checkpoint."""
        wanted: dict[str, set[int]] = {}
        for identity, step in checkpoints:
            wanted.setdefault(identity, set()).add(step)
        found = [
            replace(self.trajectories[identity], checkpoints=tuple(sorted(steps))) for identity, steps in wanted.items()
        ]
        return list(packs(found, self.study.compute.device, self.most_networks))

    def most_networks(self, one: Trajectory) -> int:
        """How many networks like this one the study's device has memory for in a pack."""
        if TRAININGS[one.method].one_by_one:
            return 1
        if self.study.compute.device == "cpu":  # packs are small there for other reasons
            return PACK_NETWORKS
        each = memory.training_bytes(one.method, one.axes, self.layers(one), self.facts[one.dataset].train)
        return memory.most_networks(one.method, each)

    def layers(self, trajectory: Trajectory | Network) -> Layers:
        """The layers of a trajectory's networks."""
        facts = self.facts[trajectory.dataset]
        if isinstance(trajectory, Network) and trajectory.axes.get("transfer", NONE) != NONE:
            trajectory = self.trajectories[trajectory.trajectory_id]
        named = trajectory.method, trajectory.architecture, trajectory.axes
        return trajectories.layers(*named, facts.shape, facts.classes)

    def seconds(self, pack: Sequence[Trajectory]) -> float:
        """Estimated seconds of training a pack alone on the study's device."""
        return self.alone(pack).seconds

    def minutes(self, packs: Iterable[Sequence[Trajectory]]) -> float:
        """Estimated minutes of training packs on the study's device, which may train several side by side."""
        together = Together(self.study.compute.device)
        for pack in packs:
            together.add(pack, self.alone(pack))
        return together.minutes

    def alone(self, pack: Sequence[Trajectory]) -> Alone:
        """What training a pack takes when the study's device does nothing else."""
        first, checkpoints = pack[0], [one.checkpoints for one in pack]
        facts, device = self.facts[first.dataset], self.study.compute.device
        named = [one.entry for one in self.autoencoders(first.dataset) if one.id == first.axes.get("autoencoder")]
        coders = named[0].coders(facts.shape) if named else None
        work = costs.training(first.method, first.axes, self.layers(first), facts, checkpoints, device, coders)
        waiting = {unit: amount for unit, amount in work.items() if unit in costs.WAITING}
        beside = len(pack) * TRAININGS[first.method].searching(first.axes, facts.train, self.layers(first))[1]
        return Alone(self.rates.of(work) + beside, self.rates.of(waiting) + beside)


def plan(study: Study) -> Plan:
    """Plan a study. Raises InputError when two grids contain the same network, or the device's rates are damaged."""
    facts = study.facts()
    networks: list[Network] = []
    gathered = Trajectories()
    owners: dict[str, str] = {}
    for grid in study.grids:
        identify = Identity(grid, facts[grid.dataset])
        method = METHODS[grid.method]
        for axes in grid.networks():
            known = {**axes, **_autoencoder_id(axes, grid.dataset, study, facts)}
            # A classifier is the same one, whatever is done with it afterwards.
            own = {name: value for name, value in known.items() if name not in AFTERWARDS}
            reached = gathered.add(identify, method.chain(own))
            checkpoint, trunk = reached[-1], reached[0] if method.has_trunk else None
            transfer = study.transfer_named.get(axes["transfer"])
            if transfer:
                trunk = trunk or checkpoint
                checkpoint = gathered.add_transferred(identify, checkpoint, transfer)
            network_id = identify.network(_identifying(known, checkpoint))
            if network_id in owners:
                raise InputError(
                    f"grids '{owners[network_id]}' and '{grid.name}' both contain the network {_axes_text(axes)}; "
                    "take it out of one of them"
                )
            owners[network_id] = grid.name
            place = grid.name, grid.dataset, grid.method, grid.architecture
            told = {**axes, **(transfer.columns if transfer else {})}
            networks.append(Network(network_id, *place, told, *checkpoint, trunk, grid.rank(axes)))
    found = {one.id: one for one in gathered.costed(facts)}
    _check_evicted(study, found)
    return Plan(study, facts, networks, found, costs.read(study.store, study.compute.device))


def _identifying(axes: Mapping[str, Any], checkpoint: CheckpointId) -> Mapping[str, Any]:
    """Axes by which a network is identified: of a transfer not its name, which may come to stand for another one."""
    return axes if axes["transfer"] == NONE else {**axes, "transfer": checkpoint[0]}


def _autoencoder_id(
    axes: Mapping[str, Any], dataset: str, study: Study, facts: Mapping[str, DatasetFacts]
) -> dict[str, str]:
    """Of a network whose objective names an auto-encoder, that axis as trainings have it: the auto-encoder's id."""
    for one in study.autoencoders:
        if one.name == axes.get("autoencoder") and one.dataset == dataset:
            return {"autoencoder": autoencoding(one, facts[dataset]).id}
    return {}


def _check_evicted(study: Study, trajectories: Mapping[str, Trajectory]) -> None:
    evicting = {grid.name for grid in study.grids if grid.weights == "evict"}
    for one in trajectories.values():
        for parent, _ in one.parents:
            owner = trajectories[parent].grid
            if owner in evicting:
                raise InputError(
                    f"grids: {owner}: weights: 'evict', but grid '{one.grid}' starts from them; possible: keep"
                )


def _axes_text(axes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in axes.items())
