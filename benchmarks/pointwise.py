"""What ρ̂ of one point takes, beside the whole program, L-BFGS and FMN, and how far each of them is.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/pointwise.py [FOLDER [STORE [POINTS]]]

An FCN 2×256 and a LeNet are trained by deltaball on all of MNIST (mnist.npz in FOLDER, default: data) and kept in STORE
(default: a folder that is deleted in the end). POINTS (default: 100) test images are drawn at random. Of each point the
closest image of the runner-up is sought: within 20/255 by the region's linear program with rows as they are needed, and
of the FCN at any distance too; by the program of all rows, on the first WHOLE of the points that the bound of the
classes' rows leaves open; by L-BFGS, on the first SLOW; by FMN, all points together; and by foolbox's FMN where that is
installed. Paper 002 states 1.5 s for LeNet, and more than 120 s without lazy rows.

Seconds are of one core's processor. On a machine that others share they are larger than alone.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from deltaball.data.datasets import Dataset, load
from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.lbfgs import Lbfgs
from deltaball.local.attacks.linear_region import targets
from deltaball.local.balls import Ball
from deltaball.local.nearest import Nearest, nearest
from deltaball.local.notions import Margin
from deltaball.local.regions import Region, piecewise
from deltaball.networks.packs import Pack
from deltaball.plan.plan import plan
from deltaball.store.store import Store
from deltaball.study.study import Study
from deltaball.training import sgd

GRIDS = {
    "FCN 2×256": {"architecture": "fcn", "depth": 2, "width": 256, "activation": "relu", "epochs": 10},
    "LeNet": {"architecture": "lenet", "epochs": 3},
}
CAP = 20 / 255
GOALS = {("FCN 2×256", 1.0): 0.02, ("LeNet", CAP): 0.1}
WHOLE = {"FCN 2×256": 10, "LeNet": 3}
SLOW = {"FCN 2×256": 20, "LeNet": 10}
EQUAL = 1e-4  # of two optima, relative


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data")
    points = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    torch.set_num_threads(1)
    data = load("mnist", folder)
    chosen = np.random.default_rng(0).permutation(len(data.x_test))[:points]
    x = torch.from_numpy(data.x_test[chosen])
    print(
        f"{processor()}, torch {torch.__version__}; MNIST, {points} points; seconds of processor per point", flush=True
    )
    with tempfile.TemporaryDirectory() as temporary:
        for name, grid in GRIDS.items():
            pack, accuracy = trained(grid, data, folder, Path(sys.argv[2] if len(sys.argv) > 2 else temporary))
            print(f"\n{name} (accuracy {accuracy:.3f})")
            programs(name, pack, x)
            searches(name, pack, x)


def trained(grid: dict, data: Dataset, folder: Path, results: Path) -> tuple[Pack, float]:
    """A network and its test accuracy."""
    axes = {"dataset": "mnist", "method": "sgd", "learning_rate": 0.05, "batch_size": 128, **grid}
    study = {
        "study": "pointwise",
        "data": str(folder),
        "guarantee": {"epsilon": 0.05, "confidence": 0.95},
        "measures": [{"notion": "class_change", "delta": 0.03}],
        "grids": [{"name": "one", **axes}],
    }
    planned, store = plan(Study.model_validate(study)), Store(results)
    (network,) = planned.networks
    if not store.has(network.trajectory_id, network.checkpoint):
        (pack,) = planned.packed([(network.trajectory_id, network.checkpoint)])
        with redirect_stdout(sys.stderr):
            sgd.train(pack, planned.layers(network), data, store, "cpu")
    kept = store.load(network.trajectory_id, network.checkpoint)
    return Pack.of(planned.layers(network), [kept.weights]), kept.facts["test_accuracy"]


@torch.no_grad()
def programs(name: str, pack: Pack, x: torch.Tensor) -> None:
    """Lines of the linear program, lazy and whole."""
    network = piecewise(pack)
    solved(network, x[0], CAP)  # what a first call takes more
    for most in (CAP, 1.0) if name.startswith("FCN") else (CAP,):
        lazy, seconds = zip(*(solved(network, point, most) for point in x), strict=True)
        distances = np.array([one.distance for one in lazy])
        goal = GOALS.get((name, most))
        print(
            f"  linear program {within(most)}: {spread(seconds)}; an image for {np.isfinite(distances).mean():.0%}, "
            f"none in the region for {np.isinf(distances).mean():.0%}, no answer for {np.isnan(distances).mean():.0%}; "
            f"rows at most {max(one.rows for one in lazy):,}" + (f"; goal: median ≤ {goal} s" if goal else ""),
            flush=True,
        )
        hard = [place for place, one in enumerate(lazy) if one.programs][: WHOLE[name]]
        if hard:
            whole, longer = zip(*(solved(network, x[place], most, every_row=True) for place in hard), strict=True)
            own = [seconds[place] for place in hard]
            ends = [(lazy[place].distance, one.distance) for place, one in zip(hard, whole, strict=True)]
            same = sum(np.isclose(*pair, rtol=EQUAL) for pair in ends)
            print(
                f"    all {max(one.rows for one in whole):,} rows at {len(hard)} points that need a program: "
                f"{spread(longer)}, with rows as needed {spread(own)}: "
                f"{np.median(np.divide(longer, own)):.0f} times as fast (median); the same optimum at {same}, "
                f"no answer at {sum(np.isnan(one.distance) for one in whole)}",
                flush=True,
            )


def solved(network: Pack, point: torch.Tensor, most: float, every_row: bool = False) -> tuple[Nearest, float]:
    began = time.process_time()
    region = Region.around(network, point.double())
    kept = int(region.logits.argmax())
    found = nearest(region, kept, targets(region, kept)[0], most=most, every_row=every_row)
    return found, time.process_time() - began


def searches(name: str, pack: Pack, x: torch.Tensor) -> None:
    """Lines of the attacks."""
    few = x[: SLOW[name]]
    asked = {Ball("linf", 1.0): [Margin(1.0)]}
    found = {
        "L-BFGS": attacked(few, lambda: next(iter(Lbfgs()(pack, few, asked, range(len(few)))))[2].outcome[0]),
        "FMN": attacked(x, lambda: next(iter(Fmn()(pack, x, asked, range(len(x)))))[2].outcome[0]),
    }
    if find_spec("foolbox"):
        found["foolbox's FMN"] = attacked(x, lambda: foolbox_distances(pack, x))
    nearest_known = np.minimum.reduce([distances[: len(few)] for distances, _ in found.values()])
    for label, (distances, seconds) in found.items():
        print(
            f"  {label}: {seconds:.3f}; an image within 20/255 for {(distances <= CAP).mean():.0%} "
            f"of {len(distances)} points, median distance {np.median(distances):.4f}, of the first {len(few)} points "
            f"{np.median(distances[: len(few)] / nearest_known):.2f} times as far as the nearest of these (median)",
            flush=True,
        )


def attacked(x: torch.Tensor, search: Callable[[], torch.Tensor]) -> tuple[np.ndarray, float]:
    """Distances [n], and seconds per point."""
    began = time.process_time()
    distances = search().double().numpy()
    return distances, (time.process_time() - began) / len(x)


def foolbox_distances(pack: Pack, x: torch.Tensor) -> torch.Tensor:
    import foolbox

    class Network(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return pack(images[None])[0]

    model = foolbox.PyTorchModel(Network().eval(), bounds=(0, 1), device="cpu")
    found, _, changed = foolbox.attacks.LInfFMNAttack(steps=100)(model, x, pack(x[None])[0].argmax(-1), epsilons=None)
    distance = (found - x).abs().flatten(1).amax(1)
    return torch.where(changed, distance, torch.inf)


def within(most: float) -> str:
    return "within 20/255" if most == CAP else "at any distance"


def spread(seconds: list[float] | tuple[float, ...]) -> str:
    return f"median {np.median(seconds):.3f}, mean {np.mean(seconds):.3f}, largest {max(seconds):.2f}"


def processor() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
