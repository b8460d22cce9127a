"""What a study trains: networks, the trajectories they stand on, the shards that are jobs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deltaball.study.grids import DRAWN
from deltaball.study.methods import TRAININGS
from deltaball.study.objectives import DEFAULT, OBJECTIVES

CheckpointId = tuple[str, int]  # a trajectory, and after how many of its epochs (or samples)


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
    trunk: CheckpointId | None  # of a pruned network: the dense one it was pruned from; of a tuned one its parent
    rank: int  # the place of its trajectory in the order in which a sample of its grid draws them, from 0

    @property
    def groups(self) -> dict[str, Any]:
        """What it belongs to with its whole grid, and its rank there."""
        return {
            **{name: getattr(self, name) for name in ("grid", "dataset", "architecture", "method")},
            DRAWN: self.rank,
        }


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
    # Whose weights it starts from, the last: a round of pruning, those that it prunes. Fine-tuning names those before
    # too whose examples it trains on.
    parents: tuple[CheckpointId, ...]
    origin: str  # the trajectory whose initial weights and order of data it uses: its trunk's, or its own
    parameters: int
    flop: float  # training, forward and backward
    beside: int = 0  # numbers that training finds besides those of the network: of its generator

    @property
    def shape(self) -> tuple[Any, ...]:
        """What trajectories of one pack have in common. Sorts a trunk before what starts from it."""
        method, objective = TRAININGS[self.method], OBJECTIVES[self.axes.get("objective", DEFAULT)]
        varying = method.within_pack() | objective.within_pack()
        fixed = tuple(sorted((name, str(value)) for name, value in self.axes.items() if name not in varying))
        turn = method.turn(self.axes)
        return (method.rank, self.dataset, self.architecture, fixed, bool(self.parents), self.method, turn)

    @property
    def stored_bytes(self) -> int:
        """Bytes of its checkpoints in the store."""
        return TRAININGS[self.method].stored_bytes(self.axes, self.parameters + self.beside, self.checkpoints)


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
