"""How long the exact chain takes on trained networks, and what it leaves open: PGD, then CROWN, then branch and bound.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/deciding.py [DATASET [FOLDER]]

ReLU networks are trained by deltaball for 10 epochs on DATASET (default: mnist5k; of others DATASET.npz is looked for
in FOLDER, default: data), and class change is decided at 100 test images drawn at random, δ = 0.03 in L∞.
The first two networks have a goal: nothing unknown at 60 s per point, together under 5 minutes. The others show where
the method ends; they get 5 s per point. One core; on a busy machine the wall clock says more than the work took, so
processor time is printed too.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")

import numpy as np
import torch

from deltaball.data.datasets import Dataset, load
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.certificates.differences import differences
from deltaball.local.exact import decide
from deltaball.local.notions import ClassChange
from deltaball.local.references import Reference
from deltaball.networks.packs import Pack
from deltaball.plan.plan import plan
from deltaball.store.store import Store
from deltaball.study.study import Study
from deltaball.training import sgd

NETWORKS = {(1, 64): 60.0, (2, 64): 60.0, (2, 128): 5.0, (3, 64): 5.0}  # depth, width: seconds per point
GOAL = [(1, 64), (2, 64)]
BALL = Ball("linf", 0.03)
POINTS = 100


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "mnist5k"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "data")
    torch.set_num_threads(1)
    data = load(name, folder)
    chosen = np.random.default_rng(0).permutation(len(data.x_test))[:POINTS]
    x = torch.from_numpy(data.x_test[chosen])
    print(f"{name}, {POINTS} points, δ = {BALL.delta} in {BALL.norm}, one core; seconds of wall clock (of processor)")
    goal = []
    for size, pack, accuracy in networks(name, folder, data):
        wall, unknown = report(size, pack, accuracy, x)
        goal += [(wall, unknown)] if size in GOAL else []
    walls, unknowns = zip(*goal, strict=True)
    print(f"goal: {sum(unknowns)} unknown, {sum(walls):.0f} s together (0 and less than 300)")


def networks(name: str, folder: Path, data: Dataset) -> Iterator[tuple[tuple[int, int], Pack, float]]:
    """Depth and width, the network, and its test accuracy."""
    for depth, width in NETWORKS:
        axes = {"depth": depth, "width": width, "activation": "relu", "learning_rate": 0.05, "epochs": 10}
        axes["batch_size"] = 128 if len(data.x_train) > 10_000 else 16
        grid = {"name": "fcn", "dataset": name, "architecture": "fcn", "method": "sgd", **axes}
        study = {
            "study": "deciding",
            "data": str(folder),
            "guarantee": {"epsilon": 0.05, "confidence": 0.95},
            "measures": [{"notion": "class_change", "delta": BALL.delta}],
            "grids": [grid],
        }
        planned = plan(Study.model_validate(study))
        (network,) = planned.networks
        (pack,) = planned.packed([(network.trajectory_id, network.checkpoint)])
        with tempfile.TemporaryDirectory() as results:
            store = Store(Path(results))
            with redirect_stdout(sys.stderr):
                sgd.train(pack, planned.layers(network), data, store, "cpu")
            trained = store.load(network.trajectory_id, network.checkpoint)
        yield (depth, width), Pack.of(planned.layers(network), [trained.weights]), trained.facts["test_accuracy"]


def report(size: tuple[int, int], pack: Pack, accuracy: float, x: torch.Tensor) -> tuple[float, int]:
    """Print a network's line; returns the seconds of the whole chain and how many points it left unknown."""
    attack = Pgd()
    ((_, _, attacked),), pgd = timed(lambda: [*attack(pack, x, {BALL: [ClassChange()]}, range(len(x)))])
    left = torch.nonzero(attacked.outcome[0]).flatten()
    bounds, crown = timed(lambda: differences(pack, x[left], BALL, "crown", False))
    left = left[ClassChange().certified(Reference.output(pack(x[left])), LogitBounds(bounds))[0] == 0]
    found, exact = timed(lambda: decide(pack, x[left], BALL, NETWORKS[size]))
    unknown = int(np.isnan(found.outcome).sum())
    wall, used = (sum(parts) for parts in zip(pgd, crown, exact, strict=True))
    violated = int((attacked.outcome == 0).sum())
    print(
        f"{size[0]}×{size[1]} (accuracy {accuracy:.3f}): PGD violates {violated} in {pgd[0]:.1f} ({pgd[1]:.1f}), "
        f"CROWN proves {len(x) - violated - len(left)} in {crown[0]:.1f} ({crown[1]:.1f}), open {len(left)}: "
        f"robust {(found.outcome == 1).sum()}, violated {(found.outcome == 0).sum()}, unknown {unknown} "
        f"in {exact[0]:.1f} ({exact[1]:.1f}); per point median {np.median(found.seconds):.2f}, "
        f"largest {found.seconds.max():.2f}, subproblems {np.median(found.subproblems):.0f} "
        f"to {found.subproblems.max():,}; in all {wall:.1f} ({used:.1f})",
        flush=True,
    )
    return wall, unknown


def timed(work: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What `work` returns, and the seconds of wall clock and processor that it took."""
    wall, used = time.perf_counter(), time.process_time()
    found = work()
    return found, (time.perf_counter() - wall, time.process_time() - used)


if __name__ == "__main__":
    main()
