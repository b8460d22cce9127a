"""Chains of one pack by deltaball and by NumPyro's own MCMC, in one run: transitions per second of CPU time.

python benchmarks/hmc.py [TRANSITIONS]        on one core of a CPU, 1×32 and 1×64 on 500 digits of mnist5k
python benchmarks/hmc.py whole                a leapfrog step on all of MNIST (data/mnist.npz), of narrow networks

NumPyro's MCMC runs the same potential from the same starts, with neither adaptation nor anything but the samples to
collect; deltaball's time includes what it notes of every transition and writes to the store. Compilation is taken out
of all three: each is run once before. A step on all of MNIST stands beside the two products of the first layer alone,
images by weights and images by gradients, which no code on this core can do without.
"""

import os
import sys

os.environ |= {"KERAS_BACKEND": "jax", "OMP_NUM_THREADS": "1"}
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import HMC, MCMC

from deltaball.base.draws import generator
from deltaball.data.datasets import Dataset, load
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Layers
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan, plan
from deltaball.store.store import Store
from deltaball.study.study import Study
from deltaball.training import hmc
from deltaball.training.transitions import log_softmax_of, potential_energy, transitions

CHAINS, LEAPFROG, POINTS = 4, 20, 500


def planned(width: int, samples: int, dataset: str = "mnist5k", points: int | None = POINTS) -> Plan:
    axes = {"depth": 1, "width": width, "activation": "relu", "step_size": 0.008, "leapfrog_steps": LEAPFROG}
    axes |= {"posterior_samples": samples, "prior_scale": 0.1, "train_points": points, "seed": [*range(CHAINS)]}
    grid = {"name": "chains", "dataset": dataset, "method": "hmc", "architecture": "fcn", **axes}
    measures = [{"notion": "class_change", "delta": 0.1}]
    guarantee = {"epsilon": 0.05, "confidence": 0.95}
    return plan(
        Study.model_validate({"study": "benchmark", "guarantee": guarantee, "measures": measures, "grids": [grid]})
    )


def ours(pack: list[Trajectory], layers: Layers, data: Dataset) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        hmc.train(pack, layers, data, Store(Path(folder)), "cpu")
        return time.process_time() - started


def theirs(pack: list[Trajectory], layers: Layers, data: Dataset, method: str) -> float:
    chosen = hmc.seen_points(data.facts, pack[0].axes)
    images, labels = jnp.asarray(data.x_train[chosen]), jnp.asarray(data.y_train[chosen].astype(np.int32))
    log_softmax = log_softmax_of(layers)
    potential = partial(potential_energy, log_softmax, images, labels, prior_scale=0.1, likelihood_scale=1.0)
    starts = [initial_weights(layers, generator(one.id, "weights")) for one in pack]
    stacked = [jnp.asarray(np.stack(arrays)) for arrays in zip(*starts, strict=True)]
    axes = pack[0].axes
    kernel = HMC(
        potential_fn=potential,
        step_size=axes["step_size"],
        num_steps=axes["leapfrog_steps"],
        trajectory_length=None,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )
    chains = MCMC(
        kernel,
        num_warmup=0,
        num_samples=pack[0].checkpoints[-1],
        num_chains=len(pack),
        chain_method=method,
        progress_bar=False,
    )
    seconds = []
    for _ in range(2):
        started = time.process_time()
        chains.run(jax.random.PRNGKey(0), init_params=stacked)
        jax.block_until_ready(chains.get_samples())
        seconds.append(time.process_time() - started)
    return seconds[-1]


def least(run: Callable[[], Any], times: int = 5) -> float:
    """Seconds of CPU time of the fastest of some runs; one more before them compiles."""
    seconds = []
    for _ in range(times + 1):
        started = time.process_time()
        jax.block_until_ready(run())
        seconds.append(time.process_time() - started)
    return min(seconds[1:])


def whole() -> None:
    data = load("mnist", Path("data"))
    images, labels = jnp.asarray(data.x_train), jnp.asarray(data.y_train.astype(np.int32))
    rows = images.reshape(len(images), -1)
    forwards, backwards = jax.jit(jnp.matmul), jax.jit(lambda rows, slopes: rows.T @ slopes)
    for width in (8, 16, 32):
        found = planned(width, 1, "mnist", None)
        trajectory = next(iter(found.trajectories.values()))
        layers = found.layers(trajectory)
        chain = transitions(layers, LEAPFROG, True)
        weights = tuple(
            jnp.asarray(array)[None] for array in initial_weights(layers, generator(trajectory.id, "weights"))
        )
        posterior = (images, labels, np.float32([0.1]), np.float32([1]))
        state = chain.start(weights, np.zeros((1, 2), np.uint32), np.float32([1e-4]), *posterior)
        step = least(partial(chain.transition, state, *posterior)) / LEAPFROG
        kernel, slopes = (jnp.ones((count, width)) for count in (rows.shape[1], len(rows)))
        products = least(partial(forwards, rows, kernel)) + least(partial(backwards, rows, slopes))
        rate = 4 * rows.size * width / 1e9
        print(
            f"1×{width} on {len(rows):,} images: a step {step:.3f} s, {rate / step:.0f} GFLOP/s; "
            f"its two largest products alone {products:.3f} s, {rate / products:.0f} GFLOP/s",
            flush=True,
        )


def main() -> None:
    if sys.argv[1:] == ["whole"]:
        return whole()
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    data = load("mnist5k", Path("data"))
    for width in (32, 64):
        found = planned(width, count)
        pack = [*found.trajectories.values()]
        layers = found.layers(pack[0])
        ours([replace(pack[0], checkpoints=(2,))], layers, data)
        times = {"deltaball": ours(pack, layers, data)}
        times |= {f"NumPyro, {method}": theirs(pack, layers, data, method) for method in ("sequential", "vectorized")}
        flop = sum(one.flop for one in pack)
        print(f"1×{width}, {CHAINS} chains of {count} transitions, {LEAPFROG} leapfrog steps on {POINTS} digits")
        for name, seconds in times.items():
            rate = CHAINS * count / seconds
            print(f"  {name:22} {rate:8.1f} transitions/s  {flop / seconds / 1e9:6.1f} GFLOP/s", flush=True)


if __name__ == "__main__":
    main()
