"""What a round of fine-tuning takes and does: LeNet on all of MNIST, examples of 10,000 training images.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/finetuning.py DATA [IMAGES] [LEAD] [ADVERSARY ...]

DATA is a folder with mnist.npz. The trunk is trained for EPOCHS epochs as in Caffe's example (momentum 0.9, batches of
64). Of each adversary: minutes of searching and of training on, and how many images have an example within 20/255 that
leads by LEAD (default: 3). Then, before and after: test accuracy; the share of POINTS test points that PGD does not
violate within 20/255; and by FMN and by the region's linear program the frequency φ(20/255) and the mean distance ρ̂,
cut there. On one thread, by CPU time.
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
from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.linear_region import LinearRegion
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.judge import Judge
from deltaball.local.notions import ClassChange, Margin, Notion
from deltaball.networks.packs import Pack
from deltaball.plan.networks import CheckpointId, Trajectory
from deltaball.plan.plan import Plan, plan
from deltaball.run.libraries import prepare_torch
from deltaball.store.store import Store
from deltaball.study.study import Study
from deltaball.training import finetuning, sgd
from deltaball.training.examples import Search

CAP, EPOCHS, TUNING_EPOCHS, POINTS, AT_ONCE = 20 / 255, 3, 2, 512, 256
TRUNK = {"learning_rate": 0.01, "momentum": 0.9, "batch_size": 64, "epochs": EPOCHS}


def planned(folder: Path, images: int, **tuning: Any) -> Plan:
    grid = {"name": "lenet", "dataset": "mnist", "architecture": "lenet", "method": "finetune", **TRUNK}
    grid |= {"rounds": 1, "cap": CAP, "examples": images, "tuning_epochs": TUNING_EPOCHS, **tuning}
    content = {"study": "tuning", "data": str(folder), "guarantee": {"epsilon": 0.1, "confidence": 0.95}}
    measures = [{"notion": "class_change", "delta": CAP}]
    return plan(Study.model_validate({**content, "measures": measures, "grids": [grid]}))


def seen(network: CheckpointId, one: Plan, data: Dataset, store: Store) -> str:
    """What is known of a network."""
    trajectory = one.trajectories[network[0]]
    model = Pack.of(one.layers(trajectory), [store.weights(*network)], "cpu")
    found = f"accuracy {store.facts(*network)['test_accuracy']:.4f}, "
    found += f"robust to PGD {judged(Pgd(), ClassChange(), model, data).mean():.3f}"
    for name, attack in (("FMN", Fmn()), ("the linear program", LinearRegion())):
        distance = judged(attack, Margin(CAP), model, data)
        hits = (distance < CAP * (1 - 1e-6)).float().mean()
        found += f"; by {name} φ {hits:.3f}, mean ρ̂ {255 * distance.mean():.2f}/255"
    return found


def judged(judge: Judge, notion: Notion, model: Pack, data: Dataset) -> torch.Tensor:
    """Outcomes [POINTS] at test points."""
    points, outcomes = draw_points(data.facts, POINTS, 0), []
    for start in range(0, POINTS, AT_ONCE):
        few = points[start : start + AT_ONCE]
        x = torch.from_numpy(data.x_test[few])
        ((_, _, found),) = judge(model, x, {Ball("linf", CAP): [notion]}, few.tolist())
        outcomes.append(found.outcome[0])
    return torch.cat(outcomes)


def main(folder: Path, images: int, lead: float, adversaries: list[str]) -> None:
    prepare_torch("cpu")
    data = load("mnist", folder)
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch))
        for adversary in adversaries:
            one = planned(folder, images, adversary=adversary, lead=lead)
            (tuned,) = (each for each in one.trajectories.values() if each.parents)
            (trunk,) = tuned.parents
            if not store.has(*trunk):
                _trained(one, trunk, data, store)
            _tuned(one, tuned, data, store)


def _trained(one: Plan, trunk: CheckpointId, data: Dataset, store: Store) -> None:
    began = time.process_time()
    trajectory = one.trajectories[trunk[0]]
    sgd.train([trajectory], one.layers(trajectory), data, store, "cpu")
    took = time.process_time() - began
    print(f"trunk: {took / 60:.1f} min; {seen(trunk, one, data, store)}", flush=True)


def _tuned(one: Plan, tuned: Trajectory, data: Dataset, store: Store) -> None:
    layers, adversary = one.layers(tuned), tuned.axes["adversary"]
    began = time.process_time()
    found = Search(tuned.parents[0], tuned.axes, layers, data, store, "cpu").examples()
    searched = time.process_time()
    finetuning.train([tuned], layers, data, store, "cpu")
    trained = time.process_time()
    distance = 255 * np.abs(found.images / 255 - data.x_train[found.points]).max((1, 2, 3), initial=0.0)
    away = f", {np.median(distance):.0f} levels away in the median" if len(distance) else ""
    print(
        f"{adversary}, lead {tuned.axes['lead']:g}: {found.sought:,} images searched in {(searched - began) / 60:.1f} "
        f"min, {len(found.points):,} examples{away}, {found.lost} lost by rounding; trained on in "
        f"{(trained - searched) / 60:.1f} min; {seen((tuned.id, TUNING_EPOCHS), one, data, store)}; planned "
        f"{one.seconds([tuned]) / 60:.1f} min",
        flush=True,
    )


if __name__ == "__main__":
    folder, *others = sys.argv[1:]
    images, lead, *adversaries = [*others, *["10000", "3"][len(others) :]]
    main(Path(folder), int(images), float(lead), adversaries or ["pgd", "fmn"])
