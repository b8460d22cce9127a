"""The parts of `make gpu` (gpu.py). Each stops by itself when its time is over, and notes every number at once."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gpu import DEVICE, OUT, ROOT, TINY, note

from deltaball.run.libraries import prepare_jax, prepare_torch


class Clock:
    """The time of a part."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


def tests(clock: Clock) -> None:
    """The tests that need a GPU; in the rehearsal one that needs none."""
    files = [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text()]
    chosen = ["-m", "gpu", *files] if not TINY else ["-k", "orders_drawn_ahead and pretended", *files]
    report = OUT / "junit.xml"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}", *chosen],
        cwd=ROOT,
        check=False,
    )
    from xml.etree import ElementTree

    suite = ElementTree.parse(report).getroot().find("testsuite").attrib
    report.unlink()
    for what in ("tests", "failures", "errors", "skipped"):
        note("tests", what, float(suite[what]), "tests")
    if done.returncode or float(suite["tests"]) == float(suite["skipped"]):
        sys.exit("a test failed, or none ran")


def calibrate(clock: Clock) -> None:
    """`deltaball calibrate`, as far as it comes."""
    from deltaball.cli import main as cli
    from deltaball.plan import costs
    from deltaball.run import probes

    if TINY:
        from deltaball.run import calibration

        calibration.SECONDS = 0.001
        calibration.PROBES = [probes.fcn(8, 1, 32, 2, shape=(8, 8, 1)), probes.chains(4, 1, 20)]
    store = Path("results/store").resolve()
    status = cli.main(["calibrate", "--device", DEVICE, "--time-limit", f"{max(1, int(clock.left - 10))}s"])
    if status:
        sys.exit(status)
    rates = costs.read(store, DEVICE)
    shutil.copy(costs.path(store, DEVICE), OUT / costs.path(store, DEVICE).name)
    note("calibrate", "probes", len(rates.ratios), "probes")
    note("calibrate", "within 1.5 × of their rates", costs.share_within(rates.ratios.values(), 1.5), "of them")


# Network, networks in a pack, packs at a time, precision: what the goals name first.
TRAINED = (
    ("FCN 256×2", 64, 1, "float32"),
    ("FCN 64×1", 256, 1, "float32"),
    ("CNN 20 k5 ×2", 4, 8, "bfloat16"),
    ("VGG 48 k3 ×2", 4, 8, "bfloat16"),
    ("FCN 256×2", 64, 1, "bfloat16"),
    ("CNN 20 k5 ×2", 4, 8, "float32"),
    ("FCN 64×1", 64, 1, "float32"),
    ("FCN 256×2", 4, 8, "float32"),
    ("CNN 20 k5 ×2", 16, 1, "bfloat16"),
    ("VGG 48 k3 ×2", 16, 1, "bfloat16"),
    ("VGG 48 k3 ×2", 4, 8, "float32"),
    ("FCN 64×1", 4, 8, "float32"),
    ("FCN 256×2", 256, 1, "bfloat16"),
)


def training(clock: Clock) -> None:
    """Packs as studies train them, and large ones."""
    import training as benchmark

    prepare_torch(DEVICE)
    if TINY:
        benchmark.NETWORKS = {name: (network, 130) for name, (network, _) in benchmark.NETWORKS.items()}
        benchmark.TURNS = 1
    product, memory = benchmark.ceilings(DEVICE) if not TINY else (1.0, 1.0)
    note("training", "float32 product of 2048³", product / 1e12, "TFLOP/s")
    note("training", "copy of 256 MB", memory / 1e9, "GB/s")
    for name, networks, packs, precision in TRAINED[: 4 if TINY else None]:
        if clock.left < 0:
            break
        if TINY:
            networks, packs = min(networks, 2), min(packs, 2)
        with TemporaryDirectory() as folder:
            epochs = benchmark.ours(name, DEVICE, networks, folder, precision, packs)
            median, first = benchmark.timed(epochs, DEVICE)
        what = f"{name}, {packs} × {networks} networks, {precision}"
        rate = networks * packs * benchmark.samples_of(name, DEVICE) / median
        note("training", what, rate, "sample-steps/s", name)
        note("training", f"{what}: first epochs longer by", first, "s")
        _keep_trials(Path(folder))


def _keep_trials(store: Path) -> None:
    """Which implementations the trials of a store chose."""
    path = OUT / "trials.json"
    known = json.loads(path.read_text()) if path.exists() else []
    known += [json.loads(one.read_text()) for one in sorted(store.glob("*/*.json"))]
    path.write_text(json.dumps(known, indent=1) + "\n")


def measure(clock: Clock) -> None:
    """Attacks on a pack beside a loop of foolbox over its networks."""
    import measuring as benchmark
    import torch

    from deltaball.data.datasets import load
    from deltaball.study.architectures import layers

    prepare_torch(DEVICE)
    data = load("mnist5k", ROOT / "data")
    networks, points, turns, steps = (2, 32, 1, 2) if TINY else (64, 738, 3, benchmark.STEPS)
    network = layers("fcn", {"depth": 2, "width": 64, "activation": "relu"}, data.x_train.shape[1:], 10)
    pack = benchmark.trained(network, data, DEVICE, networks, epochs=1 if TINY else benchmark.EPOCHS)
    x = torch.from_numpy(data.x_test[:points]).to(DEVICE)
    for row in benchmark.attacks(pack, x, turns, steps):
        goal = "PGD-40 beside a loop of foolbox" if row.attack.startswith("PGD") and row.who == "equal work" else ""
        if row.ratio == row.ratio:  # else foolbox is not installed
            note("measure", f"{row.attack}, {row.who}: beside foolbox", row.ratio, "×", goal)
        note("measure", f"{row.attack}, {row.who}", row.seconds / networks / points * 1e6, "µs a point of a network")


def certify(clock: Clock) -> None:
    """Certificates, per point."""
    import certifying as benchmark
    import torch

    from deltaball.data.datasets import load
    from deltaball.local.balls import Ball

    prepare_torch(DEVICE)
    data = load("mnist5k", ROOT / "data")
    for name, (architecture, axes, points) in [*benchmark.NETWORKS.items()][:: 5 if TINY else 1]:
        if clock.left < 0:
            break
        pack = benchmark.trained(architecture, axes, data, DEVICE, epochs=0 if TINY else 2)
        x = torch.from_numpy(data.x_test[: 2 if TINY else points]).to(DEVICE)
        for by, every in (("ibp", False), ("crown", False), ("crown", True)):
            what = f"{name}, {by}{', all pairs of classes' if every else ''}, δ = 0.03"
            note("certify", what, benchmark.milliseconds(pack, x, Ball("linf", 0.03), by, every), "ms a point")


def hmc(clock: Clock) -> None:
    """Packs of four chains on 60,000 images: what a transition takes, with all that is noted of it."""
    prepare_torch(DEVICE)
    prepare_jax()
    import numpy as np

    from deltaball.data.datasets import from_arrays
    from deltaball.plan.networks import Trajectory
    from deltaball.store.store import Store
    from deltaball.study.architectures import layers
    from deltaball.training import hmc as sampling

    points, leapfrog, transitions = (64, 2, 2) if TINY else (60_000, 10, 10)
    draws = np.random.default_rng(0)
    x, y = draws.random((points, 28, 28, 1), dtype=np.float32), np.arange(points, dtype=np.uint8) % 10
    data = from_arrays("noise", {"x_train": x, "y_train": y, "x_test": x[:10], "y_test": y[:10]}, "noise")
    for depth, width in ((2, 512), (1, 128), (3, 512))[: 1 if TINY else None]:
        if clock.left < 0:
            break
        network = layers(
            "fcn", {"depth": depth, "width": 4 if TINY else width, "activation": "relu"}, data.facts.shape, 10
        )
        axes = {"step_size": 1e-4, "leapfrog_steps": leapfrog, "train_points": None, "burn_in": 0, "start": "glorot"}
        axes |= {"warm_epochs": 0, "thinning": 1, "prior_scale": 1.0, "likelihood_scale": 1.0, "seed": 0}
        seconds = []
        with TemporaryDirectory() as folder:
            for number, last in enumerate((2, 2 + transitions)):  # the first compiles
                pack = [
                    Trajectory(f"{number}-{k}", "g", "noise", "hmc", "fcn", axes, (last,), (), f"{k}", 0, 0.0)
                    for k in range(4)
                ]
                began = time.monotonic()
                sampling.train(pack, network, data, Store(Path(folder)), DEVICE)
                seconds.append(time.monotonic() - began)
        flop = 4 * (2 + transitions) * leapfrog * 3 * points * network.flop
        goal = f"HMC {width}×{depth}" if (depth, width) == (2, 512) else ""
        note(
            "hmc",
            f"HMC {width}×{depth}, 4 chains, {leapfrog} leapfrog steps",
            flop / seconds[1] / 1e12,
            "TFLOP/s",
            goal,
        )
        note("hmc", f"HMC {width}×{depth}, a transition", seconds[1] / (2 + transitions), "s")
        note("hmc", f"HMC {width}×{depth}, compiled in", seconds[0], "s")


GRIDS = ("B.1", "B.2", "B.3", "B.4")


def study(clock: Clock) -> None:
    """A slice of each grid by `deltaball run`, and what the whole would take at that pace."""
    import pandas as pd

    from deltaball.cli import main as cli
    from deltaball.plan import loading
    from deltaball.store.store import Store
    from deltaball.workflow import jobs

    file = slice_of_the_study()
    whole = 0.0
    for number, grid in enumerate(GRIDS):
        # Convolutions take longer.
        share = (1, 3, 1, 3)[number] / sum((1, 3, 1, 3)[number:])
        limit = max(2, int((clock.left - 5) * share))
        began = time.monotonic()
        cli.main(["run", "--study", str(file), "--grids", grid, "--device", DEVICE, "--time-limit", f"{limit}s"])
        print(f"{grid}: {time.monotonic() - began:.1f} s", flush=True)
        planned = loading.planned(file)
        done, planned_steps = progress(planned, grid, Store(planned.study.store))
        busy = sum(
            one["wall_seconds"] for one in jobs.records(planned) if one["grid"] == grid and one.get("wall_seconds")
        )
        note("study", f"{grid}: of its sample-steps", done / planned_steps, "trained")
        if done:
            minutes = busy / 60 * planned_steps / done
            whole += minutes
            note("study", f"{grid}: trained and measured as a whole", minutes, "minutes, extrapolated")
        else:
            whole = float("inf")
    if whole < float("inf"):
        note("study", "B.1–B.4 as a whole, extrapolated", whole, "minutes", "B.1–B.4")
    networks = pd.read_parquet(planned.study.folder / "networks.parquet")
    trained = networks[networks["status"] == "trained"]
    trained.to_csv(OUT / "networks.csv", index=False)
    note("study", "test accuracy of what was trained, median", trained["test_accuracy"].median(), "")
    _keep_trials(planned.study.store)


def slice_of_the_study() -> Path:
    """A study file of the four grids, on the data that are here."""
    import yaml

    found = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())
    # What the paper measures of all networks, and not what is asked of a few drawn ones beside it.
    found["measures"] = [one for one in found["measures"] if "drawn" not in one.get("only", {})]
    del found["convergence"]
    found["grids"] = [grid for grid in found["grids"] if grid["name"] in GRIDS]
    used = {grid["dataset"] for grid in found["grids"]}
    found["measures"] = [one for one in found["measures"] if one.get("only", {}).get("dataset", "") in {"", *used}]
    data = Path("data").resolve()
    data.mkdir(exist_ok=True)
    for name in ("mnist", "fashion_mnist"):
        there = ROOT / "data" / f"{name}.npz"
        if there.exists() and not TINY:
            shutil.copy(there, data)
        else:
            _rename(found, name, _noise(data, name))
    if TINY:
        for grid in found["grids"]:
            grid |= {"learning_rate": 0.01, "activation": "relu", "epochs": [1]}
            grid |= {name: 2 for name in ("width", "filters", "fc_width") if name in grid}
            grid |= {name: 1 for name in ("depth", "conv_depth", "fc_depth") if name in grid}
            grid |= {"kernel": 3} if "kernel" in grid else {}
        found["guarantee"] = {"epsilon": 0.3, "confidence": 0.9}
    found |= {
        "study": "slice",
        "compute": {"device": DEVICE},
        "data": str(data),
        "results": str(Path("results").resolve()),
    }
    file = Path("slice.yaml").resolve()
    file.write_text(yaml.safe_dump(found, allow_unicode=True))
    return file


def _rename(study: dict[str, Any], name: str, other: str) -> None:
    for grid in study["grids"]:
        grid["dataset"] = other if grid["dataset"] == name else grid["dataset"]
    for entry in study["measures"]:
        only = entry.get("only", {})
        only |= {"dataset": other} if only.get("dataset") == name else {}


def _noise(folder: Path, name: str) -> str:
    """A data set of noise in the shape of another one; returns its name."""
    import numpy as np

    draws = np.random.default_rng(0)
    arrays = {}
    for split, points in (("train", 60_000), ("test", 10_000)) if not TINY else (("train", 200), ("test", 100)):
        arrays[f"x_{split}"] = draws.integers(0, 256, (points, 28, 28)).astype(np.uint8)
        arrays[f"y_{split}"] = (np.arange(points) % 10).astype(np.uint8)
    np.savez(folder / f"noise_for_{name}.npz", **arrays)
    return f"noise_for_{name}"


def progress(planned: Any, grid: str, store: Any) -> tuple[float, float]:
    """Sample-steps of a grid that its checkpoints in the store took, and those of all."""
    done = whole = 0.0
    for one in planned.trajectories.values():
        if one.grid == grid:
            points = planned.facts[one.dataset].train
            whole += points * one.checkpoints[-1]
            done += points * max([step for step in store.steps(one.id) if step <= one.checkpoints[-1]], default=0)
    return done, whole


DO: dict[str, Callable[[Clock], None]] = {
    "tests": tests,
    "training": training,
    "hmc": hmc,
    "measure": measure,
    "certify": certify,
    "study": study,
    "calibrate": calibrate,
}


def main(part: str, seconds: str) -> None:
    """Do a part in a folder of its own, which is not kept."""
    with TemporaryDirectory(prefix="deltaball-gpu-", ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        shutil.copy(ROOT / "config.yaml", folder)
        DO[part](Clock(float(seconds)))
        os.chdir(ROOT)


if __name__ == "__main__":
    main(*sys.argv[1:])
