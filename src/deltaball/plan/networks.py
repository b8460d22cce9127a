"""What a study trains: networks, the trajectories they stand on, the shards that are jobs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deltaball.study.grids import GRIDS

INSIDE_PACK = {name.split("-")[1]: grid.INSIDE_PACK for name, grid in GRIDS.items()}


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
    def groups(self) -> dict[str, str]:
        """What it belongs to with its whole grid."""
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
