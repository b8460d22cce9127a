"""Packs that descend a loss together, from where each network starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

import deltaball
from deltaball.base import hardware
from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.base.statuses import DIVERGED, TRAINED
from deltaball.data.datasets import Dataset
from deltaball.networks.autoencoders import AutoEncoder
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pack, logits
from deltaball.plan.batches import EVALUATION_BATCH
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Checkpoint, Store, listed, numbered
from deltaball.study.methods import METHODS
from deltaball.study.objectives import generator_of
from deltaball.training import draws
from deltaball.training.choosing import Best, Choice
from deltaball.training.executions import fastest
from deltaball.training.objectives.cross_entropy import cross_entropy
from deltaball.training.objectives.objective import objective_of, varying_axes
from deltaball.training.orders import Orders
from deltaball.training.progress import SILENT, Progress
from deltaball.training.splits import Split
from deltaball.training.steps import Members, Recipe, Steps

# A network with a loss of so much or more has diverged. Guessing has a cross-entropy of log(classes).
DIVERGED_LOSS = 1e4

# Images of an evaluation that a CPU takes at a time: what the convolutions of more give is slow to write and to read.
CACHED_IMAGES = 250


@dataclass(frozen=True)
class StartingPoint:
    """Where a trajectory's training begins: an epoch (0 or a checkpoint's), weights in Keras' order, and state.

    `state` joins that of every checkpoint; the optimizer's moments in it, ``moment.I``, are continued, and so is a
    generator beside the network, ``generator.I``, with its moments. `masks`, if any,
    are bool arrays shaped like the weights: where False, a weight is pruned, its gradient and its moments are zero.
    `facts` join those of every checkpoint. `images` are those of the training split that it sees, None: all; where some
    are held out of them, `best` is the best epoch so far. `added` are indices of images that lie behind those
    of the data set; such a network learns from them too.
    """

    trajectory: Trajectory
    epoch: int
    weights: Sequence[np.ndarray]
    state: Mapping[str, np.ndarray]
    masks: Sequence[np.ndarray] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    images: Split | None = None
    best: Best | None = None
    added: Sequence[int] = ()

    @property
    def learned(self) -> np.ndarray:
        """The indices of the images that the steps of training take, of a start that names some."""
        return np.concatenate([self.images.seen, self.added]) if len(self.added) else self.images.seen

    def after_choosing(self, best: Best | None) -> "StartingPoint":
        """The start at a checkpoint whose weights are those of its best epoch: its state has those to go on from."""
        last = listed(self.state, "last") if best else self.weights
        return replace(self, weights=last, best=best)


def missing_steps(trajectory: Trajectory, store: Store) -> list[int]:
    """The planned checkpoints of a trajectory that the store lacks or finds damaged."""
    return [step for step in trajectory.checkpoints if store.find(trajectory.id, step) is None]


def mark_diverged(
    trajectory: Trajectory, epoch: int, facts: Mapping[str, Any], store: Store, reason: str | None = None
) -> None:
    """Mark a trajectory's checkpoints from `epoch` on as diverged; `facts` are those of where it was trained.

    The reason is told, and kept where the facts have none: left out, that its loss left every bound.
    """
    reason = reason or f"diverged by epoch {epoch}: its loss is not below {DIVERGED_LOSS:,.0f}"
    print(f"{trajectory.id} {reason}", flush=True)
    for step in trajectory.checkpoints:
        if step >= epoch:
            store.save(trajectory.id, step, Checkpoint((), {}, {"reason": reason, **facts, "status": DIVERGED}))


class Descent:
    """Trajectories that start from the same epoch, trained as one pack on a device."""

    def __init__(
        self,
        starts: Sequence[StartingPoint],
        layers: Layers,
        dataset: Dataset,
        store: Store,
        device: str,
        progress: Progress = SILENT,
    ) -> None:
        self.layers, self.store, self.device, self.progress = layers, store, device, progress
        self.epoch = starts[0].epoch
        self.starts = list(starts)
        self.facts = provenance(dataset, device)
        self.x_train, self.y_train, self.x_test, self.y_test = resident(dataset, device)
        for one in self.trajectories:
            if one.checkpoints:  # a chain that starts warm keeps none
                store.note("began", one.id, one.checkpoints[-1])
        trained = [position for position, weight in enumerate(layers.weights) if weight.role != "buffer"]
        moments = METHODS[starts[0].trajectory.method].moments(self.axes)
        self.generators = generator_of(self.axes, layers.shape)
        self.members = Members(
            self._stacked([one.weights for one in starts]),
            self._stacked([_moments(one, trained * moments) for one in starts]) if moments else (),
            self._stacked([one.masks for one in starts]),
            varying_axes([one.axes for one in self.trajectories], device),
            draws.keys([one.origin for one in self.trajectories], device),
            self._beside(moments) if self.generators else None,
        )
        held_out = any(one.images and len(one.images.held_out) for one in starts)
        self.choice = Choice([one.best for one in starts], self._chosen_among) if held_out else None
        self._prepare()

    def _beside(self, moments: int) -> Members:
        """The generators beside the networks, as they start or go on, with so many moments of each weight."""
        trained = [position for position, weight in enumerate(self.generators.weights) if weight.role != "buffer"]
        weights, kept_moments = [], []
        for one in self.starts:
            random = generator(one.trajectory.origin, "weights of the generator")
            own = listed(one.state, "generator_last" if one.best else "generator")
            weights.append(own or initial_weights(self.generators, random))
            zeros = [np.zeros_like(weights[-1][position]) for position in trained * moments]
            kept_moments.append(listed(one.state, "generator_moment") or zeros)
        return Members(self._stacked(weights), self._stacked(kept_moments) if moments else ())

    @property
    def _chosen_among(self) -> list[torch.Tensor]:
        """The weights of which an epoch is chosen: those of the networks, then those of the generators beside them."""
        beside = self.members.generators
        return [*self.members.weights, *(beside.weights if beside else ())]

    def _stacked(self, arrays: Sequence[Sequence[np.ndarray]]) -> tuple[torch.Tensor, ...]:
        """Of each network's arrays, each one's stack [K, ...] on the device."""
        return Pack.of(self.layers, arrays, self.device).weights

    @property
    def trajectories(self) -> list[Trajectory]:
        """Those that have not diverged."""
        return [one.trajectory for one in self.starts]

    @property
    def axes(self) -> Mapping[str, Any]:
        """The hyper-parameters; those that one asks here are the same in the whole pack."""
        return self.starts[0].trajectory.axes

    def until(self, last: int) -> None:
        """Train to epoch `last`, keeping every planned checkpoint on the way."""
        while self.epoch < last and self.starts:
            loss = self.train_epoch()
            self.epoch += 1
            if self.epoch < last:
                for orders in filter(None, (self.orders, self.generators_orders)):
                    orders.draw_ahead(self.epoch)
            self.progress.advance(loss.numel() * self.orders.points)
            self._drop(~(loss < DIVERGED_LOSS))
            if self.choice and self.starts:
                accuracy, _ = self._evaluated_on("held_out", self.members.weights)
                self.choice.consider(self.epoch, accuracy, self._chosen_among)
            if any(self.epoch in one.checkpoints for one in self.trajectories):
                self._write_checkpoints()

    def _prepare(self) -> None:
        """Everything that has the size of the pack."""
        precision = self.axes.get("precision", "float32")
        objective = objective_of(self.axes, self._autoencoder())
        penalised = self.axes.get("momentum", 0.0), self.axes.get("weight_decay", 0.0)
        recipe = Recipe(self.layers, self.axes["batch_size"], self.axes["optimizer"], precision, objective, *penalised)
        tensors = (self.members, self.x_train, self.y_train)
        execution = fastest(recipe, *tensors, self.store.trials)
        points = len(self.starts[0].learned) if self.starts[0].images else len(self.x_train)
        self.steps = Steps(recipe, *tensors, execution, points=points)
        origins = [one.origin for one in self.trajectories]
        self.orders = Orders(origins, points, self.device)
        beside = [f"{origin} generator" for origin in origins]
        self.generators_orders = Orders(beside, points, self.device) if self.generators else None

    def _autoencoder(self) -> AutoEncoder | None:
        """The one that the objective names. Raises InputError where the store lacks it."""
        identity = self.axes.get("autoencoder")
        if identity is None:
            return None
        found = next((one for step in self.store.steps(identity) if (one := self.store.find(identity, step))), None)
        if found is None or not found.weights:
            raise InputError(f"auto-encoder {identity} is not in the store; run `deltaball data` again")
        return AutoEncoder.kept(self.layers.shape, found.weights, self.device)

    def train_epoch(self) -> torch.Tensor:
        """Take the steps of the next epoch; returns each network's mean loss [K]."""
        rates = torch.tensor([METHODS[one.method].rate(one.axes, self.epoch) for one in self.trajectories])
        before = self.epoch * -(-self.orders.points // self.axes["batch_size"])
        beside = self._order(self.generators_orders) if self.generators_orders else None
        return self.steps.epoch(self._order(self.orders), rates, before, beside)

    def _order(self, orders: Orders) -> np.ndarray:
        """Of the training images [K, n] that each network learns from, the order in the next epoch."""
        order = orders.of(self.epoch)
        if not self.starts[0].images:
            return order
        return np.take_along_axis(np.stack([one.learned for one in self.starts]), order, 1)

    def _evaluated_on(self, part: str, weights: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """As `evaluated`, on the training images that each network sees, or those held out."""
        if not self.starts[0].images:
            return evaluated(self.layers, weights, self.x_train, self.y_train)
        points = np.stack([getattr(one.images, part) for one in self.starts])
        own = torch.from_numpy(points).to(self.device)
        return evaluated(self.layers, weights, self.x_train, self.y_train, own)

    def _write_checkpoints(self) -> None:
        chosen = (self.choice.weights if self.choice else self._chosen_among)[: len(self.members.weights)]
        train_accuracy, _ = self._evaluated_on("seen", chosen)
        test_accuracy, test_loss = evaluated(self.layers, chosen, self.x_test, self.y_test)
        sound = test_loss < DIVERGED_LOSS
        self._drop(~sound)
        measured = {"train_accuracy": train_accuracy, "test_accuracy": test_accuracy, "test_loss": test_loss}
        measured = {name: values[sound].tolist() for name, values in measured.items()}
        count, last = len(self.members.weights), _arrays(self._chosen_among)
        weights = _arrays(self.choice.weights) if self.choice else last
        beside = self.members.generators
        resuming = numbered("moment", _arrays(self.members.moments))
        resuming |= numbered("generator", weights[count:])
        resuming |= numbered("generator_moment", _arrays(beside.moments if beside else ()))
        if self.choice:
            resuming |= numbered("last", last[:count]) | numbered("generator_last", last[count:])
        for k, start in enumerate(self.starts):
            identity = start.trajectory.id
            # Another job may have finished it meanwhile; its weights stay, for outcomes may have been taken of them.
            if self.epoch in start.trajectory.checkpoints and not self.store.find(identity, self.epoch):
                of_network = {name: values[k] for name, values in measured.items()}
                state = {**start.state, **{name: array[k] for name, array in resuming.items()}}
                chosen = self.choice.facts(k) if self.choice else {}
                facts = {**self.facts, **start.facts, "status": TRAINED, **of_network, **chosen}
                checkpoint = Checkpoint(tuple(weight[k] for weight in weights[:count]), state, facts)
                self.store.save(identity, self.epoch, checkpoint)
                self.store.note("kept", identity, self.epoch)
        self.progress.finish(sum(self.epoch in one.checkpoints for one in self.trajectories))

    def _drop(self, broken: torch.Tensor) -> None:
        if not broken.any():
            return
        for k in torch.nonzero(broken).flatten().tolist():
            start = self.starts[k]
            mark_diverged(start.trajectory, self.epoch, {**self.facts, **start.facts}, self.store)
            self.progress.finish(sum(step >= self.epoch for step in start.trajectory.checkpoints))
        keep = torch.nonzero(~broken).flatten()
        self.members = self.members[keep]
        if self.choice:
            self.choice.keep(keep)
        self.starts = [self.starts[k] for k in keep.tolist()]
        del self.steps  # with the memory of its graphs, before others are made
        if self.starts:
            self._prepare()


@torch.no_grad()
def evaluated(
    layers: Layers,
    weights: Sequence[torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    points: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Accuracy [K] in float64 and mean cross-entropy [K] of K networks on all of `images`, or of each its `points`
    [K, n]."""
    correct = torch.zeros(len(weights[0]), dtype=torch.float64, device=images.device)
    loss, count = torch.zeros_like(correct), len(images) if points is None else points.shape[1]
    at_once = CACHED_IMAGES if images.device.type == "cpu" else EVALUATION_BATCH
    for start in range(0, count, EVALUATION_BATCH):
        few = slice(start, start + EVALUATION_BATCH)
        few = few if points is None else points[:, few]
        expected = labels[few]
        parts = images[few].split(at_once, -4)
        scores = torch.cat([logits(layers, weights, part) for part in parts], 1)
        correct += (scores.argmax(2) == expected).sum(1)
        loss += cross_entropy(scores, expected) * expected.shape[-1]
    return correct / count, loss / count


@lru_cache(maxsize=2)
def resident(dataset: Dataset, device: str) -> tuple[torch.Tensor, ...]:
    """Images and labels of the training and of the test split, on the device once for all packs."""
    arrays = (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test)
    tensors = tuple(torch.from_numpy(array).to(device) for array in arrays)
    if device == "cuda":  # whatever stream reads them
        torch.cuda.current_stream().synchronize()
    return tensors


def _moments(start: StartingPoint, positions: Sequence[int]) -> list[np.ndarray]:
    """What the optimizer keeps, each of the weight at one of these positions."""
    return listed(start.state, "moment") or [np.zeros_like(start.weights[position]) for position in positions]


def _arrays(tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    return [tensor.cpu().numpy() for tensor in tensors]


def provenance(dataset: Dataset, device: str) -> dict[str, Any]:
    model = torch.cuda.get_device_name() if device == "cuda" else hardware.processor()
    return {
        "data_sha256": dataset.facts.fingerprint,
        "software": f"deltaball {deltaball.__version__}, torch {torch.__version__}, numpy {np.__version__}",
        "device": f"{device} ({model})",
    }
