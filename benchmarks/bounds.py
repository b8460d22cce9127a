"""Our interval and CROWN bounds beside auto_LiRPA's, layer by layer, in the same run.

    git clone https://github.com/Verified-Intelligence/auto_LiRPA
    PYTHONPATH=auto_LiRPA OMP_NUM_THREADS=1 .venv/bin/python benchmarks/bounds.py

auto_LiRPA is no dependency; besides torch it needs appdirs, sortedcontainers, ninja, tqdm, graphviz, packaging and
pyyaml. Networks have random weights; bounded are all differences of logits around eight random images, in L∞ balls, in
float64 and without our allowance for float32. Printed is by how much ours are looser and tighter at most, and the
seconds of both, theirs with tracing the network.

Intervals are the same. CROWN's are the same where both bound the hidden layers alike. Ours cut these by intervals too,
and bound max-pools by chords; a ReLU's lower line, one of two, may then become the other one, so that a row may be
looser. auto_LiRPA has no overlapping and no uneven windows.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time

import numpy as np
import torch
from auto_LiRPA import BoundedModule, BoundedTensor
from auto_LiRPA.perturbations import PerturbationLpNorm
from torch import nn

from deltaball.local.balls import Ball
from deltaball.local.certificates.enclosures import enclosed
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    Layers,
    LeakyReLU,
    MaxPool,
    Residual,
)
from deltaball.networks.packs import Pack

CLASSES, POINTS = 4, 8
RELU, EVEN = Activation("relu"), (1, 1, 1, 1)
END = (Flatten(), Dense(CLASSES))
BLOCK = (Conv(4, 3, bias=False), BatchNorm(), RELU, Conv(4, 3, bias=False), BatchNorm())
NETWORKS = {
    "strides": (Conv(3, 3, 2, EVEN), RELU, Conv(4, 2, 2, "valid", bias=False), RELU, *END),
    "average pool": (Conv(3, 3), RELU, AveragePool(), Conv(3, 3), RELU, *END),
    "global average": (Conv(5, 3), RELU, Conv(5, 3), RELU, GlobalAveragePool(), Dense(CLASSES)),
    "batch norm": (Conv(3, 3), BatchNorm(), RELU, Conv(3, 3), BatchNorm(), RELU, *END),
    "leaky ReLU": (Flatten(), Dense(12), LeakyReLU(0.1), Dense(12), LeakyReLU(0.1), Dense(CLASSES)),
    "tanh": (Flatten(), Dense(12), Activation("tanh"), Dense(12), Activation("tanh"), Dense(CLASSES)),
    "sigmoid": (Conv(3, 3), Activation("sigmoid"), Flatten(), Dense(12), Activation("sigmoid"), Dense(CLASSES)),
    "max-pool": (Conv(3, 3), RELU, MaxPool(), *END),
    "residual": (Conv(4, 3), RELU, Residual(BLOCK), RELU, GlobalAveragePool(), Dense(CLASSES)),
    "residual 1×1": (Conv(4, 3), RELU, Residual((Conv(6, 3), RELU, Conv(6, 3)), (Conv(6, 1),)), RELU, *END),
}


class Sum(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.shortcut(x)


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def module(layers: Layers, weights: list[torch.Tensor]) -> nn.Sequential:
    """One network as torch's modules, of images [n, c, h, w]."""
    found, flat = [], None
    for layer, shape, own in layers.with_weights(weights):
        match layer:
            case Dense():
                kernel = own[0].T
                if flat:
                    kernel, flat = kernel.unflatten(1, flat).movedim(-1, 1).flatten(1), None
                found.append(filled(nn.Linear(*kernel.shape[::-1], bias=layer.bias), kernel, *own[1:]))
            case Conv():
                pixels = layer.sides(shape)[0]
                convolution = nn.Conv2d(shape[2], layer.filters, layer.size, layer.stride, pixels, bias=layer.bias)
                found.append(filled(convolution, own[0].permute(3, 2, 0, 1), *own[1:]))
            case BatchNorm():
                found.append(filled(nn.BatchNorm2d(shape[-1], layer.epsilon), *own[:2]))
                found[-1].running_mean, found[-1].running_var = own[2:]
            case Activation():
                found.append({"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[layer.name]())
            case LeakyReLU():
                found.append(nn.LeakyReLU(layer.slope))
            case MaxPool():
                found.append(nn.MaxPool2d(layer.size, layer.stride))
            case AveragePool():
                found.append(nn.AvgPool2d(layer.size, layer.stride))
            case GlobalAveragePool():
                found.append(Mean())
            case Flatten():
                found.append(nn.Flatten())
                flat = shape
            case Residual():
                body, shortcut = layer.branches(shape)
                count = len(body.weights)
                found.append(Sum(module(body, own[:count]), module(shortcut, own[count:])))
    return nn.Sequential(*found).eval()


def filled(layer: nn.Module, *weights: torch.Tensor) -> nn.Module:
    for parameter, weight in zip(layer.parameters(), weights, strict=True):
        parameter.data = weight.contiguous()
    return layer


def drawn(layers: Layers, gain: float, random: np.random.Generator) -> Pack:
    """A network with biases, kernels `gain` times Glorot's, and scales and variances around 1."""
    weights = []
    for start in initial_weights(layers, random):
        noise = random.normal(0, 0.3, start.shape)
        moved = gain * start if start.ndim > 1 else np.exp(noise) if start.any() else noise
        weights.append(moved.astype(np.float32))
    return Pack.of(layers, [weights])


def theirs(pack: Pack, x: torch.Tensor, ball: Ball, method: str, rows: torch.Tensor) -> torch.Tensor:
    images = x.double().movedim(-1, 1)
    torch.set_default_dtype(torch.float64)
    network = module(pack.layers, [weight[0].double() for weight in pack.weights])
    bounded = BoundedModule(network, torch.zeros_like(images), bound_opts={"conv_mode": "matrix"}, verbose=False)
    torch.set_default_dtype(torch.float32)
    low, high = (images - ball.delta).clamp(min=0), (images + ball.delta).clamp(max=1)
    inside = BoundedTensor(images, PerturbationLpNorm(x_L=low, x_U=high))
    torch.set_default_dtype(torch.float64)
    lower, _ = bounded.compute_bounds(x=(inside,), C=rows, method=method, bound_upper=False)
    torch.set_default_dtype(torch.float32)
    return lower.detach()


def main() -> None:
    identity = torch.eye(CLASSES, dtype=torch.float64)
    first, second = (~torch.eye(CLASSES, dtype=torch.bool)).nonzero().T
    rows = (identity[first] - identity[second]).expand(POINTS, -1, -1)
    print(
        f"{'network':15} {'gain':>4} {'δ':>5} {'bounds':>6} {'looser':>8} {'tighter':>8} {'ours, s':>8} {'theirs':>7}"
    )
    for name, sequence in NETWORKS.items():
        for gain, delta in ((1.0, 0.02), (1.5, 0.1)):
            random, ball = np.random.default_rng(0), Ball("linf", delta)
            pack = drawn(Layers((8, 6, 2), sequence), gain, random)
            x = torch.from_numpy(random.uniform(0, 1, (POINTS, 8, 6, 2)).astype(np.float32))
            for by, method in (("ibp", "IBP"), ("crown", "CROWN")):
                started = time.perf_counter()
                with torch.no_grad():
                    own = enclosed(pack, ball.around(x), by).lower(rows[None])[0]
                middle = time.perf_counter()
                apart = theirs(pack, x, ball, method, rows) - own
                ended = time.perf_counter()
                print(
                    f"{name:15} {gain:4} {delta:5} {by:>6} {max(0, apart.max().item()):8.0e} "
                    f"{max(0, -apart.min().item()):8.0e} {middle - started:8.3f} {ended - middle:7.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
