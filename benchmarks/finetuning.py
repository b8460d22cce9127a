"""What a round of fine-tuning takes and does: LeNet on all of MNIST, examples of 10,000 training images.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/finetuning.py DATA [IMAGES] [LEAD] [ADVERSARY ...]

DATA is a folder with mnist.npz. The trunk is trained for EPOCHS epochs as in Caffe's example (momentum 0.9, batches of
64). Of each adversary: minutes of searching and of training on, how many images have an example within 20/255, and test
accuracy and robustness within 20/255 before and after, on POINTS test points, by an attack that is none of them: PGD of
100 steps and 5 restarts. On one thread, by CPU time.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")

import numpy as np
import torch

from deltaball.data.datasets import Dataset, load
from deltaball.estimation.points import draw_points
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.notions import ClassChange
from deltaball.networks.packs import Pack
from deltaball.plan.networks import CheckpointId, Trajectory
from deltaball.plan.plan import Plan, plan
from deltaball.run.libraries import prepare_torch
from deltaball.store.store import Store
from deltaball.study.study import Study
from deltaball.training import finetuning, sgd
from deltaball.training.examples import Search

CAP, EPOCHS, TUNING_EPOCHS, POINTS, AT_ONCE = 20 / 255, 3, 2, 1024, 256
TRUNK = {"learning_rate": 0.01, "momentum": 0.9, "batch_size": 64, "epochs": EPOCHS}


def planned(folder: Path, images: int, **tuning: Any) -> Plan:
    grid = {"name": "lenet", "dataset": "mnist", "architecture": "lenet", "method": "finetune", **TRUNK}
    grid |= {"rounds": 1, "cap": CAP, "examples": images, "tuning_epochs": TUNING_EPOCHS, **tuning}
    content = {"study": "tuning", "data": str(folder), "guarantee": {"epsilon": 0.1, "confidence": 0.95}}
    measures = [{"notion": "class_change", "delta": CAP}]
    return plan(Study.model_validate({**content, "measures": measures, "grids": [grid]}))


def robust(network: CheckpointId, one: Plan, data: Dataset, store: Store) -> float:
    """The share of test points of which an attack that no network was tuned on finds no violation."""
    trajectory = one.trajectories[network[0]]
    model = Pack.of(one.layers(trajectory), [store.weights(*network)], "cpu")
    points = draw_points(data.facts, POINTS, 0)
    held = []
    for start in range(0, POINTS, AT_ONCE):
        few = points[start : start + AT_ONCE]
        x = torch.from_numpy(data.x_test[few])
        ((_, _, found),) = Pgd(100, 5)(model, x, {Ball("linf", CAP): [ClassChange()]}, few.tolist())
        held.append(found.outcome[0])
    return torch.cat(held).mean().item()


def main(folder: Path, images: int, lead: float, adversaries: list[str]) -> None:
    prepare_torch("cpu")
    data = load("mnist", folder)
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch))
        before = None
        for adversary in adversaries:
            one = planned(folder, images, adversary=adversary, lead=lead)
            (tuned,) = (each for each in one.trajectories.values() if each.parents)
            (trunk,) = tuned.parents
            if before is None:
                before = _trained(one, trunk, data, store)
            _tuned(one, tuned, data, store, before)


def _trained(one: Plan, trunk: CheckpointId, data: Dataset, store: Store) -> float:
    began = time.process_time()
    trajectory = one.trajectories[trunk[0]]
    sgd.train([trajectory], one.layers(trajectory), data, store, "cpu")
    took, before = time.process_time() - began, robust(trunk, one, data, store)
    accuracy = store.facts(*trunk)["test_accuracy"]
    print(f"trunk: {took / 60:.1f} min; accuracy {accuracy:.4f}, robust {before:.3f}", flush=True)
    return before


def _tuned(one: Plan, tuned: Trajectory, data: Dataset, store: Store, before: float) -> None:
    layers, adversary = one.layers(tuned), tuned.axes["adversary"]
    began = time.process_time()
    found = Search(tuned.parents[0], tuned.axes, layers, data, store, "cpu").examples()
    searched = time.process_time()
    finetuning.train([tuned], layers, data, store, "cpu")
    trained = time.process_time()
    distance = np.abs(found.images / 255 - data.x_train[found.points]).max((1, 2, 3), initial=0.0)
    facts, network = store.facts(tuned.id, TUNING_EPOCHS), (tuned.id, TUNING_EPOCHS)
    print(
        f"{adversary}, lead {tuned.axes['lead']:g}: {found.sought:,} images searched in {(searched - began) / 60:.1f} "
        f"min, {len(found.points):,} examples, {np.median(distance) * 255:.0f} levels away in the median, {found.lost} "
        f"lost by rounding; trained on in {(trained - searched) / 60:.1f} min; accuracy {facts['test_accuracy']:.4f}, "
        f"robust {before:.3f} → {robust(network, one, data, store):.3f}; planned {one.seconds([tuned]) / 60:.1f} min",
        flush=True,
    )


if __name__ == "__main__":
    folder, *others = sys.argv[1:]
    images, lead, *adversaries = [*others, *["10000", "3"][len(others) :]]
    main(Path(folder), int(images), float(lead), adversaries or ["pgd", "fmn"])
