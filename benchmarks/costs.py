"""How close the plan's estimate of a shard's training is to the truth, on this machine.

    .venv/bin/python benchmarks/costs.py [DATA]

DATA is a folder with mnist.npz and fashion_mnist.npz (default: data). Shards are those of B.1 to B.4 of
studies/paper.yaml on the device of config.yaml, SHARDS drawn from each grid, and all of config.yaml. Rates are those
that `deltaball calibrate` left for config.yaml, else those that ship.

The truth is *extrapolated*: each pack of a shard is trained on so many of its own images that an epoch takes about
SECONDS, once to warm up, twice without and once with a checkpoint; an epoch of all images is taken to last longer in
proportion, and so is evaluating them. Of a pack of chains, one is sampled twice for TRANSITIONS: first it compiles what
all of them use. On a CPU, CPU time of one thread, which other jobs do not stretch; on a GPU the clock's.
"""

import os
import sys

os.environ |= {"KERAS_BACKEND": "jax", "OMP_NUM_THREADS": "1", "MKL_CBWR": "AUTO"}
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from training import seconds

from deltaball.base.draws import generator
from deltaball.data.datasets import Dataset, load
from deltaball.networks.initial import initial_weights
from deltaball.plan import costs
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan, plan
from deltaball.run import libraries
from deltaball.store.store import Store
from deltaball.study import reading
from deltaball.training import descent as descending
from deltaball.training import hmc, sgd

ROOT = Path(__file__).resolve().parent.parent
GRIDS = ("B.1", "B.2", "B.3", "B.4")
SHARDS, SHARD_MINUTES, SECONDS, TRANSITIONS = 12, 5, 0.4, 10
FACTOR = 1.5


def descent(planned: Plan, pack: tuple[Trajectory, ...], dataset: Dataset, device: str, folder: Path) -> float:
    """Seconds of a pack's training by gradient descending."""
    layers, batch, facts = planned.layers(pack[0]), pack[0].axes["batch_size"], dataset.facts
    each = [one.checkpoints[-1] for one in pack]
    epoch = costs.epochs(pack[0].method, pack[0].axes, layers, facts, [1] * len(pack), device)
    whole = -(-facts.train // batch)
    steps = max(2, min(whole, round(SECONDS / planned.rates.of(epoch) * whole)))
    few, tested = min(facts.train, steps * batch), min(facts.test, steps * batch)
    shown = Dataset(
        facts, dataset.x_train[:few], dataset.y_train[:few], dataset.x_test[:tested], dataset.y_test[:tested]
    )
    starts = []
    for one in pack:
        weights = initial_weights(layers, generator(one.origin, "weights"))
        draws = generator(one.id, "masks")
        masks = [draws.random(weight.shape) < one.axes.get("kept", [1])[-1] for weight in weights]
        # As in a study, a network that diverges costs nothing more; so none does here.
        axes = {**one.axes, "learning_rate": 1e-4}
        started = replace(one, axes=axes, checkpoints=(4,), parents=())
        starts.append(descending.StartingPoint(started, 0, weights, {}, masks if one.method == "imp" else ()))
    parted = [starts] if pack[0].method == "imp" else sgd.together(starts, layers, device)
    runs = [descending.Descent(some, layers, shown, Store(folder), device) for some in parted]
    taken = [silent(lambda: [run.until(run.epoch + 1) for run in runs], device) for _ in range(4)]
    epoch = statistics.mean(taken[1:3])
    kept = max(0.0, taken[3] - epoch) * (facts.train + facts.test) / (few + tested)
    epoch *= facts.train / few
    return epoch * sum(each) / len(pack) + kept * sum(len(one.checkpoints) for one in pack) / len(pack)


def chains(planned: Plan, pack: tuple[Trajectory, ...], dataset: Dataset, device: str, folder: Path) -> float:
    """Seconds of sampling a pack of chains."""
    layers, taken = planned.layers(pack[0]), []
    for what in ("compiled", "again"):
        some = [replace(one, id=f"{one.id}-{what}", checkpoints=(TRANSITIONS,)) for one in pack[:1]]
        some = [replace(one, axes={**one.axes, "burn_in": 0}) for one in some]
        taken.append(silent(lambda some=some: hmc.train(some, layers, dataset, Store(folder), device), device))
    transitions = sum(one.axes["burn_in"] + one.checkpoints[-1] for one in pack)
    return taken[0] - taken[1] + taken[1] / TRANSITIONS * transitions


def silent(do: Callable[[], object], device: str) -> float:
    with open(os.devnull, "w") as nowhere:
        sys.stdout = nowhere
        try:
            return seconds(do, device)
        finally:
            sys.stdout = sys.__stdout__


def main() -> None:
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "data"
    demo = plan(reading.load(ROOT / "config.yaml"))
    paper = reading.load(ROOT / "studies/paper.yaml")
    device = demo.study.compute.device
    compute = paper.compute.model_copy(update={"device": device, "shard_minutes": SHARD_MINUTES})
    planned = plan(paper.model_copy(update={"compute": compute, "results": demo.study.results}))
    rates = demo.rates
    print(f"rates of {rates.hardware}, measured {rates.measured}{', as shipped' if rates.shipped else ''}; on {device}")
    draw, ratios = random.Random(0), {}
    libraries.prepare_torch(device)
    for one, name in [(planned, grid) for grid in GRIDS] + [(demo, grid.name) for grid in demo.study.grids]:
        shards = [shard for shard in one.shards.values() if shard.grid == name]
        drawn = draw.sample(shards, min(SHARDS, len(shards)))
        dataset, ratios[name] = load(drawn[0].dataset, data), []
        for shard in drawn:
            with TemporaryDirectory() as folder:
                truth = sum(
                    (chains if pack[0].method == "hmc" else descent)(one, pack, dataset, device, Path(folder))
                    for pack in shard.packs
                )
            ratios[name].append(60 * shard.minutes / truth)
            print(f"{shard.id:18} {len(shard.packs):3} packs  planned {shard.minutes:7.2f} min  ", end="")
            print(f"extrapolated {truth / 60:7.2f} min  ratio {ratios[name][-1]:.2f}", flush=True)
    ratios["all"] = [ratio for some in ratios.values() for ratio in some]
    for name, some in ratios.items():
        shares = ", ".join(f"{costs.share_within(some, one):.0%} within {one} ×" for one in (FACTOR, 1.25))
        print(f"{name}: {len(some)} shards, {shares}; planned / extrapolated, median {statistics.median(some):.2f}")


if __name__ == "__main__":
    main()
