"""Transitions of Hamiltonian Monte Carlo: the energy of a network's weights, and NumPyro's steps through it."""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer.hmc import hmc

from deltaball.base.errors import InputError
from deltaball.networks.keras_models import keras_model
from deltaball.networks.layers import BatchNorm, Dropout, Layers, Residual

# Layers that the potential energy of a chain has no rule for, and why.
NO_CHAIN = {
    BatchNorm: "its moving averages are no weights, and have no posterior",
    Dropout: "the potential energy would be another at every step",
    Residual: "chains sample the layers of a single path",
}


class Transitions(NamedTuple):
    """What is compiled for a shape and a number of leapfrog steps. Data are arguments, not constants compiled in.

    `posterior` is images, labels, prior scales [K] and likelihood scales [K]; a state is NumPyro's, of K chains.
    """

    start: Callable[..., Any]  # (weights [K, *shape] in Keras' order, keys [K, 2], step sizes [K], *posterior) → state
    transition: Callable[..., Any]  # (state, *posterior) → state
    log_softmax: Callable[..., jax.Array]  # (weights of one network, images [n, h, w, c]) → [n, classes]


@lru_cache(maxsize=16)
def transitions(layers: Layers, leapfrog_steps: int, shared: bool) -> Transitions:
    """The compiled functions of a pack's chains; `shared` where all see the same points."""
    log_softmax = log_softmax_of(layers)

    def potential(images: jax.Array, labels: jax.Array, prior_scale: jax.Array, likelihood_scale: jax.Array) -> Any:
        return partial(
            potential_energy, log_softmax, images, labels, prior_scale=prior_scale, likelihood_scale=likelihood_scale
        )

    start, transition = one_chain(potential, leapfrog_steps)
    points = None if shared else 0
    posterior = (points, points, 0, 0)
    return Transitions(
        jax.jit(jax.vmap(start, in_axes=(0, 0, 0, *posterior))),
        jax.jit(jax.vmap(transition, in_axes=(0, *posterior))),
        jax.jit(log_softmax),
    )


def one_chain(potential: Callable[..., Any], leapfrog_steps: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
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


def log_softmax_of(layers: Layers) -> Callable[..., jax.Array]:
    """Log softmax [n, classes] of (weights in the layers' order, images [n, h, w, c]).

    Raises InputError for layers that are not a function of weights and image alone, and where Keras' order is another.
    """
    for layer, _ in layers.within():
        if reason := NO_CHAIN.get(type(layer)):
            raise InputError(f"no chain for layer {type(layer).__name__}: {reason}")
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
