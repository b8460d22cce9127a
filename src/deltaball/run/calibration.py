"""`deltaball calibrate`: the rates of a device, measured on packs that span what studies train, and fitted."""

import contextlib
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls

import deltaball
from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.data.datasets import Dataset, from_arrays
from deltaball.networks.initial import initial_weights
from deltaball.plan import costs
from deltaball.plan.costs import UNITS, Rates, Work
from deltaball.plan.networks import Trajectory
from deltaball.run.probes import PROBES, Probe, on_device
from deltaball.store.store import Store
from deltaball.study.methods import METHODS
from deltaball.training import descent, sgd
from deltaball.workflow import jobs

# An epoch of a probe is about so long, by the rates that ship, but for these limits.
SECONDS = 0.3
LEAST_STEPS, MOST_POINTS = 3, 16384
TIMED = 3  # epochs, of which the median counts, after one that warms up
TRANSITIONS = 15  # of a chain
PRUNED_DENSITY = 0.25  # share of its weights that a pruned network keeps

Row = tuple[str, Work, float]  # which probe, what it did, and in how many seconds


# Where the time is limited, every so many probes come first: they span the others.
SPREAD = 6


def calibrate(device: str, store: Path, limit: float | None = None) -> str:
    """Measure a device and keep its rates beside a store's; returns in words which, and how well they fit.

    After `limit` seconds no other probe begins.
    """
    until = None if limit is None else time.monotonic() + limit
    probes = PROBES if limit is None else [probe for start in range(SPREAD) for probe in PROBES[start::SPREAD]]
    rates = calibrated(device, store, probes, until)
    share = costs.share_within(rates.ratios.values(), 1.5)
    return f"{costs.write(rates, store)}: rates of {rates.hardware}; {share:.0%} of the probes within 1.5 ×"


def calibrated(device: str, store: Path, probes: Sequence[Probe], until: float | None = None) -> Rates:
    """Measure the probes on a device ('cpu' or 'cuda') and fit its rates; prints each probe's seconds.

    None but the first begins after `until`, by time.monotonic().

    On a CPU processor time of one thread, on a GPU the clock's. Checkpoints are written beside those of the studies,
    below the folder `store`, and removed. Rates of units that no probe has are those that ship.
    """
    before, rows = costs.shipped(device), []
    store.mkdir(parents=True, exist_ok=True)
    left = [one for given in probes for one in on_device(device, given)]
    while left and not (rows and until is not None and time.monotonic() > until):
        probe = left.pop(0)
        with tempfile.TemporaryDirectory(prefix="calibrating-", dir=store) as folder:
            measure = _chain_rows if METHODS[probe.method].averages_samples else _descent_rows
            try:
                rows += measure(probe, device, Store(Path(folder)), before)
            except (InputError, RuntimeError) as problem:  # JAX has no GPU here; a library or the memory fails
                print(f"{probe}: left out: {' '.join(str(problem).split())}", flush=True)
    if left:
        print(f"{len(left)} probes are left out: the time is over", flush=True)
    fitted = fit([(work, taken) for _, work, taken in rows], before.seconds)
    seconds = {unit: float(f"{one:.4g}") for unit, one in fitted.items()}
    hardware = torch.cuda.get_device_name() if device == "cuda" else jobs.processor()
    software = [f"Python {platform.python_version()}", f"deltaball {deltaball.__version__}"]
    software += [f"{name} {version(name)}" for name in ("torch", "numpy", "jax")]
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
    parted = [starts] if pruned else sgd.together(starts, network, device)
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
        Trajectory(str(k), *place, axes, (checkpoint,), (), str(k), probe.layers.parameters, 0.0)
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
