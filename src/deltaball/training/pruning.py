"""Iterative magnitude pruning with rewinding (Frankle & Carbin 2018; paper 004, Section 4.3, B.6 and B.7).

A round takes the trained weights of the round before (the first takes the dense trunk's), removes the smallest in
magnitude, rewinds what survives to its initial value, and trains again on the same order of data.

Only kernels of hidden layers are pruned. Biases are few and have no magnitude to compare with a kernel's; a pruned
output layer cuts whole classes off (Frankle & Carbin prune it at half the rate for that reason).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.base.statuses import DIVERGED
from deltaball.data.datasets import Dataset
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Layers
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Checkpoint, Store
from deltaball.training.descent import Descent, StartingPoint, mark_diverged, missing_steps
from deltaball.training.progress import SILENT, Progress


def train(
    trajectories: Sequence[Trajectory],
    layers: Layers,
    dataset: Dataset,
    store: Store,
    device: str,
    progress: Progress = SILENT,
) -> int:
    """Train what the store lacks of a pack of pruned trajectories; returns how many networks were trained.

    Their parents must be in the store. A network whose parent diverged has diverged. Raises InputError when a parent
    is missing or damaged.
    """
    missing = [one for one in trajectories if missing_steps(one, store)]
    starts = []
    for trajectory in missing:
        ((parent_id, step),) = trajectory.parents
        parent = store.find(parent_id, step)
        if parent is None:
            raise InputError(f"{trajectory.id} prunes {parent_id}, which is not in the store; run again")
        if parent.facts["status"] == DIVERGED:
            mark_diverged(trajectory, trajectory.checkpoints[0], parent.facts, store)
            progress.finish(1)
            continue
        starts.append(_start(trajectory, parent, layers))
    if starts:
        Descent(starts, layers, dataset, store, device, progress).until(starts[0].trajectory.checkpoints[-1])
    return len(missing)


def _start(trajectory: Trajectory, parent: Checkpoint, layers: Layers) -> StartingPoint:
    positions = prunable(layers)
    stay = survivors(
        [parent.weights[position] for position in positions],
        [_mask(parent.state, position, parent.weights[position].shape) for position in positions],
        trajectory.axes["kept"][-1],
        trajectory.axes["ranking"],
    )
    initial = initial_weights(layers, generator(trajectory.origin, "weights"))
    masks = [np.ones(array.shape, bool) for array in initial]
    for position, mask in zip(positions, stay, strict=True):
        masks[position] = mask
    weights = [np.where(mask, array, np.float32(0)) for mask, array in zip(masks, initial, strict=True)]
    packed = {f"mask.{position}": np.packbits(mask) for position, mask in zip(positions, stay, strict=True)}
    facts = _sparsity(stay, sum(array.size for array in initial))
    if facts["empty_layers"]:
        print(
            f"{trajectory.id}: {facts['empty_layers']} of {len(stay)} prunable layers have no weight left", flush=True
        )
    return StartingPoint(trajectory, 0, weights, packed, masks, facts)


def _sparsity(masks: Sequence[np.ndarray], weights: int) -> dict[str, Any]:
    """The facts of a network of so many weights, of which `masks` cover those that may be pruned."""
    removed = sum(int((~mask).sum()) for mask in masks)
    return {
        "sparsity": removed / sum(mask.size for mask in masks),
        "sparsity_total": removed / weights,
        "empty_layers": sum(not mask.any() for mask in masks),
    }


def prunable(layers: Layers) -> list[int]:
    """Positions, among the weights, of the kernels of all but the output layer."""
    return [position for position, weight in enumerate(layers.weights) if weight.role == "kernel"][:-1]


def survivors(
    kernels: Sequence[np.ndarray], alive: Sequence[np.ndarray], kept: float, ranking: str
) -> list[np.ndarray]:
    """Masks of the weights that stay: the share `kept` of all weights, the largest in magnitude of those `alive`.

    `ranking` ``global`` compares all kernels, ``layer`` each kernel with itself alone. The number that stays is
    exact: `kept` times the number of weights, rounded. Equal magnitudes go by position, the earlier stays.
    """
    if ranking == "layer":
        return [survivors([one], [mask], kept, "global")[0] for one, mask in zip(kernels, alive, strict=True)]
    flat = np.concatenate([kernel.ravel() for kernel in kernels])
    living = np.concatenate([mask.ravel() for mask in alive])
    magnitude = np.where(living, np.abs(flat), -1.0)
    stays = np.zeros(flat.size, bool)
    stays[np.argsort(-magnitude, kind="stable")[: round(kept * flat.size)]] = True
    ends = np.cumsum([kernel.size for kernel in kernels])[:-1]
    parts = np.split(stays & living, ends)
    return [part.reshape(kernel.shape) for part, kernel in zip(parts, kernels, strict=True)]


def _mask(state: Mapping[str, np.ndarray], position: int, shape: tuple[int, ...]) -> np.ndarray:
    """The mask of a kernel that a checkpoint's state has."""
    packed = state.get(f"mask.{position}")
    if packed is None:  # the dense trunk
        return np.ones(shape, bool)
    return np.unpackbits(packed, count=int(np.prod(shape))).astype(bool).reshape(shape)
