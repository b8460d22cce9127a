"""The trajectories that networks of each method need, and what these cost."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deltaball.data.catalogue import DatasetFacts
from deltaball.networks import layers
from deltaball.plan.identities import Identity
from deltaball.plan.networks import Network, Trajectory
from deltaball.study import architectures
from deltaball.study.methods import Imp


@dataclass(frozen=True)
class Planned:
    """A trajectory before its checkpoints are known."""

    id: str
    grid: str
    dataset: str
    method: str
    architecture: str
    axes: Mapping[str, Any]
    parent: tuple[str, int] | None
    origin: str


def trajectory_chain(identify: Identity, axes: Mapping[str, Any]) -> Iterator[tuple[Planned, int]]:
    """The trajectories a network needs, each with the checkpoint wanted of it; the network is the last."""
    grid = identify.grid
    along = grid.ALONG

    def step(
        method: str, fixed: Mapping[str, Any], parent: tuple[str, int] | None = None, origin: str | None = None
    ) -> Planned:
        identity = identify.trajectory(method, fixed)
        place = grid.name, grid.dataset, method, grid.architecture
        return Planned(identity, *place, fixed, parent, origin or identity)

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


def costed(step: Planned, checkpoints: tuple[int, ...], facts: DatasetFacts) -> Trajectory:
    network = architectures.layers(step.architecture, step.axes, facts.shape, facts.classes)
    points = facts.train * checkpoints[-1]
    if step.method == "hmc":
        seen = step.axes["train_points"] or facts.train
        transitions = step.axes["burn_in"] + checkpoints[-1]
        points = seen * (step.axes["warm_epochs"] + step.axes["leapfrog_steps"] * transitions)
    # A backward pass costs two forward passes.
    flop = 3.0 * layers.forward_flop(network) * points
    parameters = layers.parameters(network)
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
