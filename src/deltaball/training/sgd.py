"""Packs trained by (stochastic) gradient descent, epochs as checkpoints of one trajectory (paper 004, B.1-B.5).

Everything random about a network comes from its trajectory's id: initial weights and the order of the data in
each epoch. So a network is the same alone and in any pack, and training resumed at a checkpoint goes on as if it
had never stopped.
"""

import hashlib
import platform
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import deltaball
from deltaball.architectures import Layers
from deltaball.datasets import Dataset
from deltaball.packs import Pack, initial_weights, logits
from deltaball.plan import Trajectory
from deltaball.store import Checkpoint, Store
from deltaball.training.objectives import cross_entropy

EVALUATION_BATCH = 1000


def train(trajectories: Sequence[Trajectory], layers: Layers, dataset: Dataset, store: Store, device: str) -> int:
    """Train what the store lacks of a pack's trajectories; returns how many networks were trained.

    Every checkpoint goes to the store as soon as it is reached. A network whose loss is no longer finite is
    marked `diverged` from that checkpoint on and leaves the pack; the others go on undisturbed.
    """
    starts: dict[tuple[int, int], list[tuple[Trajectory, Checkpoint | None]]] = defaultdict(list)
    trained = 0
    for trajectory in trajectories:
        found = {step: store.find(trajectory.id, step) for step in trajectory.checkpoints}
        missing = [step for step, checkpoint in found.items() if checkpoint is None]
        if not missing:
            continue
        trained += len(missing)
        before = [step for step in store.steps(trajectory.id) if step < missing[0]]
        resumed = store.find(trajectory.id, before[-1]) if before else None
        starts[before[-1] if resumed else 0, missing[-1]].append((trajectory, resumed))
    for (first, last), members in starts.items():
        _Run(members, first, layers, dataset, store, device).until(last)
    return trained


class _Run:
    """Trajectories that start from the same epoch, as one pack on a device."""

    def __init__(
        self,
        members: Sequence[tuple[Trajectory, Checkpoint | None]],
        epoch: int,
        layers: Layers,
        dataset: Dataset,
        store: Store,
        device: str,
    ) -> None:
        self.layers, self.store, self.device, self.epoch = layers, store, device, epoch
        self.facts = _provenance(dataset, device)
        self.x_train, self.y_train, self.x_test, self.y_test = (
            torch.from_numpy(array).to(device)
            for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test)
        )
        diverged = [one for one, resumed in members if resumed and resumed.facts["status"] == "diverged"]
        for trajectory in diverged:
            self._mark_diverged(trajectory)
        members = [(one, resumed) for one, resumed in members if one not in diverged]
        self.trajectories = [one for one, _ in members]
        if not members:
            return
        start = [
            resumed.weights if resumed else initial_weights(layers, generator(one.id, "weights"))
            for one, resumed in members
        ]
        self.weights = Pack.of(layers, start, device).weights
        self.moments: tuple[torch.Tensor, ...] = ()
        if self.trajectories[0].axes["optimizer"] == "adam":
            kept = [
                [resumed.optimizer[f"moment.{index}"] for index in range(len(resumed.optimizer))]
                if resumed
                else [np.zeros_like(array) for array in (*start[0], *start[0])]
                for _, resumed in members
            ]
            self.moments = Pack.of(layers, kept, device).weights

    def until(self, last: int) -> None:
        """Train to epoch `last`, keeping every planned checkpoint on the way."""
        while self.epoch < last and self.trajectories:
            started = time.monotonic()
            loss = self._train_epoch()
            self.epoch += 1
            self._drop(~torch.isfinite(loss))
            seconds = time.monotonic() - started
            print(
                f"epoch {self.epoch}/{last}: {len(self.trajectories)} networks, "
                f"{len(loss) * len(self.x_train) / seconds:,.0f} samples/s",
                flush=True,
            )
            if any(self.epoch in one.checkpoints for one in self.trajectories):
                self._keep()

    def _train_epoch(self) -> torch.Tensor:
        points = len(self.x_train)
        axes = self.trajectories[0].axes
        size = axes["batch_size"]
        order = torch.from_numpy(
            np.stack(
                [generator(one.id, f"order of epoch {self.epoch}").permutation(points) for one in self.trajectories]
            )
        ).to(self.device)
        rates = torch.tensor([one.axes["learning_rate"] for one in self.trajectories], device=self.device)
        total = torch.zeros(len(self.trajectories), device=self.device)
        batches = -(-points // size)
        for batch in range(batches):
            chosen = order[:, batch * size : (batch + 1) * size]
            weights = [weight.requires_grad_() for weight in self.weights]
            loss = cross_entropy(logits(self.layers, weights, self.x_train[chosen]), self.y_train[chosen])
            gradients = torch.autograd.grad(loss.sum(), weights)
            with torch.no_grad():
                total += loss
                if axes["optimizer"] == "adam":
                    adam_step(weights, gradients, self.moments, rates, self.epoch * batches + batch + 1)
                else:
                    sgd_step(weights, gradients, rates)
        return total / batches

    def _keep(self) -> None:
        with torch.no_grad():
            train_accuracy, _ = self._evaluated(self.x_train, self.y_train)
            test_accuracy, test_loss = self._evaluated(self.x_test, self.y_test)
        finite = torch.isfinite(test_loss)
        self._drop(~finite)
        train_accuracy, test_accuracy, test_loss = train_accuracy[finite], test_accuracy[finite], test_loss[finite]
        weights = [weight.detach().cpu().numpy() for weight in self.weights]
        moments = [moment.cpu().numpy() for moment in self.moments]
        for k, trajectory in enumerate(self.trajectories):
            if self.epoch in trajectory.checkpoints:
                facts = {
                    **self.facts,
                    "status": "trained",
                    "train_accuracy": train_accuracy[k].item(),
                    "test_accuracy": test_accuracy[k].item(),
                    "test_loss": test_loss[k].item(),
                }
                state = {f"moment.{index}": moment[k] for index, moment in enumerate(moments)}
                kept = Checkpoint(tuple(weight[k] for weight in weights), state, facts)
                self.store.save(trajectory.id, self.epoch, kept)

    def _evaluated(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Accuracy [K] in float64 and mean cross-entropy [K] on all of `images`."""
        correct = torch.zeros(len(self.trajectories), dtype=torch.float64, device=self.device)
        loss = torch.zeros_like(correct)
        for start in range(0, len(images), EVALUATION_BATCH):
            expected = labels[start : start + EVALUATION_BATCH]
            found = logits(self.layers, self.weights, images[start : start + EVALUATION_BATCH])
            correct += (found.argmax(2) == expected).sum(1)
            loss += cross_entropy(found, expected) * len(expected)
        return correct / len(images), loss / len(images)

    def _drop(self, broken: torch.Tensor) -> None:
        if not broken.any():
            return
        for k in torch.nonzero(broken).flatten().tolist():
            self._mark_diverged(self.trajectories[k])
        keep = torch.nonzero(~broken).flatten()
        self.weights = tuple(weight.detach()[keep] for weight in self.weights)
        self.moments = tuple(moment[keep] for moment in self.moments)
        self.trajectories = [self.trajectories[k] for k in keep.tolist()]

    def _mark_diverged(self, trajectory: Trajectory) -> None:
        print(f"{trajectory.id} diverged by epoch {self.epoch}: its loss is not finite", flush=True)
        for step in trajectory.checkpoints:
            if step >= self.epoch:
                self.store.save(trajectory.id, step, Checkpoint((), {}, {**self.facts, "status": "diverged"}))


def generator(trajectory_id: str, purpose: str) -> np.random.Generator:
    """The random numbers of a trajectory for one purpose; the same on every machine and in every pack."""
    key = hashlib.sha256(f"{trajectory_id} {purpose}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))


def sgd_step(weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], rates: torch.Tensor) -> None:
    """w ← w - r g in place, with a learning rate [K] per network."""
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.sub_(_per_network(rates, weight) * gradient)


def adam_step(
    weights: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    moments: Sequence[torch.Tensor],
    rates: torch.Tensor,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-7,
) -> None:
    """Adam in place, as Keras computes it (Kingma & Ba 2015, Section 2's efficient form), rates [K].

    `moments` are all first moments, then all second ones; `step` counts from 1.
    """
    count = len(weights)
    correction = (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        first, second = moments[index], moments[count + index]
        first.lerp_(gradient, 1 - beta1)
        second.lerp_(gradient.square(), 1 - beta2)
        weight.sub_(_per_network(rates * correction, weight) * first / (second.sqrt() + epsilon))


def _per_network(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def _provenance(dataset: Dataset, device: str) -> dict[str, Any]:
    hardware = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    return {
        "data_sha256": dataset.facts.fingerprint,
        "software": f"deltaball {deltaball.__version__}, torch {torch.__version__}, numpy {np.__version__}",
        "device": f"{device} ({hardware})",
    }
