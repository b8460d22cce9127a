"""Packs trained by (stochastic) gradient descent, epochs as checkpoints of one trajectory (paper 004, B.1-B.5).

Everything random about a network comes from its trajectory's id: initial weights and the order of the data in
each epoch. So a network is the same alone and in any pack, and training resumed at a checkpoint goes on as if it
had never stopped.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from deltaball.base.draws import generator
from deltaball.base.statuses import DIVERGED
from deltaball.data.datasets import Dataset
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Layers
from deltaball.plan.costs import taken_together
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Store
from deltaball.training.choosing import Best
from deltaball.training.descent import Descent, StartingPoint, mark_diverged, missing_steps
from deltaball.training.progress import SILENT, Progress
from deltaball.training.splits import split


def train(
    trajectories: Sequence[Trajectory],
    layers: Layers,
    dataset: Dataset,
    store: Store,
    device: str,
    progress: Progress = SILENT,
) -> int:
    """Train what the store lacks of a pack's trajectories; returns how many networks were trained.

    Every checkpoint goes to the store as soon as it is reached. A network whose loss, the mean of an epoch, is not
    below DIVERGED_LOSS is marked `diverged` from that checkpoint on and leaves the pack; the others go on undisturbed.
    With `validation`, a checkpoint has the weights of the best epoch up to it, and the last ones beside, to go on from.
    """
    groups: dict[tuple[int, int], list[StartingPoint]] = defaultdict(list)
    trained = 0
    for trajectory in trajectories:
        missing = missing_steps(trajectory, store)
        if not missing:
            continue
        trained += len(missing)
        # What is there is not written again, though it may lie on the way.
        trajectory = replace(trajectory, checkpoints=tuple(missing))
        before = [step for step in reversed(store.steps(trajectory.id)) if step < missing[0]]
        found = ((step, store.find(trajectory.id, step)) for step in before)
        epoch, resumed = next(((step, one) for step, one in found if one), (0, None))
        images = split(dataset.facts, trajectory.axes)
        if resumed is None:
            weights = initial_weights(layers, generator(trajectory.origin, "weights"))
            groups[0, missing[-1]].append(StartingPoint(trajectory, 0, weights, {}, images=images))
        elif resumed.facts["status"] == DIVERGED:
            mark_diverged(trajectory, epoch, resumed.facts, store)
            progress.finish(len(missing))
        else:
            start = StartingPoint(trajectory, epoch, resumed.weights, resumed.state, images=images)
            groups[epoch, missing[-1]].append(start.after_choosing(Best.of(resumed)))
    for (_, last), starts in groups.items():
        for some in together(starts, layers, device):
            Descent(some, layers, dataset, store, device, progress).until(last)
    return trained


def together(starts: list[StartingPoint], layers: Layers, device: str) -> Iterator[list[StartingPoint]]:
    """The networks of a pack that take each step together."""
    size = taken_together(len(starts), layers, starts[0].trajectory.axes["batch_size"], device)
    for first in range(0, len(starts), size):
        yield starts[first : first + size]
