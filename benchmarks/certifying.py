"""How long a certificate takes per point on one core or a GPU, and what share of points it certifies.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/certifying.py

Networks are trained for a few epochs on mnist5k by Adam; certified are the first test images, within L∞ balls.
Milliseconds per point (on a CPU of processor time), the best of three runs; `ibp` and `crown` ask for the rows of the
predicted class (class change), `all` for all pairs of classes by CROWN (softmax variation). Then the shares that are
certified, and the share that survives 20 steps of sign gradients.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")

import platform
from pathlib import Path

import numpy as np
import torch
from training import seconds

from deltaball.data.datasets import Dataset, load
from deltaball.local.balls import Ball
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.certificates.differences import differences
from deltaball.local.losses import margin_loss
from deltaball.local.notions import ClassChange
from deltaball.local.references import Reference
from deltaball.networks.initial import initial_weights
from deltaball.networks.packs import Pack, logits
from deltaball.run.libraries import prepare_torch
from deltaball.study.architectures import layers

CNN = {"fc_depth": 1, "fc_width": 128, "activation": "relu"}
NETWORKS = {
    "fcn 64×1": ("fcn", {"depth": 1, "width": 64, "activation": "relu"}, 200),
    "fcn 64×2": ("fcn", {"depth": 2, "width": 64, "activation": "relu"}, 200),
    "fcn 64×2 tanh": ("fcn", {"depth": 2, "width": 64, "activation": "tanh"}, 200),
    "fcn 128×2": ("fcn", {"depth": 2, "width": 128, "activation": "relu"}, 200),
    "cnn 5 filters k3 ×1": ("cnn", {**CNN, "filters": 5, "kernel": 3, "conv_depth": 1}, 50),
    "cnn 5 filters k3 ×1 tanh": ("cnn", {**CNN, "filters": 5, "kernel": 3, "conv_depth": 1, "activation": "tanh"}, 50),
    "cnn 10 filters k5 ×2": ("cnn", {**CNN, "filters": 10, "kernel": 5, "conv_depth": 2}, 10),
}
DELTAS = [0.01, 0.03]
EPOCHS = 8


def trained(architecture: str, axes: dict, data: Dataset, device: str, epochs: int = EPOCHS) -> Pack:
    found = layers(architecture, axes, (28, 28, 1), 10)
    random = np.random.default_rng(0)
    weights = [torch.from_numpy(one)[None].to(device).requires_grad_() for one in initial_weights(found, random)]
    x, y = torch.from_numpy(data.x_train).to(device), torch.from_numpy(data.y_train).long().to(device)
    optimiser = torch.optim.Adam(weights, lr=2e-3)
    for _ in range(epochs):
        for batch in torch.from_numpy(random.permutation(len(x))).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits(found, weights, x[batch])[0], y[batch]).backward()
            optimiser.step()
    return Pack(found, tuple(one.detach() for one in weights))


def attacked(pack: Pack, x: torch.Tensor, ball: Ball) -> float:
    """The share of points whose class a few sign-gradient steps do not change."""
    around, point = ball.around(x), pack(x)
    moved, robust = x.expand(len(pack), *x.shape), torch.ones(point.shape[:-1], device=x.device)
    for _ in range(20):
        leaf = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(margin_loss(Reference.output(point), pack(leaf)).sum(), leaf)
        moved = around.project(moved + ball.delta / 5 * gradient.sign())
        robust = torch.minimum(
            robust, ClassChange().outcome(Reference.output(point), pack(moved), around.distance(moved))
        )
    return robust.mean().item()


def milliseconds(pack: Pack, x: torch.Tensor, ball: Ball, by: str, every: bool) -> float:
    times = [seconds(lambda: differences(pack, x, ball, by, every), x.device.type) for _ in range(3)]
    return min(times) / len(x) * 1e3


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    prepare_torch(device)
    hardware = torch.cuda.get_device_name() if device == "cuda" else f"one core of {processor()}"
    print(f"{hardware}, {os.cpu_count()} cores; torch {torch.__version__}")
    data = load("mnist5k", Path("data"))
    print(
        f"{'network':26} {'δ':>5} {'ibp ms':>8} {'crown ms':>9} {'all, ms':>8} {'ibp':>6} {'crown':>6} {'attacked':>9}"
    )
    for name, (architecture, axes, count) in NETWORKS.items():
        pack = trained(architecture, axes, data, device)
        x = torch.from_numpy(data.x_test[:count]).to(device)
        for delta in DELTAS:
            ball = Ball("linf", delta)
            spent = [milliseconds(pack, x, ball, *how) for how in [("ibp", False), ("crown", False), ("crown", True)]]
            shares = [
                ClassChange()
                .certified(Reference.output(pack(x)), LogitBounds(differences(pack, x, ball, by, False)))
                .mean()
                .item()
                for by in ("ibp", "crown")
            ]
            print(
                f"{name:26} {delta:5} {spent[0]:8.3f} {spent[1]:9.3f} {spent[2]:8.3f} "
                f"{shares[0]:6.3f} {shares[1]:6.3f} {attacked(pack, x, ball):9.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
