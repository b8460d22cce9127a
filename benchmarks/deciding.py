"""What each stage of the exact chain settles and costs on trained networks, and what is left open.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/deciding.py [DATASET [FOLDER [DELTA]]]

Networks are trained by deltaball for 10 epochs on DATASET (default: mnist5k; of others DATASET.npz is looked for in
FOLDER, default: data), and class change is decided at 100 test images drawn at random, in L∞ with DELTA (default:
0.03). The stages: PGD, CROWN, CROWN by optimised lines (α-CROWN, the roots of branch and bound), branch and bound. The
first two networks have a goal at 0.03: nothing unknown at 60 s per point, together under 5 minutes. The others show
where the method ends; they get less. One core; on a busy machine the wall clock says more than the work took, so
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

Kind = tuple[int, int, str]  # depth, width, activation

# Seconds per point.
NETWORKS: dict[Kind, float] = {
    (1, 64, "relu"): 60.0,
    (2, 64, "relu"): 60.0,
    (2, 128, "relu"): 5.0,
    (3, 64, "relu"): 5.0,
    (1, 64, "tanh"): 1.0,
    (2, 64, "tanh"): 1.0,
    (2, 64, "sigmoid"): 1.0,
}
GOAL = [(1, 64, "relu"), (2, 64, "relu")]
DELTA = 0.03
POINTS = 100


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "mnist5k"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "data")
    torch.set_num_threads(1)
    ball = Ball("linf", float(sys.argv[3]) if len(sys.argv) > 3 else DELTA)
    data = load(name, folder)
    chosen = np.random.default_rng(0).permutation(len(data.x_test))[:POINTS]
    x = torch.from_numpy(data.x_test[chosen])
    print(f"{name}, {POINTS} points, δ = {ball.delta} in {ball.norm}, one core; seconds of wall clock (of processor)")
    goal = []
    for kind, pack, accuracy in networks(name, folder, data, ball):
        wall, unknown = report(kind, pack, accuracy, x, ball)
        goal += [(wall, unknown)] if kind in GOAL else []
    walls, unknowns = zip(*goal, strict=True)
    print(f"goal: {sum(unknowns)} unknown, {sum(walls):.0f} s together (0 and less than 300)")


def networks(name: str, folder: Path, data: Dataset, ball: Ball) -> Iterator[tuple[Kind, Pack, float]]:
    """What it is, the network, and its test accuracy."""
    for kind in NETWORKS:
        depth, width, activation = kind
        axes = {"depth": depth, "width": width, "activation": activation, "learning_rate": 0.05, "epochs": 10}
        axes["batch_size"] = 128 if len(data.x_train) > 10_000 else 16
        grid = {"name": "fcn", "dataset": name, "architecture": "fcn", "method": "sgd", **axes}
        study = {
            "study": "deciding",
            "data": str(folder),
            "guarantee": {"epsilon": 0.05, "confidence": 0.95},
            "measures": [{"notion": "class_change", "delta": ball.delta}],
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
        yield kind, Pack.of(planned.layers(network), [trained.weights]), trained.facts["test_accuracy"]


def report(kind: Kind, pack: Pack, accuracy: float, x: torch.Tensor, ball: Ball) -> tuple[float, int]:
    """Print a network's lines; returns the seconds of the whole chain and how many points it left unknown."""
    attack = Pgd()
    ((_, _, attacked),), pgd = timed(lambda: [*attack(pack, x, {ball: [ClassChange()]}, range(len(x)))])
    left = torch.nonzero(attacked.outcome[0]).flatten()
    bounds, crown = timed(lambda: differences(pack, x[left], ball, "crown", False))
    still = left[ClassChange().certified(Reference.output(pack(x[left])), LogitBounds(bounds))[0] == 0]
    found, exact = timed(lambda: decide(pack, x[still], ball, NETWORKS[kind]))
    at_roots = found.subproblems < pack.layers.output[0]
    depth, width, activation = kind
    print(f"{depth}×{width} {activation} (accuracy {accuracy:.3f})")
    print(_line("PGD", 0, len(x) - len(left), pgd))
    print(_line("CROWN", len(left) - len(still), 0, crown))
    for stage, chosen in (("α-CROWN", at_roots), ("branch and bound", ~at_roots)):
        share = found.seconds[chosen].sum() / max(found.seconds.sum(), 1e-9)
        outcome = found.outcome[chosen]
        spent = tuple(share * one for one in exact)
        print(_line(stage, int((outcome == 1).sum()), int((outcome == 0).sum()), spent))
    unknown = int(np.isnan(found.outcome).sum())
    wall, used = (sum(parts) for parts in zip(pgd, crown, exact, strict=True))
    each = f"subproblems per point: median {np.median(found.subproblems):.0f}, most {found.subproblems.max():,}; "
    print(f"  open: {unknown} of {len(x)}; {each if len(still) else ''}in all {wall:.1f} s ({used:.1f})", flush=True)
    return wall, unknown


def _line(stage: str, robust: int, violated: int, seconds: tuple[float, float]) -> str:
    wall, used = seconds
    return f"  {stage:16} robust {robust:4}, violated {violated:4} in {wall:6.1f} s ({used:.1f})"


def timed(work: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What `work` returns, and the seconds of wall clock and processor that it took."""
    wall, used = time.perf_counter(), time.process_time()
    found = work()
    return found, (time.perf_counter() - wall, time.process_time() - used)


if __name__ == "__main__":
    main()
