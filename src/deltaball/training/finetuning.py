"""Fine-tuning on adversarial examples (paper 002, Section 5).

A round finds adversarial examples of training images against the network of the round before (the first against the
trunk), adds them with the labels of their images to the training images, and trains on at a reduced rate. The moments
of the optimizer begin at zero. Examples are always of original training images, never of examples.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np

from deltaball.base.errors import InputError
from deltaball.base.statuses import DIVERGED
from deltaball.data.datasets import Dataset
from deltaball.networks.layers import Layers
from deltaball.plan.networks import Trajectory
from deltaball.store.examples import Examples
from deltaball.store.store import Checkpoint, Store
from deltaball.training.descent import Descent, StartingPoint, mark_diverged, missing_steps
from deltaball.training.examples import Search, pixels
from deltaball.training.progress import SILENT, Progress
from deltaball.training.splits import Split, seen_points


def train(
    trajectories: Sequence[Trajectory],
    layers: Layers,
    dataset: Dataset,
    store: Store,
    device: str,
    progress: Progress = SILENT,
) -> int:
    """Train what the store lacks of rounds of fine-tuning, one after the other; returns how many networks were trained.

    Their parents must be in the store. A network whose parent diverged has diverged. Raises InputError when a parent
    is missing or damaged.
    """
    trained = 0
    for trajectory in trajectories:
        if not (missing := missing_steps(trajectory, store)):
            continue
        trained += len(missing)
        parent = _parent(trajectory, store)
        if parent.facts["status"] == DIVERGED:
            mark_diverged(trajectory, missing[0], parent.facts, store)
            progress.finish(len(missing))
            continue
        # Each against the network of the round before, the latest last.
        found = [
            Search(network, trajectory.axes, layers, dataset, store, device, progress).examples()
            for network in trajectory.parents
        ]
        start = _start(trajectory, parent, found, dataset)
        Descent([start], layers, _augmented(dataset, reduce(add, found)), store, device, progress).until(missing[-1])
    return trained


def _parent(trajectory: Trajectory, store: Store) -> Checkpoint:
    """The network that a round starts from."""
    for identity, step in trajectory.parents:
        if (parent := store.find(identity, step)) is None:
            raise InputError(f"{trajectory.id} tunes {identity}, which is not in the store; run again")
    return parent


def _start(trajectory: Trajectory, parent: Checkpoint, found: Sequence[Examples], dataset: Dataset) -> StartingPoint:
    count, latest = sum(len(one.points) for one in found), found[-1]
    facts = {
        "examples_sought": latest.sought,
        "examples_found": len(latest.points),
        "examples_lost": latest.lost,
        "examples_learned": count,
    }
    behind = np.arange(dataset.facts.train, dataset.facts.train + count)
    images = Split(seen_points(dataset.facts, trajectory.axes), np.arange(0))
    return StartingPoint(trajectory, 0, parent.weights, {}, facts=facts, images=images, added=behind)


def _augmented(dataset: Dataset, examples: Examples) -> Dataset:
    """The data set with examples behind its training images."""
    images = np.concatenate([dataset.x_train, pixels(examples.images)])
    return replace(dataset, x_train=images, y_train=np.concatenate([dataset.y_train, dataset.y_train[examples.points]]))
