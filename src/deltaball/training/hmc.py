"""Packs of Bayesian networks by Hamiltonian Monte Carlo, samples as checkpoints of one chain (paper 004, B.8, B.9).

The potential energy of the weights w is U(w) = |w|²/2σ² - s Σ log p(y|x, w): a normal prior of scale σ on every weight
and bias, all training points at once, and s = 1 for the posterior (Neal 2011, Section 5.3; Izmailov et al. 2021). A
transition integrates Hamilton's equations with the unit mass matrix in a fixed number of leapfrog steps. NumPyro takes
it; the network is the Keras model of `architectures` on JAX.

A network of the study is the mean of softmax over a chain's samples. Everything random comes from the trajectory's id.
On a CPU chains take turns in one compiled program, so a chain is the same, bit for bit, alone, in any pack and after
any number of kills; on a GPU the chains of a pack take each transition together.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import torch

import deltaball
from deltaball.base import hardware, statuses
from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.data.datasets import Dataset
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Layers
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Store
from deltaball.training import descent
from deltaball.training.chains import POINTS_WATCHED, Chain, history
from deltaball.training.progress import SILENT, Progress
from deltaball.training.splits import seen_points
from deltaball.training.transitions import transitions

# How a chain that starts warm is trained before it.
WARM_START = {"optimizer": "sgd", "learning_rate": 0.05, "batch_size": 128}


def train(
    trajectories: Sequence[Trajectory],
    layers: Layers,
    dataset: Dataset,
    store: Store,
    device: str,
    progress: Progress = SILENT,
) -> int:
    """Sample what the store lacks of a pack's chains; returns how many networks were added.

    Every checkpoint, and every WRITTEN_EVERY transitions on the way, go to the store as soon as they are reached.
    """
    groups: dict[tuple[int, int], list[Chain]] = defaultdict(list)
    trained = 0
    for trajectory in trajectories:
        missing = [step for step in trajectory.checkpoints if history(trajectory.id, step, store) is None]
        if not missing:
            continue
        trained += len(missing)
        trajectory = replace(trajectory, checkpoints=tuple(missing))
        before = [step for step in reversed(store.steps(trajectory.id)) if step < missing[0]]
        found = ((step, history(trajectory.id, step, store)) for step in before)
        step, segments = next(((step, some) for step, some in found if some is not None), (0, []))
        if segments and segments[-1].facts["status"] == statuses.DIVERGED:
            facts = segments[-1].facts
            descent.mark_diverged(trajectory, step, facts, store, facts.get("reason"))
            progress.finish(len(missing))
        else:
            groups[step, missing[-1]].append(Chain(trajectory, step, segments))
    if groups and device == "cuda":  # torch keeps memory that it does not use, and JAX has its own
        torch.cuda.empty_cache()
    for (_, last), chains in groups.items():
        for together in [chains] if device == "cuda" else [[chain] for chain in chains]:
            Sampling(together, layers, dataset, store, device, progress).until(last)
    return trained


class Sampling:
    """Chains that go on from the same step, sampled as one pack on a device."""

    def __init__(
        self,
        chains: Sequence[Chain],
        layers: Layers,
        dataset: Dataset,
        store: Store,
        device: str,
        progress: Progress = SILENT,
    ) -> None:
        self.chains, self.layers, self.dataset, self.store = list(chains), layers, dataset, store
        self.progress = progress
        self.device, self.step, self.axes = device, chains[0].step, chains[0].trajectory.axes
        self.on, self.facts = _device(device), _provenance(dataset, device)
        self.seen = [seen_points(dataset.facts, one.trajectory.axes) for one in chains]
        whole = self.axes["train_points"] is None
        with jax.default_device(self.on):
            # Every chain sees the same arrays, [n, ...], or its own draw of points, [K, n, ...].
            self.x_train, self.y_train = (
                jnp.asarray(array if whole else np.stack([array[points] for points in self.seen]))
                for array in (dataset.x_train, dataset.y_train.astype(np.int32))
            )
            self.x_test = jnp.asarray(dataset.x_test)
            scales = [self._per_chain("prior_scale"), self._per_chain("likelihood_scale")]
        self.posterior = (self.x_train, self.y_train, *scales)
        self.transitions = transitions(layers, self.axes["leapfrog_steps"], whole)

    def _per_chain(self, axis: str) -> np.ndarray:
        return np.array([one.trajectory.axes[axis] for one in self.chains], np.float32)

    def until(self, last: int) -> None:
        """Sample to transition `last`, keeping every checkpoint and every WRITTEN_EVERY transitions on the way."""
        with jax.default_device(self.on):
            state = self._start()
            broken = ~np.isfinite(state.potential_energy)
            for k in np.flatnonzero(broken):
                facts, reason = {**self.facts, "after": 0}, _nowhere(self.chains[k].trajectory.axes)
                descent.mark_diverged(self.chains[k].trajectory, self.step, facts, self.store, reason)
                self.progress.finish(len(self.chains[k].trajectory.checkpoints))
            alive = [k for k in range(len(self.chains)) if not broken[k]]
            if not self.step:
                state = self._burnt_in(state, self.axes["burn_in"] if alive else 0)
            while alive and self.step < last:
                state = self.transitions.transition(state, *self.posterior)
                self.step += 1
                self.progress.advance(len(alive) * self.axes["leapfrog_steps"] * self.x_train.shape[-4])
                weights = [np.asarray(weight) for weight in state.z]
                rows = np.stack([state.potential_energy, state.accept_prob, state.diverging], 1).astype(np.float32)
                for k in alive:
                    self._note(k, [weight[k] for weight in weights], rows[k])
                if any(self.chains[k].is_due for k in alive):
                    for k in alive:
                        self._keep(k, state)

    def _burnt_in(self, state: Any, transitions: int) -> Any:
        """The state after so many transitions, of which the chains take down no more than whether they moved."""
        for count in range(transitions + 1):
            state = self.transitions.transition(state, *self.posterior) if count else state
            for chain, energy in zip(self.chains, np.asarray(state.potential_energy, np.float32), strict=True):
                chain.pass_over(energy)
        return state

    def _start(self) -> Any:
        """The state of the chains: where the store left them, or before the first transition."""
        resumed = [one.resumed for one in self.chains]
        if self.step:
            weights = [[one[f"position.{index}"] for index in range(len(self.layers.weight_shapes))] for one in resumed]
        else:
            weights = [self._initial(k) for k in range(len(self.chains))]
        keys = [np.frombuffer(hashlib.sha256(one.trajectory.id.encode()).digest()[:8], "<u4") for one in self.chains]
        stacked = tuple(np.stack(arrays) for arrays in zip(*weights, strict=True))
        state = self.transitions.start(stacked, np.array(keys), self._per_chain("step_size"), *self.posterior)
        if not self.step:
            return state
        # Gradient and energy as they were, and not as another program would round them.
        gradient = [[one[f"gradient.{index}"] for index in range(len(stacked))] for one in resumed]
        return state._replace(
            z_grad=tuple(jnp.asarray(np.stack(arrays)) for arrays in zip(*gradient, strict=True)),
            potential_energy=jnp.asarray(np.concatenate([one["potential"] for one in resumed])),
            rng_key=jnp.asarray(np.stack([one["key"] for one in resumed])),
        )

    def _initial(self, k: int) -> list[np.ndarray]:
        """Where a chain starts, in Keras' order: drawn from the prior or as SGD draws them, and perhaps trained."""
        trajectory = self.chains[k].trajectory
        draws = generator(trajectory.id, "weights")
        if self.axes["start"] == "prior":
            scale = trajectory.axes["prior_scale"]
            weights = [draws.normal(0, scale, shape).astype(np.float32) for shape in self.layers.weight_shapes]
        else:
            weights = initial_weights(self.layers, draws)
        if not self.axes["warm_epochs"]:
            return weights
        images, labels = self.dataset.x_train[self.seen[k]], self.dataset.y_train[self.seen[k]]
        seen = replace(self.dataset, x_train=images, y_train=labels)
        warm = replace(trajectory, axes={**trajectory.axes, **WARM_START}, checkpoints=())
        descending = descent.Descent(
            [descent.StartingPoint(warm, 0, weights, {})], self.layers, seen, self.store, self.device
        )
        descending.until(self.axes["warm_epochs"])
        if not descending.starts:  # its loss is not finite: the chain will not be either
            return [np.full_like(array, np.nan) for array in weights]
        return [array[0].cpu().numpy() for array in descending.members.weights]

    def _note(self, k: int, weights: list[np.ndarray], transition: np.ndarray) -> None:
        test = np.asarray(self.transitions.log_softmax(weights, self.x_test))
        likelihood = test[np.arange(len(test)), self.dataset.y_test]
        row = np.array(
            [*transition, likelihood.mean(dtype=np.float64), *np.exp(likelihood[:POINTS_WATCHED])], np.float32
        )

        def log_softmax() -> dict[str, np.ndarray]:
            images = self.x_train if self.x_train.ndim == 4 else self.x_train[k]
            return {"train": np.asarray(self.transitions.log_softmax(weights, images)), "test": test}

        self.chains[k].note(row, weights, log_softmax)

    def _keep(self, k: int, state: Any) -> None:
        chain = self.chains[k]
        if not chain.is_due:
            return
        labels = {"train": self.dataset.y_train[self.seen[k]], "test": self.dataset.y_test}
        kept = {f"position.{index}": np.asarray(weight)[k] for index, weight in enumerate(state.z)}
        kept |= {f"gradient.{index}": np.asarray(weight)[k] for index, weight in enumerate(state.z_grad)}
        kept |= {"potential": np.asarray(state.potential_energy)[[k]], "key": np.asarray(state.rng_key)[k]}
        segment = chain.segment(labels, kept, self.layers.weight_shapes)
        self.store.save(chain.trajectory.id, chain.step, replace(segment, facts={**self.facts, **segment.facts}))
        self.progress.finish(chain.step in chain.trajectory.checkpoints)


def _nowhere(axes: Mapping[str, Any]) -> str:
    """Why a chain has no finite potential energy where it starts."""
    start = (
        f"start: {axes['start']}, prior_scale: {axes['prior_scale']:g}, likelihood_scale: {axes['likelihood_scale']:g}"
    )
    if axes["warm_epochs"]:
        start += f", warm_epochs: {axes['warm_epochs']}"
    return f"the chain cannot start: where it would ({start}), its potential energy is not a finite number"


def _device(device: str) -> Any:
    try:
        return jax.devices("cuda" if device == "cuda" else "cpu")[0]
    except RuntimeError:
        raise InputError(
            "compute.device is 'cuda' and jax finds no GPU here; install jax[cuda12] or set it to 'cpu'"
        ) from None


def _provenance(dataset: Dataset, device: str) -> dict[str, Any]:
    model = _device(device).device_kind if device == "cuda" else hardware.processor()
    return {
        "data_sha256": dataset.facts.fingerprint,
        "software": f"deltaball {deltaball.__version__}, jax {jax.__version__}, numpyro {numpyro.__version__}, "
        f"numpy {np.__version__}",
        "device": f"{device} ({model})",
    }
