"""From the trainings that networks need to trajectories, each once, with its id and what it costs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deltaball.data.catalogue import DatasetFacts
from deltaball.networks.layers import Layers
from deltaball.plan.identities import Identity
from deltaball.plan.networks import CheckpointId, Trajectory
from deltaball.study import architectures
from deltaball.study.method import Training
from deltaball.study.methods import TRAININGS
from deltaball.study.objectives import DEFAULT, GENERATOR_PASSES, OBJECTIVES, generator_of
from deltaball.study.transfers import Transfer


@dataclass
class Wanted:
    """A trajectory whose checkpoints are still being gathered."""

    grid: str
    dataset: str
    architecture: str
    training: Training
    parents: tuple[CheckpointId, ...]
    origin: str
    checkpoints: set[int] = field(default_factory=set)


class Trajectories:
    """The trajectories of a study, by id: of trainings that several networks need, one."""

    def __init__(self) -> None:
        self.wanted: dict[str, Wanted] = {}

    def add(self, identify: Identity, chain: list[Training]) -> list[CheckpointId]:
        """Add what a network of a grid needs; returns the checkpoint that each training of the chain leads to."""
        grid, reached = identify.grid, {}
        for training in chain:
            identity = identify.trajectory(training.method, training.axes)
            reached[id(training)] = (identity, training.checkpoint)
            if identity not in self.wanted:
                parents = tuple(reached[id(one)] for one in training.parents)
                origin = reached[id(training.origin)][0] if training.origin else identity
                place = grid.name, grid.dataset, grid.architecture
                self.wanted[identity] = Wanted(*place, training, parents, origin)
            self.wanted[identity].checkpoints.add(training.checkpoint)
        return list(reached.values())

    def add_transferred(self, identify: Identity, network: CheckpointId, transfer: Transfer) -> CheckpointId:
        """Add a network of a grid once more, behind a transfer, and the auto-encoders that this takes."""
        grid, classifier = identify.grid, self.wanted[network[0]].training
        pairs = transfer.pairs(classifier.axes.get("seed", 0))
        place = grid.name, grid.dataset, grid.architecture
        reached = [network]
        for pair in pairs:
            identity = identify.paired(pair)
            if identity not in self.wanted:
                training = Training("pair", {"pairs": (pair,), "batch_size": transfer.batch_size}, transfer.epochs)
                self.wanted[identity] = Wanted(*place, training, (), identity)
            self.wanted[identity].checkpoints.add(transfer.epochs)
            reached.append((identity, transfer.epochs))
        identity = identify.transferred(network, pairs)
        if identity not in self.wanted:
            # How the classifier was trained no longer matters, and a generator beside it is left there.
            own = {name: value for name, value in classifier.axes.items() if name != "objective"}
            training = Training("transfer", {**own, "pairs": tuple(pairs)}, 0)
            self.wanted[identity] = Wanted(*place, training, tuple(reached), identity, {0})
        return identity, 0

    def costed(self, facts: Mapping[str, DatasetFacts]) -> Iterator[Trajectory]:
        """What was added, in that order, with all checkpoints and with their cost; `facts` are those of data sets."""
        for identity, one in self.wanted.items():
            yield _costed(identity, one, facts[one.dataset])


def layers(
    method: str, architecture: str, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int
) -> Layers:
    """The layers of what a trajectory trains: a classifier's, a transfer's, or those of the one behind the other.

    Raises InputError where the architecture does.
    """
    transfer = axes["pairs"][0].layers(shape) if "pairs" in axes else Layers(shape, ())
    if method == "pair":
        return transfer
    own = architectures.layers(architecture, axes, shape, classes)
    return Layers(shape, (*transfer, *own)) if transfer.sequence else own


def _costed(identity: str, one: Wanted, facts: DatasetFacts) -> Trajectory:
    method, axes, checkpoints = one.training.method, one.training.axes, tuple(sorted(one.checkpoints))
    network = layers(method, one.architecture, axes, facts.shape, facts.classes)
    images = TRAININGS[method].images(axes, facts.train, checkpoints[-1])
    passes, _ = TRAININGS[method].searching(axes, facts.train, network)
    generator = generator_of(axes, facts.shape)
    flop = network.flop * OBJECTIVES[axes.get("objective", DEFAULT)].passes(axes)
    if generator:
        flop += generator.flop * GENERATOR_PASSES
    return Trajectory(
        id=identity,
        grid=one.grid,
        dataset=one.dataset,
        method=method,
        architecture=one.architecture,
        axes=axes,
        checkpoints=checkpoints,
        parents=one.parents,
        origin=one.origin,
        parameters=TRAININGS[method].parameters(axes, facts.train, network),
        # A backward pass costs two forward passes.
        flop=3.0 * flop * images + network.flop * passes,
        beside=generator.parameters if generator else 0,
    )
