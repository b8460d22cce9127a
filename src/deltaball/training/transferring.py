"""Classifiers behind a transfer, f∘T (paper 003, Section 4): nothing is trained, what they are made of is named.

Accuracies are those of f∘T on clean images. Where there is a transfer for each corruption, no clean image has one of
its own: they are then the mean over all of them, which says what mistaking a clean image costs.
"""

from collections.abc import Sequence

import numpy as np

from deltaball.base.errors import InputError
from deltaball.base.statuses import DIVERGED
from deltaball.data.datasets import Dataset
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pack
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Checkpoint, Store
from deltaball.training.descent import evaluated, missing_steps, provenance, resident
from deltaball.training.progress import SILENT, Progress
from deltaball.training.splits import seen_points

ACCURACIES = ("train_accuracy", "test_accuracy", "test_loss")


def train(
    trajectories: Sequence[Trajectory],
    layers: Layers,
    dataset: Dataset,
    store: Store,
    device: str,
    progress: Progress = SILENT,
) -> int:
    """Put the networks that the store lacks there; returns how many.

    Raises InputError where what one is made of is not in the store.
    """
    made = 0
    for one in trajectories:
        parts = [_part(one, *parent, store) for parent in one.parents]
        if missing_steps(one, store):
            store.save(one.id, 0, _composed(one, parts, layers, dataset, device))
            progress.finish(1)
            made += 1
    return made


def _part(one: Trajectory, identity: str, step: int, store: Store) -> Checkpoint:
    if (found := store.find(identity, step)) is None:
        raise InputError(f"{one.id} is made of {identity}, which is not in the store; run again")
    return found


def _composed(
    one: Trajectory, parts: Sequence[Checkpoint], layers: Layers, dataset: Dataset, device: str
) -> Checkpoint:
    """The network of a classifier and its transfers, the first part and the others."""
    classifier, *transfers = parts
    diverged = next((part for part in parts if part.facts["status"] == DIVERGED), None)
    if diverged:
        facts = {**provenance(dataset, device), "status": DIVERGED, "reason": diverged.facts.get("reason")}
        return Checkpoint((), {}, facts)
    found = [_accuracies(layers, (*part.weights, *classifier.weights), one, dataset, device) for part in transfers]
    means = dict(zip(ACCURACIES, np.mean(found, 0).tolist(), strict=True))
    pairs = one.axes["pairs"]
    names = [pair.corruptions[0] for pair in pairs] if len(pairs) > 1 else [""]
    made_of = {"classifier": one.parents[0], "transfers": dict(zip(names, one.parents[1:], strict=True))}
    return Checkpoint((), {}, {**classifier.facts, **provenance(dataset, device), **means, **made_of})


def _accuracies(
    layers: Layers, weights: Sequence[np.ndarray], one: Trajectory, dataset: Dataset, device: str
) -> tuple[float, float, float]:
    """Accuracy on the training images that the classifier saw; on test images accuracy and cross-entropy."""
    network = Pack.of(layers, [weights], device)
    x_train, y_train, x_test, y_test = resident(dataset, device)
    seen = seen_points(dataset.facts, one.axes)
    trained, _ = evaluated(layers, network.weights, x_train[seen], y_train[seen])
    accuracy, loss = evaluated(layers, network.weights, x_test, y_test)
    return trained.item(), accuracy.item(), loss.item()
