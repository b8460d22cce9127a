"""What training a study takes, against Keras `fit` looped over the same networks, in one run.

    .venv/bin/python benchmarks/study.py [STUDY]

For every pack of the study's SGD grids (config.yaml's by default) the training up to its first checkpoint, evaluation
and storage included, and one epoch of `fit` of one of its networks, after one that warms up, are timed and
*extrapolated*: what follows takes as long. Keras is counted twice: training every network on its own, as a loop over a
grid does, and sharing the epochs axis as deltaball does, so that sharing and speed are told apart. Keras is not charged
for evaluation, storage or compiling. On a CPU, CPU time of one thread.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

from training import seconds

from deltaball.data.datasets import Dataset, load
from deltaball.networks.keras_models import keras_model
from deltaball.plan import loading
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.run.libraries import prepare_torch


def packs_of(plan: Plan) -> list[tuple[Trajectory, ...]]:
    """The study's packs of plain SGD, as its jobs train them."""
    return [pack for shard in plan.shards.values() for pack in shard.packs if pack[0].method == "sgd"]


def ours(plan: Plan, pack: tuple[Trajectory, ...], dataset: Dataset, device: str) -> float:
    """Seconds of the pack's whole training, from those up to its first checkpoint and with it."""
    from deltaball.base.draws import generator
    from deltaball.networks.initial import initial_weights
    from deltaball.store.store import Store
    from deltaball.training import descent, sgd

    layers, first, last = plan.layers(pack[0]), pack[0].checkpoints[0], pack[0].checkpoints[-1]
    starts = [
        descent.StartingPoint(one, 0, initial_weights(layers, generator(one.origin, "weights")), {}) for one in pack
    ]
    total = 0.0
    with TemporaryDirectory() as folder, open(os.devnull, "w") as silent:
        sys.stdout = silent
        try:
            for some in sgd.together(starts, layers, device):
                run = descent.Descent(some, layers, dataset, Store(Path(folder)), device)
                total += seconds(lambda run=run: run.until(first), device) * last / first
        finally:
            sys.stdout = sys.__stdout__
    return total


def keras_epoch(plan: Plan, one: Trajectory, dataset: Dataset, device: str) -> float:
    """Seconds of one epoch of `fit`."""
    import keras

    model = keras_model(plan.layers(one))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(one.axes["learning_rate"]), loss, metrics=["accuracy"])

    def epoch() -> None:
        model.fit(dataset.x_train, dataset.y_train, batch_size=one.axes["batch_size"], epochs=1, verbose=0)

    epoch()
    return seconds(epoch, device)


def keras_epochs(study: Path, backend: str) -> list[float]:
    """Of one network of each pack, in a process of its own, because Keras has one backend per process."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "--keras", str(study)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main(study: Path, keras_alone: bool) -> None:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if keras_alone:
        torch.set_num_threads(1)
    else:
        prepare_torch(device)
    plan = loading.planned(study)
    packs = packs_of(plan)
    data = {name: load(name, Path(plan.study.data)) for name in {pack[0].dataset for pack in packs}}
    if keras_alone:
        print(json.dumps([keras_epoch(plan, pack[0], data[pack[0].dataset], device) for pack in packs]))
        return
    took = [ours(plan, pack, data[pack[0].dataset], device) for pack in packs]
    columns = ("grid", "networks", "deltaball", "Keras on", "each alone", "ratio", "epochs shared", "ratio")
    print("{:10} {:>8} {:>10}  {:9} {:>11} {:>6} {:>14} {:>6}".format(*columns))
    for backend in ("torch", "jax"):
        epochs = keras_epochs(study, backend)
        for grid in [*dict.fromkeys(pack[0].grid for pack in packs), "all"]:
            chosen = [(p, t, e) for p, t, e in zip(packs, took, epochs, strict=True) if grid in (p[0].grid, "all")]
            mine = sum(t for _, t, _ in chosen)
            alone = sum(e * sum(one.checkpoints) for p, _, e in chosen for one in p)
            shared = sum(e * one.checkpoints[-1] for p, _, e in chosen for one in p)
            networks = sum(len(one.checkpoints) for p, _, _ in chosen for one in p)
            print(
                f"{grid:10} {networks:8,} {mine:8,.0f} s  {backend:9} {alone:9,.0f} s {alone / mine:6.1f} "
                f"{shared:12,.0f} s {shared / mine:6.1f}",
                flush=True,
            )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    alone = arguments[:1] == ["--keras"]
    main(Path((arguments[alone:] or ["config.yaml"])[0]), alone)
