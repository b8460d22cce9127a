"""Do our packs train to the accuracy of Keras `fit`? The same mean and the same spread, tested, in one run.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/accuracy.py [FOLDER]

MNIST is mnist.npz in FOLDER (default: data), or downloaded. Of each configuration, taken from the paper's grids B.1 and
B.2, either side trains SEEDS networks on all of it by plain SGD, and their accuracies on all test images are compared.
Initial weights follow the same law; the seeds themselves are each side's own, as a user of either would have them. The
configurations are such as learn within their epochs: where networks are still leaving a plateau, seeds lie points
apart, and a mean over them says nothing.

Sides are the same when an equivalence test at 5 % says so: when the 90 % interval lies inside a margin set here.

- mean: the difference, in points, of the means over all networks, its error from the seeds within configurations.
- spread of seeds: the standard deviation within a configuration, as a ratio; its logarithm averaged over configurations
  and its error from how they differ in it. Beside it the p-value of Brown and Forsythe's test, deviations from a
  configuration's median in units of what they are there on both sides together.
- spread of configurations: the standard deviation of their means, as a ratio, its error from the seeds.

As a mean may hide differences that cancel, the configurations with the largest one and with the smallest p-value of
Welch's tests (Holm) are named too.
"""

import json
import os
import platform
import subprocess
import sys
from contextlib import redirect_stdout
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

from deltaball.data.datasets import Dataset, load
from deltaball.networks.keras_models import keras_model
from deltaball.study.architectures import layers

SEEDS, BATCH = 10, 128
FCN = {"architecture": "fcn", "epochs": 5}
CNN = {"architecture": "cnn", "epochs": 3, "activation": "relu", "fc_width": 128}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "FCN-64x1-relu-0.05": {**FCN, "width": 64, "depth": 1, "activation": "relu", "learning_rate": 0.05},
    "FCN-128x2-tanh-0.05": {**FCN, "width": 128, "depth": 2, "activation": "tanh", "learning_rate": 0.05},
    "FCN-256x1-sigmoid-0.05": {**FCN, "width": 256, "depth": 1, "activation": "sigmoid", "learning_rate": 0.05},
    "FCN-64x3-relu-0.01": {**FCN, "width": 64, "depth": 3, "activation": "relu", "learning_rate": 0.01},
    "FCN-128x1-sigmoid-0.01": {**FCN, "width": 128, "depth": 1, "activation": "sigmoid", "learning_rate": 0.01},
    "FCN-256x2-tanh-0.005": {**FCN, "width": 256, "depth": 2, "activation": "tanh", "learning_rate": 0.005},
    "FCN-128x3-relu-0.005": {**FCN, "width": 128, "depth": 3, "activation": "relu", "learning_rate": 0.005},
    "FCN-512x1-tanh-0.001": {**FCN, "width": 512, "depth": 1, "activation": "tanh", "learning_rate": 0.001},
    "CNN-10-k3-x1-0.05": {**CNN, "fc_depth": 1, "filters": 10, "kernel": 3, "conv_depth": 1, "learning_rate": 0.05},
    "CNN-5-k5-x2-0.01": {**CNN, "fc_depth": 2, "filters": 5, "kernel": 5, "conv_depth": 2, "learning_rate": 0.01},
}
# What of ours is compared, and the axes in which it differs from what a study trains by default.
OURS: dict[str, dict[str, Any]] = {"deltaball": {}, "in bfloat16": {"precision": "bfloat16"}}
# On one core the backend that is faster there.
BACKENDS = {"fcn": "jax", "cnn": "torch"}
POINTS, TIMES = 0.3, 1.5
CONFIDENCE = 0.9


def keras_fit(axes: dict[str, Any], seed: int, data: Dataset) -> float:
    """The accuracy of a network trained as users of `fit` write it."""
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model = keras_model(layers(axes["architecture"], axes, data.facts.shape, data.facts.classes))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(axes["learning_rate"]), loss, metrics=["accuracy"])
    model.fit(data.x_train, data.y_train, batch_size=BATCH, epochs=axes["epochs"], verbose=0)
    return model.evaluate(data.x_test, data.y_test, verbose=0, return_dict=True)["accuracy"]


def keras_accuracies(folder: Path) -> np.ndarray:
    """[configurations, SEEDS], each architecture in a process of its own, because Keras has one backend per process."""
    found: dict[str, list[float]] = {}
    for architecture, backend in BACKENDS.items():
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, __file__, "--keras", architecture, str(folder)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found |= json.loads(done.stdout.splitlines()[-1])
    return np.array([found[name] for name in CONFIGURATIONS])


def keras_alone(architecture: str, folder: Path) -> dict[str, list[float]]:
    """The accuracies of an architecture's configurations by name."""
    data, found = load("mnist", folder), {}
    for name, axes in CONFIGURATIONS.items():
        if axes["architecture"] == architecture:
            found[name] = [keras_fit(axes, seed, data) for seed in range(SEEDS)]
            print(f"Keras fit: {name}", file=sys.stderr, flush=True)
    return found


def our_accuracies(changed: dict[str, Any], folder: Path, device: str) -> np.ndarray:
    """[configurations, SEEDS] of a study that plans these networks, from its store."""
    from deltaball.plan.plan import plan
    from deltaball.store.store import Store
    from deltaball.study.study import Study
    from deltaball.training import sgd

    same = {"dataset": "mnist", "method": "sgd", "batch_size": BATCH, "seed": [*range(SEEDS)], **changed}
    study = {
        "study": "accuracy",
        "data": str(folder),
        "compute": {"device": device},
        "guarantee": {"epsilon": 0.05, "confidence": 0.95},
        "measures": [{"notion": "class_change", "delta": 0.1}],
        "grids": [{"name": name, **axes, **same} for name, axes in CONFIGURATIONS.items()],
    }
    planned, data = plan(Study.model_validate(study)), load("mnist", folder)
    found: dict[str, list[float]] = {name: [] for name in CONFIGURATIONS}
    with TemporaryDirectory() as results, redirect_stdout(sys.stderr):
        store = Store(Path(results))
        for shard in planned.shards.values():
            for pack in shard.packs:
                sgd.train(pack, planned.layers(pack[0]), data, store, device)
        for network in planned.networks:
            facts = store.facts(network.trajectory_id, network.checkpoint)
            found[network.grid].append(facts["test_accuracy"])
    return np.array([found[name] for name in CONFIGURATIONS])


def from_seeds(*sides: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Error and degrees of freedom of a sum of the sides' configuration means with these weights.

    Each configuration of each side has a variance of its own (Satterthwaite).
    """
    parts = np.concatenate([weights**2 * values.var(1, ddof=1) / SEEDS for weights, values in sides])
    return np.sqrt(parts.sum()), parts.sum() ** 2 / (parts**2 / (SEEDS - 1)).sum()


def equivalent(what: str, estimate: float, error: float, freedom: float, margin: float, ratio: bool) -> bool:
    """Print the line of an equivalence test (two one-sided Student tests); returns its verdict."""
    low, high = stats.t.interval(CONFIDENCE, freedom, estimate, error)
    p = max(stats.t.sf((estimate + margin) / error, freedom), stats.t.cdf((estimate - margin) / error, freedom))
    within = bool(-margin < low and high < margin)
    if ratio:
        numbers = f"{np.exp(estimate):.3f} ×  [{np.exp(low):.3f}, {np.exp(high):.3f}] in 1/{TIMES} to {TIMES}"
    else:
        numbers = f"{estimate:+.3f} points  [{low:+.3f}, {high:+.3f}] in ±{margin}"
    print(f"  {what:25} {numbers}, p = {p:.2g}: {'the same' if within else 'not shown to be the same'}")
    return within


def compared(one: np.ndarray, other: np.ndarray) -> bool:
    """Print how `other` differs from `one`, accuracies in points; returns whether mean and spread are the same."""
    means = [side.mean(1) for side in (one, other)]
    equal = np.full(len(one), 1 / len(one))
    apart = means[1] - means[0]
    same = equivalent("mean", apart.mean(), *from_seeds((equal, one), (equal, other)), POINTS, False)

    ratios = np.log(other.std(1, ddof=1) / one.std(1, ddof=1))
    error = ratios.std(ddof=1) / np.sqrt(len(ratios))
    same &= equivalent("spread of seeds", ratios.mean(), error, len(ratios) - 1, np.log(TIMES), True)

    # What a change of each mean does to the logarithm of their standard deviation.
    slopes = [(mean - mean.mean()) / ((mean - mean.mean()) ** 2).sum() for mean in means]
    ratio = np.log(means[1].std(ddof=1) / means[0].std(ddof=1))
    error, freedom = from_seeds((slopes[0], one), (slopes[1], other))
    same &= equivalent("spread of configurations", ratio, error, freedom, np.log(TIMES), True)

    deviations = [side - np.median(side, 1, keepdims=True) for side in (one, other)]
    usual = np.abs(np.hstack(deviations)).mean(1, keepdims=True)
    p = stats.levene(*((side / usual).ravel() for side in deviations), center="median").pvalue
    print(f"  Brown-Forsythe, seeds: p = {p:.2g}")
    holm = multipletests(stats.ttest_ind(one, other, axis=1, equal_var=False).pvalue, method="holm")[1]
    for which, k in (("largest difference", np.abs(apart).argmax()), ("smallest p", holm.argmin())):
        print(f"  {which}: {apart[k]:+.3f} points, p = {holm[k]:.2g}, {[*CONFIGURATIONS][k]}")
    return same


def main(folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    hardware = torch.cuda.get_device_name() if device == "cuda" else f"one core, {platform.machine()}"
    software = ", ".join(f"{name} {version(name)}" for name in ("torch", "keras", "jax"))
    print(f"{hardware}; {software}; {SEEDS} networks of each configuration a side")
    sides = {name: 100 * our_accuracies(changed, folder, device) for name, changed in OURS.items()}
    sides = {"Keras fit": 100 * keras_accuracies(folder), **sides}
    print(f"{'test accuracy, %':23} " + " ".join(f"{side:>18}" for side in sides))
    for k, name in enumerate(CONFIGURATIONS):
        cells = (f"{values[k].mean():9.3f} ± {values[k].std(ddof=1):6.3f}" for values in sides.values())
        print(f"{name:23} " + " ".join(cells))
    cells = (f"{values.mean():9.3f} ± {values.std(ddof=1):6.3f}" for values in sides.values())
    print(f"{f'all {len(CONFIGURATIONS) * SEEDS}':23} " + " ".join(cells))
    verdicts = []
    for one, other in combinations(sides, 2):
        print(f"{other} beside {one}:")
        verdicts.append(compared(sides[one], sides[other]))
    sys.exit(not all(verdicts))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--keras"]:
        import torch

        torch.set_num_threads(1)
        print(json.dumps(keras_alone(sys.argv[2], Path(sys.argv[3]))))
    else:
        main(Path((sys.argv[1:] or ["data"])[0]))
