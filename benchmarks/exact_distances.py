"""How far ρ̂ of each method lies above the exact distance, point by point, on one network within reach of exact answers.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/exact_distances.py [FOLDER [RESULTS [POINTS]]]

An FCN 1×32 is trained by deltaball on all of MNIST (mnist.npz in FOLDER, default: data). At POINTS (default: 100) test
images, drawn at random, the closest image of another class in L∞ is sought by the region's linear program, L-BFGS, FMN
and the walk through regions. The nearest of these begins the bisection that `deltaball.local.exact_distance` does: the
exact distance is known to 1 %, or as it is printed where 60 s for a ball were not enough. RESULTS (default: results)
get exact_distances.png and .svg, and exact_distances.csv with what they show.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from pointwise import processor, trained

from deltaball.data.datasets import load
from deltaball.figures import style
from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.lbfgs import Lbfgs
from deltaball.local.attacks.linear_region import LinearRegion
from deltaball.local.attacks.walk import Walk
from deltaball.local.balls import Ball
from deltaball.local.exact_distance import Distances, distances
from deltaball.local.notions import Margin
from deltaball.networks.packs import Pack
from deltaball.study.judges import JUDGES

GRID = {"architecture": "fcn", "depth": 1, "width": 32, "activation": "relu", "epochs": 10}
ATTACKS = {"linear_region": LinearRegion(), "lbfgs": Lbfgs(), "fmn": Fmn(), "walk": Walk()}
SHARE, SECONDS, BLOCK = 0.01, 60.0, 32


def main() -> None:
    folder, results = (Path(given) for given in (*sys.argv[1:3], *("data", "results")[len(sys.argv) - 1 :]))
    points = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    torch.set_num_threads(1)
    data = load("mnist", folder)
    chosen = np.random.default_rng(0).permutation(len(data.x_test))[:points]
    x = torch.from_numpy(data.x_test[chosen])
    with tempfile.TemporaryDirectory() as temporary:
        pack, accuracy = trained(GRID, data, folder, Path(temporary))
    print(f"{processor()}, torch {torch.__version__}; FCN 1×32 on MNIST (accuracy {accuracy:.3f}), {points} points")
    found = {name: attacked(name, pack, x) for name in ATTACKS}
    table = pd.DataFrame({name: lengths.numpy() for name, (_, lengths) in found.items()}).assign(point=chosen)
    exact = answered(pack, x, [*found.values()])
    table["lower"], table["upper"] = exact.lower.numpy(), exact.upper.numpy()
    for name in ATTACKS:
        above = table[name] / table["upper"]
        near = above[np.isfinite(above)]
        print(
            f"  {name}: {(above < 1 + SHARE).mean():.0%} within {SHARE:.0%} of the exact distance, nothing found for "
            f"{np.isinf(above).mean():.0%}; where found ρ̂ / ρ median {near.median():.3f}, 90 % below "
            f"{near.quantile(0.9):.3f}, largest {near.max():.2f}"
        )
        assert (table[name] >= table["lower"] * (1 - 1e-6)).all(), f"{name} is nearer than possible"
    draw(table, results)


def attacked(name: str, pack: Pack, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The images [n, h, w, c] that an attack finds, and their distances [n]; infinite where there is none."""
    began, asked = time.process_time(), {Ball("linf", 1.0): [Margin(1.0)]}
    images = []
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        images += [verdict.perturbed[0] for _, _, verdict in ATTACKS[name](pack, block, asked, range(len(block)))]
    image = torch.cat(images)
    length = (image - x).abs().flatten(1).amax(1).double()
    print(f"  {name}: {(time.process_time() - began) / len(x):.3f} s of processor per point", flush=True)
    return image, length.where(length > 0, torch.inf)


def answered(pack: Pack, x: torch.Tensor, found: list[tuple[torch.Tensor, torch.Tensor]]) -> Distances:
    """Exact distances, from the nearest image of all attacks on."""
    images, lengths = (torch.stack(parts) for parts in zip(*found, strict=True))
    began = time.process_time()
    exact = distances(pack, x, images[lengths.argmin(0), torch.arange(len(x))], "linf", SHARE, SECONDS)
    known = (exact.upper - exact.lower) / exact.upper <= SHARE * (1 + 1e-6)
    seconds, balls = (time.process_time() - began) / len(x), exact.answers.double().mean()
    to = f"to {SHARE:.0%} at {known.double().mean():.0%} of the points"
    print(f"  exact: {seconds:.2f} s of processor per point, {balls:.1f} balls; {to}", flush=True)
    return exact


def draw(table: pd.DataFrame, results: Path) -> None:
    style.use()
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.5, 3.8))
    above = table[[*ATTACKS]].div(table["upper"], axis=0)
    edge = 1.2 * above.replace(np.inf, np.nan).max().max()
    for name in ATTACKS:
        colour, mark = style.judge(name)
        shown = {"s": 16, "marker": mark, "facecolors": "none", "edgecolors": colour, "linewidths": 0.9}
        axes.scatter(table["upper"], above[name].clip(upper=edge), label=JUDGES[name].title, **shown)
    axes.axhline(1, color="black", linewidth=0.8, zorder=0)
    axes.set(
        xscale="log", yscale="log", xlabel="exact distance ρ in L∞ (to 1 %)", ylabel="distance found / exact, ρ̂ / ρ"
    )
    nothing = "at the upper edge: nothing found" if np.isinf(above).any(axis=None) else None
    figure.legend(title=nothing, loc="outside upper center", ncols=2)
    results.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "svg"):
        figure.savefig(results / f"exact_distances.{kind}", bbox_inches="tight")
    table.to_csv(results / "exact_distances.csv", index=False)


if __name__ == "__main__":
    main()
