"""What whole margin curves take: the ensemble's L2 distances of 8 networks at 738 test points, on one core.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/margin_curves.py [FOLDER [STORE [STEPS RADII]]]

Eight networks of papers 000 and 003, narrower than theirs (`conv5` with 32 filters and 128 units in place of 128 and
1,024), are trained by deltaball on MNIST (mnist.npz in FOLDER, default: data), 2,000 images and 4 epochs each, and kept
in STORE (default: a folder that is deleted in the end). Then a study's own measure of `margin` by `ensemble`, L2, is
taken of all of them, at all points, and the curves are made of it: nothing is scaled up. PGD takes STEPS at each of
RADII (default: what a study has if it says nothing). Printed are the seconds of the processor and of the clock, the
mean margin, and which attack was the closest how often.

On a machine that others share seconds are larger than alone.
"""

import os
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from measuring import processor

from deltaball.data.datasets import Dataset, load
from deltaball.estimation.measuring import measure
from deltaball.estimation.points import draw_points
from deltaball.estimation.statistics import Cumulative
from deltaball.estimation.stored import StoredOutcomes
from deltaball.plan.plan import Plan, plan
from deltaball.run.libraries import prepare_torch
from deltaball.store.store import Store
from deltaball.study.judges import JUDGES
from deltaball.study.study import Study
from deltaball.training import sgd

GOAL = 120  # seconds
FURTHEST, STEPS = 3, 40

STUDY = {
    "study": "margin-curves",
    "guarantee": {"epsilon": 0.05, "confidence": 0.95},
    "measures": [{"notion": "margin", "norm": "l2", "delta": FURTHEST, "attack": "ensemble"}],
    "grids": [
        {
            "name": "conv5-small",
            "dataset": "mnist",
            "method": "sgd",
            "architecture": "conv5",
            "filters": 32,
            "fc_width": 128,
            "optimizer": "adam",
            "learning_rate": 0.001,
            "batch_size": 32,
            "train_points": 2000,
            "epochs": 4,
            "seed": [*range(8)],
        }
    ],
}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data")
    prepare_torch("cpu")
    asked = STUDY["measures"][0] | dict(zip(("steps", "radii"), map(int, sys.argv[3:5]), strict=False))
    planned = plan(Study.model_validate(STUDY | {"data": str(folder), "measures": [asked]}))
    data = load("mnist", folder)
    print(f"{processor()}, 1 thread, torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        store = Store(Path(sys.argv[2] if len(sys.argv) > 2 else temporary))
        (pack,) = planned.packed([(one.trajectory_id, one.checkpoint) for one in planned.networks])
        if not all(store.has(one.trajectory_id, one.checkpoint) for one in planned.networks):
            with redirect_stdout(sys.stderr):
                sgd.train(pack, planned.layers(pack[0]), data, store, "cpu")
        curves(planned, data, store)


def curves(planned: Plan, data: Dataset, store: Store) -> None:
    """Measure and print."""
    asked = {(one.trajectory_id, one.checkpoint): planned.asked_of(one) for one in planned.networks}
    ((margin, points),) = next(iter(asked.values())).items()
    accuracy = np.mean([store.facts(*checkpoint)["test_accuracy"] for checkpoint in asked])
    # Other points each time, or those that STORE has would not be measured.
    seed = time.time_ns() % 2**32
    images = data.x_test[draw_points(data.facts, points, seed)]
    processor_began, clock_began = time.process_time(), time.monotonic()
    measure(asked, planned.layers(planned.networks[0]), images, seed, store, "cpu")
    at = tuple(FURTHEST * step / STEPS for step in range(STEPS + 1))
    stored, found = StoredOutcomes(store, seed), []
    for checkpoint in asked:
        judged = stored.of(checkpoint, margin)
        Cumulative(at).band(judged.outcomes, planned.study.guarantee.confidence)
        found.append(judged)
    taken, waited = time.process_time() - processor_began, time.monotonic() - clock_began
    distances, found_by = (np.stack([getattr(one, name) for one in found]) for name in ("outcomes", "found_by"))
    members = [JUDGES[one].title for one in JUDGES["ensemble"].members]
    won = ", ".join(f"{title} {(found_by == k).mean():.1%}" for k, title in enumerate(members))
    print(
        f"{margin.label}, {len(asked)} networks × {points} points, accuracy {accuracy:.3f}: "
        f"{taken:.1f} s of the processor, {waited:.1f} s by the clock (goal: ≤ {GOAL})\n"
        f"mean margin {distances.mean():.4f}, closest by {won}"
    )


if __name__ == "__main__":
    main()
