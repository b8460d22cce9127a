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
import os
import platform
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.infer.hmc import hmc

import deltaball
from deltaball.base import statuses
from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.data.catalogue import DatasetFacts
from deltaball.data.datasets import Dataset
from deltaball.networks.initial import initial_weights
from deltaball.networks.keras_models import keras_model
from deltaball.networks.layers import Layers
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Checkpoint, Store
from deltaball.training import descent
from deltaball.training.mixing import convergence
from deltaball.training.progress import SILENT, Progress

# Transitions between writes to the store: what a kill can lose.
PART = 25
# What is noted of a transition: these, and the probabilities of the labels of so many held-out points.
TRACE = ("potential energy", "acceptance", "diverging", "log-likelihood")
WATCHED = 20
# The potential energy of at most so many transitions is among a network's facts.
ENERGIES = 100
# A chain that moves in a smaller share of its transitions is stuck.
STUCK = 0.01
# How a chain that starts warm is trained before it.
WARM = {"optimizer": "sgd", "learning_rate": 0.05, "batch_size": 128}


def train(
    trajectories: Sequence[Trajectory],
    layers: Layers,
    dataset: Dataset,
    store: Store,
    device: str,
    progress: Progress = SILENT,
) -> int:
    """Sample what the store lacks of a pack's chains; returns how many networks were added.

    Every checkpoint, and every PART transitions on the way, go to the store as soon as they are reached.
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
        step, parts = next(((step, parts) for step, parts in found if parts is not None), (0, []))
        if parts and parts[-1].facts["status"] == statuses.DIVERGED:
            descent.mark_diverged(trajectory, step, parts[-1].facts, store)
            progress.finish(len(missing))
        else:
            groups[step, missing[-1]].append(Chain(trajectory, step, parts))
    for (_, last), chains in groups.items():
        for together in [chains] if device == "cuda" else [[chain] for chain in chains]:
            Run(together, layers, dataset, store, device, progress).until(last)
    return trained


def history(trajectory_id: str, step: int, store: Store) -> list[Checkpoint] | None:
    """The parts of a chain up to `step`, without their samples; None if any is missing or damaged."""
    found = []
    while step > 0:
        part = store.find(trajectory_id, step)
        if part is None:
            return None
        found.append(replace(part, weights=()))
        step = part.facts["after"]
    return found[::-1]


class Chain:
    """One chain: its trajectory, what is noted of every transition so far, and the samples not yet written."""

    def __init__(self, trajectory: Trajectory, step: int, parts: Sequence[Checkpoint]) -> None:
        self.trajectory, self.step, self.written = trajectory, step, step
        self.resumed = parts[-1].state if parts else {}
        self.trace = [row for part in parts for row in part.state["trace"]]
        self.samples: list[Sequence[np.ndarray]] = []
        # Log of the sum of the samples' softmax, [n, classes]: a mean of probabilities may underflow.
        self.log_sums = {split: self.resumed.get(f"log_sum.{split}", -np.inf) for split in ("train", "test")}

    @property
    def averaged(self) -> int:
        """How many samples the network averages by now."""
        return self.step // self.trajectory.axes["thinning"]

    @property
    def is_due(self) -> bool:
        """Whether the store is to be written now."""
        return self.step % PART == 0 or self.step in self.trajectory.checkpoints

    def note(self, row: np.ndarray, weights: Sequence[np.ndarray], log_softmax: Callable[[], dict]) -> None:
        """Take down a transition; its sample too, and its log softmax [n, classes] by split, if it is averaged."""
        self.step += 1
        self.trace.append(row)
        if self.step % self.trajectory.axes["thinning"] == 0:
            self.samples.append(weights)
            for split, values in log_softmax().items():
                self.log_sums[split] = np.logaddexp(self.log_sums[split], values.astype(np.float64))

    def part(self, labels: dict[str, np.ndarray], state: dict[str, np.ndarray], shapes: Sequence[tuple]) -> Checkpoint:
        """What the store keeps of the transitions since it was last written, and the facts of the network by now."""
        trace = np.stack(self.trace)
        noted = dict(zip(TRACE, trace.T, strict=False))
        moves = np.count_nonzero(np.diff(noted["potential energy"]))
        diagnosed = convergence(trace[:, TRACE.index("log-likelihood") :])
        facts = {
            "after": self.written,
            "status": statuses.STUCK if moves < STUCK * len(trace) else statuses.TRAINED,
            "acceptance": float(noted["acceptance"].mean(dtype=np.float64)),
            "divergences": int(noted["diverging"].sum()),
            "rhat_max": diagnosed and diagnosed[0],
            "ess_min": diagnosed and diagnosed[1],
            "energies": " ".join(f"{energy:.7g}" for energy in _spread(noted["potential energy"], ENERGIES)),
        }
        if self.averaged:
            means = {split: log_sum - np.log(self.averaged) for split, log_sum in self.log_sums.items()}
            facts |= {f"{split}_accuracy": float((means[split].argmax(1) == labels[split]).mean()) for split in means}
            facts["test_loss"] = float(-means["test"][np.arange(len(labels["test"])), labels["test"]].mean())
            state = state | {f"log_sum.{split}": values for split, values in self.log_sums.items()}
        weights = tuple(
            np.array([sample[index] for sample in self.samples], np.float32).reshape(-1, *shape)
            for index, shape in enumerate(shapes)
        )
        kept = Checkpoint(weights, state | {"trace": trace[self.written :]}, facts)
        self.samples, self.written = [], self.step
        return kept


def _spread(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the values, evenly spread from the first to the last."""
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)]


class Run:
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
        self.chosen = [seen_points(dataset.facts, one.trajectory.axes) for one in chains]
        whole = self.axes["train_points"] is None
        with jax.default_device(self.on):
            # Every chain sees the same arrays, [n, ...], or its own draw of points, [K, n, ...].
            self.x_train, self.y_train = (
                jnp.asarray(array if whole else np.stack([array[chosen] for chosen in self.chosen]))
                for array in (dataset.x_train, dataset.y_train.astype(np.int32))
            )
            self.x_test = jnp.asarray(dataset.x_test)
            scales = [self._per_chain("prior_scale"), self._per_chain("likelihood_scale")]
        self.posterior = (self.x_train, self.y_train, *scales)
        self.kernel = kernel(layers, self.axes["leapfrog_steps"], whole)

    def _per_chain(self, axis: str) -> np.ndarray:
        return np.array([one.trajectory.axes[axis] for one in self.chains], np.float32)

    def until(self, last: int) -> None:
        """Sample to transition `last`, keeping every checkpoint and every PART transitions on the way."""
        with jax.default_device(self.on):
            state = self._start()
            broken = ~np.isfinite(state.potential_energy)
            for k in np.flatnonzero(broken):
                descent.mark_diverged(self.chains[k].trajectory, self.step, {**self.facts, "after": 0}, self.store)
                self.progress.finish(len(self.chains[k].trajectory.checkpoints))
            alive = [k for k in range(len(self.chains)) if not broken[k]]
            for _ in range(self.axes["burn_in"] if alive and not self.step else 0):
                state = self.kernel.transition(state, *self.posterior)
            while alive and self.step < last:
                state = self.kernel.transition(state, *self.posterior)
                self.step += 1
                self.progress.advance(len(alive) * self.axes["leapfrog_steps"] * self.x_train.shape[-4])
                weights = [np.asarray(weight) for weight in state.z]
                rows = np.stack([state.potential_energy, state.accept_prob, state.diverging], 1).astype(np.float32)
                for k in alive:
                    self._note(k, [weight[k] for weight in weights], rows[k])
                if any(self.chains[k].is_due for k in alive):
                    for k in alive:
                        self._keep(k, state)

    def _start(self) -> Any:
        """The state of the chains: where the store left them, or before the first transition."""
        resumed = [one.resumed for one in self.chains]
        if self.step:
            weights = [
                [part[f"position.{index}"] for index in range(len(self.layers.weight_shapes))] for part in resumed
            ]
        else:
            weights = [self._initial(k) for k in range(len(self.chains))]
        keys = [np.frombuffer(hashlib.sha256(one.trajectory.id.encode()).digest()[:8], "<u4") for one in self.chains]
        stacked = tuple(np.stack(arrays) for arrays in zip(*weights, strict=True))
        state = self.kernel.start(stacked, np.array(keys), self._per_chain("step_size"), *self.posterior)
        if not self.step:
            return state
        # Gradient and energy as they were, and not as another program would round them.
        gradient = [[part[f"gradient.{index}"] for index in range(len(stacked))] for part in resumed]
        return state._replace(
            z_grad=tuple(jnp.asarray(np.stack(arrays)) for arrays in zip(*gradient, strict=True)),
            potential_energy=jnp.asarray(np.concatenate([part["potential"] for part in resumed])),
            rng_key=jnp.asarray(np.stack([part["key"] for part in resumed])),
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
        chosen = self.chosen[k]
        seen = replace(self.dataset, x_train=self.dataset.x_train[chosen], y_train=self.dataset.y_train[chosen])
        warm = replace(trajectory, axes={**trajectory.axes, **WARM}, checkpoints=())
        run = descent.Descent([descent.StartingPoint(warm, 0, weights, {})], self.layers, seen, self.store, self.device)
        run.until(self.axes["warm_epochs"])
        if not run.starts:  # its loss is not finite: the chain will not be either
            return [np.full_like(array, np.nan) for array in weights]
        return [array[0].cpu().numpy() for array in run.members.weights]

    def _note(self, k: int, weights: list[np.ndarray], transition: np.ndarray) -> None:
        test = np.asarray(self.kernel.log_softmax(weights, self.x_test))
        likelihood = test[np.arange(len(test)), self.dataset.y_test]
        row = np.array([*transition, likelihood.mean(dtype=np.float64), *np.exp(likelihood[:WATCHED])], np.float32)

        def log_softmax() -> dict[str, np.ndarray]:
            images = self.x_train if self.x_train.ndim == 4 else self.x_train[k]
            return {"train": np.asarray(self.kernel.log_softmax(weights, images)), "test": test}

        self.chains[k].note(row, weights, log_softmax)

    def _keep(self, k: int, state: Any) -> None:
        chain = self.chains[k]
        if not chain.is_due:
            return
        labels = {"train": self.dataset.y_train[self.chosen[k]], "test": self.dataset.y_test}
        kept = {f"position.{index}": np.asarray(weight)[k] for index, weight in enumerate(state.z)}
        kept |= {f"gradient.{index}": np.asarray(weight)[k] for index, weight in enumerate(state.z_grad)}
        kept |= {"potential": np.asarray(state.potential_energy)[[k]], "key": np.asarray(state.rng_key)[k]}
        part = chain.part(labels, kept, self.layers.weight_shapes)
        self.store.save(chain.trajectory.id, chain.step, replace(part, facts={**self.facts, **part.facts}))
        self.progress.finish(chain.step in chain.trajectory.checkpoints)


class Kernel(NamedTuple):
    """What is compiled for a shape and a number of leapfrog steps. Data are arguments, not constants compiled in.

    `posterior` is images, labels, prior scales [K] and likelihood scales [K]; a state is NumPyro's, of K chains.
    """

    start: Callable[..., Any]  # (weights [K, *shape] in Keras' order, keys [K, 2], step sizes [K], *posterior) → state
    transition: Callable[..., Any]  # (state, *posterior) → state
    log_softmax: Callable[..., jax.Array]  # (weights of one network, images [n, h, w, c]) → [n, classes]


@lru_cache(maxsize=16)
def kernel(layers: Layers, leapfrog_steps: int, shared: bool) -> Kernel:
    """The compiled functions of a pack's chains; `shared` where all see the same points."""
    log_softmax = network(layers)

    def potential(images: jax.Array, labels: jax.Array, prior_scale: jax.Array, likelihood_scale: jax.Array) -> Any:
        return partial(
            potential_energy, log_softmax, images, labels, prior_scale=prior_scale, likelihood_scale=likelihood_scale
        )

    start, transition = sampler(potential, leapfrog_steps)
    points = None if shared else 0
    posterior = (points, points, 0, 0)
    return Kernel(
        jax.jit(jax.vmap(start, in_axes=(0, 0, 0, *posterior))),
        jax.jit(jax.vmap(transition, in_axes=(0, *posterior))),
        jax.jit(log_softmax),
    )


def sampler(potential: Callable[..., Any], leapfrog_steps: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """NumPyro's HMC as two functions of one chain: start(position, key, step size, *data) and transition(state, *data).

    `potential(*data)` is the potential energy as a function of the position. Nothing is adapted.
    """
    init, sample = hmc(potential_fn_gen=potential, algo="HMC")

    def start(position: Any, key: jax.Array, step_size: jax.Array, *data: jax.Array) -> Any:
        return init(
            position,
            num_warmup=0,
            step_size=step_size,
            adapt_step_size=False,
            adapt_mass_matrix=False,
            num_steps=leapfrog_steps,
            trajectory_length=None,  # else the step size becomes 2π / num_steps
            model_args=data,
            rng_key=key,
        )

    def transition(state: Any, *data: jax.Array) -> Any:
        return sample(state, data)

    return start, transition


def potential_energy(
    log_softmax: Callable[..., jax.Array],
    images: jax.Array,
    labels: jax.Array,
    weights: Sequence[jax.Array],
    prior_scale: jax.Array | float,
    likelihood_scale: jax.Array | float,
) -> jax.Array:
    """U = |w|²/2σ² - s Σ log p(y|x, w), without its constant: minus the log posterior where s = 1."""
    likelihood = jnp.take_along_axis(log_softmax(weights, images), labels[:, None], 1).sum()
    return sum((weight**2).sum() for weight in weights) / (2 * prior_scale**2) - likelihood_scale * likelihood


def network(layers: Layers) -> Callable[..., jax.Array]:
    """Log softmax [n, classes] of (weights in Keras' order, images [n, h, w, c])."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    if keras.backend.backend() != "jax":
        raise InputError(f"Keras runs on {keras.backend.backend()} and HMC needs it on JAX: set KERAS_BACKEND=jax")
    model = keras_model(layers)

    def log_softmax(weights: Sequence[jax.Array], images: jax.Array) -> jax.Array:
        # By default matrix products on a GPU use TF32, too coarse for differences of energy.
        with jax.default_matmul_precision("highest"):
            logits, _ = model.stateless_call(list(weights), [], images)
        return jax.nn.log_softmax(logits)

    return log_softmax


def seen_points(facts: DatasetFacts, axes: Mapping[str, Any]) -> np.ndarray:
    """Indices of the training points of a chain: all, or the first of a permutation per data set and seed.

    Chains that differ in their integrators therefore sample the same posterior.
    """
    if axes["train_points"] is None:
        return np.arange(facts.train)
    order = generator(f"{facts.name} {facts.fingerprint} {axes['seed']}", "training points")
    return order.permutation(facts.train)[: axes["train_points"]]


def _device(device: str) -> Any:
    try:
        return jax.devices("cuda" if device == "cuda" else "cpu")[0]
    except RuntimeError:
        raise InputError(
            "compute.device is 'cuda' and jax finds no GPU here; install jax[cuda12] or set it to 'cpu'"
        ) from None


def _provenance(dataset: Dataset, device: str) -> dict[str, Any]:
    hardware = _device(device).device_kind if device == "cuda" else platform.machine()
    return {
        "data_sha256": dataset.facts.fingerprint,
        "software": f"deltaball {deltaball.__version__}, jax {jax.__version__}, numpyro {numpyro.__version__}, "
        f"numpy {np.__version__}",
        "device": f"{device} ({hardware})",
    }
