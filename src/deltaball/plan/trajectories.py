"""From the trainings that networks need to trajectories, each once, with its id and what it costs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from deltaball.data.catalogue import DatasetFacts
from deltaball.plan.identities import Identity
from deltaball.plan.networks import CheckpointId, Trajectory
from deltaball.study import architectures
from deltaball.study.method import Training
from deltaball.study.methods import METHODS
from deltaball.study.objectives import DEFAULT, GENERATOR_PASSES, OBJECTIVES, generator_of


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

    def costed(self, facts: Mapping[str, DatasetFacts]) -> Iterator[Trajectory]:
        """What was added, in that order, with all checkpoints and with their cost; `facts` are those of data sets."""
        for identity, one in self.wanted.items():
            yield _costed(identity, one, facts[one.dataset])


def _costed(identity: str, one: Wanted, facts: DatasetFacts) -> Trajectory:
    method, axes, checkpoints = one.training.method, one.training.axes, tuple(sorted(one.checkpoints))
    network = architectures.layers(one.architecture, axes, facts.shape, facts.classes)
    images = METHODS[method].images(axes, facts.train, checkpoints[-1])
    passes, _ = METHODS[method].searching(axes, facts.train, network)
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
        parameters=METHODS[method].parameters(axes, facts.train, network),
        # A backward pass costs two forward passes.
        flop=3.0 * flop * images + network.flop * passes,
        beside=generator.parameters if generator else 0,
    )
