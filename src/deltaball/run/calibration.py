"""`deltaball calibrate`: the rates of a device, measured on packs that span what studies train, and fitted."""

import contextlib
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.data.datasets import Dataset, from_arrays
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Layers, parameters
from deltaball.plan import costs
from deltaball.plan.costs import UNITS, Rates, Work
from deltaball.plan.networks import Trajectory
from deltaball.plan.packing import PACK_NETWORKS, PACK_PARAMETERS
from deltaball.store.store import Store
from deltaball.study.architectures import layers
from deltaball.study.methods import METHODS
from deltaball.training import descent, sgd
from deltaball.workflow import jobs

# An epoch of a probe is about so long, by the rates that ship, but for these limits.
SECONDS = 0.3
LEAST_STEPS, MOST_POINTS = 3, 16384
TIMED = 3  # epochs, of which the median counts, after one that warms up
TRANSITIONS = 15  # of a chain
PRUNED_DENSITY = 0.25  # share of its weights that a pruned network keeps
# On a GPU every shape is probed in a pack as the paper's grids have them, and in one that fills it better.
ON_CUDA = (4, 64)


@dataclass(frozen=True)
class Probe:
    """A pack to be measured."""

    method: str
    architecture: str
    axes: Mapping[str, Any]
    shape: tuple[int, int, int]
    networks: int  # on a CPU
    points: int = 0  # of training data; 0: as many as take SECONDS

    @property
    def layers(self) -> Layers:
        return layers(self.architecture, self.axes, self.shape, 10)

    def __str__(self) -> str:
        axes, image = self.axes, "×".join(map(str, self.shape))
        if self.architecture == "fcn":
            network = f"fcn {axes['width']}×{axes['depth']}"
        else:
            dense = f"{axes['fc_width']}×{axes['fc_depth']}"
            network = f"{self.architecture} {axes['filters']} k{axes['kernel']} ×{axes['conv_depth']} {dense}"
        batch = f" by {axes['batch_size']}" if not METHODS[self.method].averages_samples else f" {self.points:,} points"
        precision = f" in {axes['precision']}" if "precision" in axes else ""
        return f"{self.method} {network} on {image}{batch}{precision}, pack of {self.networks}"


def _fcn(width: int, depth: int, batch: int, networks: int, method: str = "sgd", **other: Any) -> Probe:
    shape = other.pop("shape", (28, 28, 1))
    axes = {"width": width, "depth": depth, "activation": "relu", "batch_size": batch, "optimizer": "sgd", **other}
    return Probe(method, "fcn", axes, shape, networks)


def _cnn(filters: int, kernel: int, depth: int, batch: int, networks: int, **other: Any) -> Probe:
    vgg = other.pop("vgg", False)
    shape = other.pop("shape", (32, 32, 3) if vgg else (28, 28, 1))
    axes = {"filters": filters, "kernel": kernel, "conv_depth": depth, "fc_depth": 1, "fc_width": 128}
    axes |= {"activation": "relu", "batch_size": batch, "optimizer": "adam" if vgg else "sgd", **other}
    return Probe("sgd", "vgg" if vgg else "cnn", axes, shape, networks)


def _chains(width: int, depth: int, points: int) -> Probe:
    axes = {"width": width, "depth": depth, "activation": "relu", "step_size": 1e-4, "leapfrog_steps": 10}
    axes |= {"train_points": None, "burn_in": 0, "start": "glorot", "warm_epochs": 0, "thinning": 1}
    axes |= {"prior_scale": 1.0, "likelihood_scale": 1.0, "seed": 0}
    return Probe("hmc", "fcn", axes, (28, 28, 1), 1, points)


PROBES = (
    _fcn(64, 1, 128, 1),
    _fcn(64, 1, 32, 16),
    _fcn(64, 3, 128, 16, activation="sigmoid"),
    _fcn(128, 2, 32, 4),
    _fcn(128, 3, 128, 12, activation="tanh"),
    _fcn(256, 2, 128, 4),
    _fcn(256, 1, 32, 4, optimizer="adam"),
    _fcn(512, 1, 128, 1),
    _fcn(512, 3, 128, 1, activation="tanh"),
    _fcn(1024, 2, 128, 1, activation="sigmoid"),
    _fcn(1024, 4, 128, 1),
    _fcn(64, 4, 128, 32, shape=(8, 8, 1)),
    _fcn(256, 2, 128, 2, shape=(32, 32, 3)),
    _fcn(128, 2, 128, 12, "imp"),
    _fcn(1024, 1, 128, 1, "imp"),
    _cnn(5, 3, 1, 128, 4),
    _cnn(5, 3, 3, 32, 8),
    _cnn(5, 7, 2, 128, 3),
    _cnn(10, 5, 2, 128, 2),
    _cnn(10, 3, 2, 32, 8, shape=(8, 8, 1), optimizer="adam"),
    _cnn(20, 3, 1, 128, 1, fc_width=256),
    _cnn(20, 5, 2, 32, 2),
    _cnn(30, 7, 1, 128, 1),
    _cnn(30, 3, 3, 128, 1, fc_depth=2),
    _cnn(24, 3, 1, 32, 1, vgg=True, fc_width=512),
    _cnn(24, 7, 2, 32, 1, vgg=True),
    _cnn(48, 3, 2, 32, 1, vgg=True),
    _cnn(64, 5, 3, 32, 1, vgg=True),
    _fcn(64, 1, 128, 16, precision="bfloat16"),
    _fcn(256, 2, 128, 4, precision="bfloat16"),
    _fcn(512, 3, 128, 1, precision="bfloat16"),
    _cnn(10, 3, 1, 128, 2, precision="bfloat16"),
    _cnn(20, 5, 2, 128, 2, precision="bfloat16"),
    _cnn(48, 3, 2, 32, 1, vgg=True, precision="bfloat16"),
    _chains(64, 1, 500),
    _chains(256, 2, 2000),
)

Row = tuple[str, Work, float]  # which probe, what it did, and in how many seconds


def calibrated(device: str, store: Path, probes: Sequence[Probe]) -> Rates:
    """Measure the probes on a device ('cpu' or 'cuda') and fit its rates; prints each probe's seconds.

    On a CPU processor time of one thread, on a GPU the clock's. Checkpoints are written beside those of the studies,
    below the folder `store`, and removed. Rates of units that no probe has are those that ship.
    """
    before, rows = costs.shipped(device), []
    store.mkdir(parents=True, exist_ok=True)
    for probe in [one for given in probes for one in _on(device, given)]:
        with tempfile.TemporaryDirectory(prefix="calibrating-", dir=store) as folder:
            measure = _chain_rows if METHODS[probe.method].averages_samples else _descent_rows
            try:
                rows += measure(probe, device, Store(Path(folder)), before)
            except (InputError, torch.OutOfMemoryError) as problem:  # InputError: JAX has no GPU here
                print(f"{probe}: left out: {' '.join(str(problem).split())}", flush=True)
    fitted = fit([(work, taken) for _, work, taken in rows], before.seconds)
    seconds = {unit: float(f"{one:.4g}") for unit, one in fitted.items()}
    hardware = torch.cuda.get_device_name() if device == "cuda" else jobs.processor()
    software = [f"Python {platform.python_version()}"]
    software += [f"{name} {version(name)}" for name in ("deltaball", "torch", "numpy", "jax")]
    found = Rates(device, hardware, f"{datetime.now(UTC):%Y-%m-%d} with {', '.join(software)}", seconds)
    ratios = {}
    print(f"{'seconds of':80} {'measured':>8} {'by fit':>10} {'ratio':>8}")
    for name, work, taken in rows:
        ratios[name] = round(found.of(work) / taken, 3)
        print(f"{name:80} {taken:8.3f} {found.of(work):10.3f} {ratios[name]:8.2f}")
    return replace(found, ratios=ratios)


def fit(rows: Sequence[tuple[Work, float]], before: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each unit, from 0 on, with the least squares of relative errors over rows of work and its seconds.

    Units that no row has keep the seconds of `before`.
    """
    present = [unit for unit in UNITS if any(work.get(unit) for work, _ in rows)]
    shares = np.array([[work.get(unit, 0) / taken for unit in present] for work, taken in rows])
    # In units whose columns are alike in size, for the solver's tolerance is absolute.
    largest = shares.max(axis=0)
    found, _ = nnls(shares / largest, np.ones(len(rows)))
    return {**before, **{unit: float(one) for unit, one in zip(present, found / largest, strict=True)}}


def _on(device: str, probe: Probe) -> list[Probe]:
    """A probe as this device is to have it."""
    if device == "cpu":
        return [probe]
    most = max(1, min(PACK_NETWORKS, PACK_PARAMETERS[device] // parameters(probe.layers)))
    return [replace(probe, networks=networks) for networks in sorted({min(one, most) for one in ON_CUDA})]


def _descent_rows(probe: Probe, device: str, store: Store, before: Rates) -> list[Row]:
    """An epoch, and another that ends in a checkpoint."""
    network, batch = probe.layers, probe.axes["batch_size"]
    one_batch = _data(probe.shape, batch)
    step = before.of(costs.epochs(probe.method, probe.axes, network, one_batch.facts, [1] * probe.networks, device))
    data = _data(probe.shape, batch * max(LEAST_STEPS, min(round(SECONDS / step), MOST_POINTS // batch)))
    last, pruned = TIMED + 2, METHODS[probe.method].is_pruning
    starts = []
    for one in _trajectories(probe, last):
        weights = initial_weights(network, generator(one.id, "weights"))
        # Irregular like real ones: a CPU takes twice as long for them as for a pattern that it can foresee.
        draws = generator(one.id, "masks")
        masks = [draws.random(weight.shape) < PRUNED_DENSITY for weight in weights]
        starts.append(descent.StartingPoint(one, 0, weights, {}, masks if pruned else ()))
    parted = [starts] if pruned else sgd.together(starts, network, probe.shape, device)
    runs = [descent.Descent(some, network, data, store, device) for some in parted]

    def epoch() -> None:
        for run in runs:
            run.until(run.epoch + 1)

    seconds = [_seconds(epoch, device) for _ in range(last)]
    trained = costs.epochs(probe.method, probe.axes, network, data.facts, [1] * probe.networks, device)
    kept = costs.training(probe.method, probe.axes, network, data.facts, [[1]] * probe.networks, device)
    return [
        (f"{probe}: an epoch", trained, statistics.median(seconds[1:-1])),
        (f"{probe}: and a checkpoint", kept, seconds[-1]),
    ]


def _chain_rows(probe: Probe, device: str, store: Store, before: Rates) -> list[Row]:
    """A chain's first transitions, for which a program is compiled, and another chain's, which uses it again."""
    from deltaball.training import hmc

    data, found = _data(probe.shape, probe.points), []
    for what, transitions in (("compiled", 3), ("again", TRANSITIONS)):
        pack = [replace(one, id=f"{one.id}-{what}") for one in _trajectories(probe, transitions)]
        seconds = _seconds(lambda pack=pack: hmc.train(pack, probe.layers, data, store, device), device)
        checkpoints = [one.checkpoints for one in pack]
        work = costs.training(probe.method, probe.axes, probe.layers, data.facts, checkpoints, device)
        name = f"{probe}: {transitions} transitions, {what}"
        found.append((name, {**work, "compilation": float(what == "compiled")}, seconds))
    return found


def _trajectories(probe: Probe, checkpoint: int) -> list[Trajectory]:
    axes = {"learning_rate": 1e-4, **probe.axes}
    place = "probes", "probes", probe.method, probe.architecture
    return [
        Trajectory(str(k), *place, axes, (checkpoint,), (), str(k), parameters(probe.layers), 0.0)
        for k in range(probe.networks)
    ]


def _data(shape: tuple[int, int, int], points: int) -> Dataset:
    """Noise; as many test points as training points."""
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        arrays[f"x_{split}"] = random.random((points, *shape), dtype=np.float32)
        arrays[f"y_{split}"] = np.arange(points, dtype=np.uint8) % 10
    return from_arrays("probes", arrays, "probes")


def _seconds(work: Callable[[], object], device: str) -> float:
    """Of one call: CPU time, which other jobs do not stretch; on a GPU the clock's, until the device has finished."""
    with _silence():
        if device == "cpu":
            began = time.process_time()
            work()
            return time.process_time() - began
        torch.cuda.synchronize()
        began = time.monotonic()
        work()
        torch.cuda.synchronize()
        return time.monotonic() - began


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
