"""Adapting a network to a corruption by unlabelled corrupted images, without descent: some weights are made anew.

`batch_norm`: every batch normalisation takes the mean and variance that its inputs have on corrupted images (Schneider
et al. 2020, Nado et al. 2020, with no share of the old ones), one after the other, so that each knows those before it.

`coral`: inputs z of the last dense layer are mapped to (z - m) C^-½ S^½ + n, which have the mean n and covariance S of
clean images where corrupted ones have m and C. It is correlation alignment (Sun, Feng & Saenko 2016) the other way
round: they bring clean inputs to corrupted ones and train the classifier again, and here it stays. As theirs, both
covariances have 1 added to their diagonals. The map is part of the layer's weights afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from deltaball.base.errors import InputError
from deltaball.base.statuses import DIVERGED, TRAINED
from deltaball.data.datasets import Dataset
from deltaball.networks.layers import BatchNorm, Layers
from deltaball.networks.packs import Pack, Pass, rule_of
from deltaball.plan.batches import EVALUATION_BATCH
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Checkpoint, Store
from deltaball.study.adapting import last_dense, members
from deltaball.training.descent import evaluated, mark_diverged, missing_steps, provenance, resident
from deltaball.training.index_sets import corrupted_images, index_sets
from deltaball.training.progress import SILENT, Progress

RIDGE = 1.0  # on the diagonal of covariances, as in the paper of CORAL


def train(
    trajectories: Sequence[Trajectory],
    layers: Layers,
    dataset: Dataset,
    store: Store,
    device: str,
    progress: Progress = SILENT,
) -> int:
    """Adapt the networks that the store lacks, one after another; returns how many.

    Their trunks must be in the store. A network whose trunk diverged has diverged. Raises InputError when a trunk is
    missing or damaged.
    """
    lacking = [one for one in trajectories if missing_steps(one, store)]
    for one in lacking:
        store.note("began", one.id, 0)
        ((identity, step),) = one.parents
        trunk = store.find(identity, step)
        if trunk is None:
            raise InputError(f"{one.id} adapts {identity}, which is not in the store; run again")
        if trunk.facts["status"] == DIVERGED:
            mark_diverged(one, 0, trunk.facts, store)
        else:
            store.save(one.id, 0, _adapted(one, trunk, layers, dataset, store, device))
        progress.finish(1)
    return len(lacking)


def _adapted(
    one: Trajectory, trunk: Checkpoint, layers: Layers, dataset: Dataset, store: Store, device: str
) -> Checkpoint:
    axes = one.axes
    sets = index_sets(dataset.facts, members(axes["corruption"]), axes["corrupted_images"], axes["seed"])
    shifted = torch.from_numpy(corrupted_images(dataset, sets, store)).to(device)
    network = Pack.of(layers, [trunk.weights], device)
    x_train, y_train, x_test, y_test = resident(dataset, device)
    if axes["adaptation"] == "batch_norm":
        weights = with_statistics(network, shifted)
    else:
        weights = with_aligned_inputs(network, x_train[torch.from_numpy(sets.clean).to(device)], shifted)
    train_accuracy, _ = evaluated(layers, weights, x_train, y_train)
    test_accuracy, test_loss = evaluated(layers, weights, x_test, y_test)
    facts = {
        **provenance(dataset, device),
        "status": TRAINED,
        "train_accuracy": train_accuracy.item(),
        "test_accuracy": test_accuracy.item(),
        "test_loss": test_loss.item(),
    }
    return Checkpoint(tuple(weight[0].cpu().numpy() for weight in weights), {}, facts)


@dataclass(frozen=True)
class _Statistics(Pass):
    """A pass that adds up, of one batch normalisation, what its inputs are: count, sum and sum of squares [c]."""

    which: int = 0  # in the order of their weights
    seen: list[torch.Tensor] = field(default_factory=list)
    met: list[int] = field(default_factory=lambda: [0])

    def through(self, layers: Layers, weights: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        for layer, _, own in layers.with_weights(weights):
            if isinstance(layer, BatchNorm):
                if self.met[0] == self.which:
                    self.seen.append(x.flatten(0, -2).double())
                self.met[0] += 1
            x = rule_of(layer)(layer, own, x, self)
        return x


@torch.no_grad()
def with_statistics(network: Pack, images: torch.Tensor) -> list[torch.Tensor]:
    """The weights [1, ...] of one network whose batch normalisations know the statistics of images [n, h, w, c]."""
    weights = list(network.weights)
    buffers = [place for place, weight in enumerate(network.layers.weights) if weight.role == "buffer"]
    for which, (mean, variance) in enumerate(zip(buffers[::2], buffers[1::2], strict=True)):
        count, total, squares = 0, 0.0, 0.0
        # Around the old mean, lest the difference of large numbers be what is left.
        around = weights[mean][0].double()
        for batch in images.split(EVALUATION_BATCH):
            way = _Statistics(which=which)
            way.through(network.layers, weights, batch)
            (inputs,) = way.seen
            apart = inputs - around
            count, total, squares = count + len(apart), total + apart.sum(0), squares + apart.square().sum(0)
        weights[mean] = (around + total / count).to(weights[mean].dtype)[None]
        weights[variance] = (squares / count - (total / count).square()).clamp(min=0).to(weights[variance].dtype)[None]
    return weights


@torch.no_grad()
def with_aligned_inputs(network: Pack, clean: torch.Tensor, shifted: torch.Tensor) -> list[torch.Tensor]:
    """Weights [1, ...] of a network that takes the last inputs of `shifted` images as those of `clean` ones."""
    sequence, place = network.layers.sequence, last_dense(network.layers)
    before, behind = Layers(network.layers.shape, sequence[:place]), Layers((), sequence[place + 1 :])
    first = len(before.weights)
    assert not behind.weights
    (mean, covariance), (own_mean, own_covariance) = (
        _moments(_inputs(before, network.weights[:first], images)) for images in (clean, shifted)
    )
    aligned = _power(own_covariance, -0.5) @ _power(covariance, 0.5)
    kernel, bias = (weight[0].double() for weight in network.weights[first:])
    moved = aligned @ kernel
    shift = bias + mean @ kernel - own_mean @ moved
    changed = (moved.to(network.weights[first].dtype)[None], shift.to(network.weights[first + 1].dtype)[None])
    return [*network.weights[:first], *changed]


def _inputs(before: Layers, weights: Sequence[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """What enters the last dense layer, float64 [n, d]."""
    passed = (Pass().through(before, weights, batch) for batch in images.split(EVALUATION_BATCH))
    return torch.cat([one[0] if one.ndim > 2 else one for one in passed]).double()


def _moments(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [d] and covariance [d, d] of inputs [n, d], with RIDGE on the diagonal."""
    mean = inputs.mean(0)
    apart = inputs - mean
    eye = torch.eye(len(mean), dtype=inputs.dtype, device=inputs.device)
    return mean, apart.T @ apart / max(1, len(inputs) - 1) + RIDGE * eye


def _power(matrix: torch.Tensor, exponent: float) -> torch.Tensor:
    """A power of a symmetric positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=RIDGE / 2) ** exponent) @ vectors.T
