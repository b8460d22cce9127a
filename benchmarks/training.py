"""How fast packs train on this machine, beside Keras `fit` and one network in plain torch, in one run.

    .venv/bin/python benchmarks/training.py [NAME ...]

For each network: sample-steps per second (images through a step of SGD, batches of 128, whole epochs with their
shuffling), TFLOP/s counted as three forward passes, that as a share of what this device reaches in a large float32
matrix product by torch, the bytes that a step must move at least as a share of what a large copy moves here, the ratio
to Keras `fit` on torch, and by how many seconds the first epoch was longer than a later one (compilation, trials,
capture). On a CPU everything has one thread and is timed by its CPU time, which other jobs do not stretch; on a GPU by
the clock. The median of TURNS counts, after a first epoch. Imports are not counted. Plain torch runs in our process, so
malloc keeps its memory for it too; Keras has processes of its own, as its users have.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np

from deltaball.networks.keras_models import keras_model
from deltaball.networks.layers import Layers
from deltaball.run.libraries import prepare_torch
from deltaball.run.streams import side_by_side
from deltaball.study.architectures import layers

BATCH, TURNS = 128, 3
FCN = {"activation": "relu"}
CNN = {"activation": "relu", "fc_depth": 1, "fc_width": 128}
# Its axes, the shape of its images, and how many images an epoch has here: as many as take a second or so of a core.
NETWORKS: dict[str, tuple[Layers, int]] = {
    name: (layers(kind, axes, shape, 10), points)
    for name, kind, axes, shape, points in (
        ("FCN 64×1", "fcn", {**FCN, "width": 64, "depth": 1}, (28, 28, 1), 8064),
        ("FCN 256×2", "fcn", {**FCN, "width": 256, "depth": 2}, (28, 28, 1), 4096),
        ("FCN 512×3", "fcn", {**FCN, "width": 512, "depth": 3}, (28, 28, 1), 2048),
        ("CNN 20 k5 ×2", "cnn", {**CNN, "filters": 20, "kernel": 5, "conv_depth": 2}, (28, 28, 1), 512),
        ("VGG 48 k3 ×2", "vgg", {**CNN, "filters": 48, "kernel": 3, "conv_depth": 2}, (32, 32, 3), 256),
    )
}
# Networks in a pack, and packs at a time: on a GPU, small packs of several shapes fill it together.
PACKS = {"cpu": ((1, 1), (4, 1), (16, 1)), "cuda": ((1, 1), (4, 8), (16, 1), (64, 1), (256, 1))}
# A CPU's epochs are this much longer on a GPU, where they would be over before they began, and as many are timed at
# once: as in a study, the next one's order of the data is drawn meanwhile.
LONGER = {"cpu": 1, "cuda": 4}
EPOCHS = {"cpu": 1, "cuda": 4}


def arrays(shape: tuple[int, int, int], points: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.random((points, *shape), dtype=np.float32), random.integers(0, 10, points).astype(np.uint8)


def keras_fit(name: str, device: str) -> Callable[[], object]:
    """Some epochs of `fit` as its users write it."""
    import keras

    network, points = NETWORKS[name]
    model = keras_model(network)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss, metrics=["accuracy"])
    x, y = arrays(network.shape, points * LONGER[device])
    return lambda: model.fit(x, y, batch_size=BATCH, epochs=EPOCHS[device], verbose=0)


def plain_torch(name: str, device: str) -> Callable[[], object]:
    """Some epochs of one network as a torch user writes it who keeps the data on the device."""
    import torch

    from deltaball.networks.layers import Activation, Conv, Dense, Flatten, MaxPool

    network, points = NETWORKS[name]
    modules = {
        Dense: lambda layer, shape: torch.nn.Linear(*shape, layer.outputs),
        Conv: lambda layer, shape: torch.nn.Conv2d(shape[2], layer.filters, layer.size, padding="same"),
        Activation: lambda layer, shape: {"relu": torch.nn.ReLU}[layer.name](),
        MaxPool: lambda layer, shape: torch.nn.MaxPool2d(2),
        Flatten: lambda layer, shape: torch.nn.Flatten(),
    }
    model = torch.nn.Sequential(*(modules[type(layer)](layer, shape) for layer, shape in network.walk())).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    images, labels = arrays(network.shape, points * LONGER[device])
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2).to(device), torch.from_numpy(labels).long().to(device)

    def epochs() -> None:
        for _ in range(EPOCHS[device]):
            for chosen in torch.randperm(len(x), device=device).split(BATCH):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
                optimizer.step()

    return epochs


def samples_of(name: str, device: str) -> int:
    """Images that pass one network in what is timed at once."""
    return NETWORKS[name][1] * LONGER[device] * EPOCHS[device]


def bytes_moved(network: Layers) -> float:
    """Per sample-step, at least: what no cache of a large pack holds until it is used again.

    A weight is read in the forward and in the backward pass, its gradient written and read, and it is updated. An
    image is gathered (read and written) and read in both passes; so are activations, whose gradients are as many.
    """
    image, *others = network.activations
    passing = 4 * image + 6 * sum(others)
    return 4 * (6 * network.parameters / BATCH + passing)


def ours(
    name: str, device: str, networks: int, folder: str, precision: str = "float32", packs: int = 1
) -> Callable[[], object]:
    """Some epochs of so many packs of so many networks each, side by side as a job trains them."""
    from deltaball.base.draws import generator
    from deltaball.data.datasets import from_arrays
    from deltaball.networks.initial import initial_weights
    from deltaball.plan.networks import Trajectory
    from deltaball.store.store import Store
    from deltaball.training import descent, sgd
    from deltaball.training.progress import SILENT

    network, points = NETWORKS[name]
    x, y = arrays(network.shape, points * LONGER[device])
    data = from_arrays("random", {"x_train": x, "y_train": y, "x_test": x[:10], "y_test": y[:10]}, "")
    axes = {"learning_rate": 0.01, "batch_size": BATCH, "optimizer": "sgd", "seed": 0, "precision": precision}
    store, whole, runs = Store(Path(folder)), [], {}
    for first in range(0, packs * networks, networks):
        pack = tuple(
            Trajectory(str(k), "g", "random", "sgd", "fcn", axes, (), (), str(k), 0, 0.0)
            for k in range(first, first + networks)
        )
        whole.append(pack)
        starts = [
            descent.StartingPoint(one, 0, initial_weights(network, generator(one.id, "weights")), {}) for one in pack
        ]
        runs[pack[0].id] = [
            descent.Descent(some, network, data, store, device) for some in sgd.together(starts, network, device)
        ]

    def train(pack: tuple[Trajectory, ...]) -> int:
        for run in runs[pack[0].id]:
            run.until(run.epoch + EPOCHS[device])
        return 0

    return lambda: side_by_side(whole, train, device, SILENT)


def seconds(work: Callable[[], object], device: str) -> float:
    """Of one call: CPU time, or on a GPU the clock's until the device has finished."""
    if device == "cpu":
        began = time.process_time()
        work()
        return time.process_time() - began
    import torch

    torch.cuda.synchronize()
    began = time.monotonic()
    work()
    torch.cuda.synchronize()
    return time.monotonic() - began


def timed(work: Callable[[], object], device: str) -> tuple[float, float]:
    """Median seconds of TURNS calls after a first one, and by how many that one was longer."""
    first = seconds(work, device)
    median = statistics.median(seconds(work, device) for _ in range(TURNS))
    return median, max(0.0, first - median)


def keras_timed(backend: str, name: str, device: str) -> tuple[float, float]:
    """`timed` of an epoch of `fit`, in a process of its own, because Keras has one backend per process."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "--keras", name, device]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return tuple(json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 else (float("nan"),) * 2


def ceilings(device: str) -> tuple[float, float]:
    """FLOP/s of a float32 matrix product of 2048³, and bytes/s of a copy of 256 MB, read and written."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    a, b = (torch.randn(2048, 2048, device=device) for _ in range(2))
    line = torch.zeros(64_000_000, device=device)
    other = torch.empty_like(line)
    product, copy = timed(lambda: a @ b, device)[0], timed(lambda: other.copy_(line), device)[0]
    return 2 * 2048**3 / product, 2 * 4 * len(line) / copy


def main(names: list[str]) -> None:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    prepare_torch(device)
    hardware = torch.cuda.get_device_name() if device == "cuda" else f"one core, {platform.machine()}"
    product, memory = ceilings(device)
    print(f"{hardware}; float32 product {product / 1e12:.3g} TFLOP/s, memory {memory / 1e9:.3g} GB/s")
    print(f"{'network':14} {'trained by':32} {'sample-steps/s':>14} {'TFLOP/s':>9} {'of product':>10} ", end="")
    print(f"{'of memory':>9} {'ratio':>7} {'first':>7}")
    for name in names or NETWORKS:
        network, _ = NETWORKS[name]
        samples = samples_of(name, device)
        took = {f"Keras fit, {one}": (1, *keras_timed(one, name, device)) for one in ("torch", "jax")}
        took["plain torch, 1 network"] = (1, *timed(plain_torch(name, device), device))
        for precision in ("float32", "bfloat16"):
            for networks, packs in PACKS[device]:
                with TemporaryDirectory() as folder:
                    epoch = ours(name, device, networks, folder, precision, packs)
                    who = f"deltaball, {f'{packs} packs' if packs > 1 else 'pack'} of {networks}, {precision}"
                    took[who] = (packs * networks, *timed(epoch, device))
        slowest = samples / took["Keras fit, torch"][1]
        for who, (networks, each, start) in took.items():
            rate = networks * samples / each
            flop, moved = rate * 3 * network.flop, rate * bytes_moved(network)
            shares = f"{flop / 1e12:9.3g} {flop / product:10.1%} {moved / memory:9.1%}"
            print(f"{name:14} {who:32} {rate:14,.0f} {shares} {rate / slowest:7.1f} {start:7.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--keras"]:
        import torch

        torch.set_num_threads(1)
        print(json.dumps(timed(keras_fit(sys.argv[2], sys.argv[3]), sys.argv[3])))
    else:
        main(sys.argv[1:])
