"""Bounds by quadratic functions, which couple the units of a layer, beside CROWN's and beside what attacks reach.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/coupling.py [POINTS]

Networks of 48 units a layer, and a convolution of 5 filters with a max-pool before such a layer, are trained on mnist5k
for ten epochs. Each difference of the predicted class from another
one is bounded from below in L∞ balls around POINTS (default: 16) test images, by CROWN and by `local.quadratics`, with
nothing left out for speed. PGD seeks the lowest value of each, in float64, from four starts. A bound above what PGD
reached is an error. Printed are the distances from the bounds to what PGD reached, medians over the differences; at how
many points of those that PGD leaves each proves the class; and the processor seconds of a point.
"""

import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from deltaball.data.datasets import load
from deltaball.local.balls import Ball
from deltaball.local.certificates.differences import differences
from deltaball.local.coupling import exceeding
from deltaball.local.exact import leads
from deltaball.local.quadratics import quadratics
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pack, logits
from deltaball.study.architectures import layers

WIDTH, DEPTHS, ACTIVATIONS, DELTAS = 48, (1, 2, 3), ("relu", "tanh", "sigmoid"), (0.02, 0.05, 0.1)
CNN = {"filters": 5, "kernel": 3, "conv_depth": 1, "fc_depth": 1, "fc_width": WIDTH, "activation": "relu"}
NETWORKS = {
    **{
        f"{depth}×{WIDTH} {activation}": ("fcn", {"depth": depth, "width": WIDTH, "activation": activation})
        for activation in ACTIVATIONS
        for depth in DEPTHS
    },
    "convolution": ("cnn", CNN),
}
EPOCHS, BATCH, RATE = 10, 64, 3e-3
STARTS, STEPS, STRIDE = 4, 60, 0.6  # of PGD; the first step's length in radii, falling to none


def main() -> None:
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    torch.set_num_threads(1)
    data = load("mnist5k", Path("data"))
    x = torch.from_numpy(data.x_test[:points])
    above = 0
    print(f"{'network':<16}{'δ':>5}{'CROWN':>9}{'coupled':>9}{'left':>6}{'CROWN':>7}{'coupled':>9}{'s per point':>13}")
    for name, (architecture, axes) in NETWORKS.items():
        own = layers(architecture, axes, tuple(x.shape[1:]), 10)
        pack = trained(own, torch.from_numpy(data.x_train), torch.from_numpy(data.y_train).long())
        for delta in DELTAS:
            above += report(name, pack, x, Ball("linf", delta))
    if above:
        sys.exit(f"{above} bounds lie above what an attack reached")
    print("no bound lies above what an attack reached")


def trained(own: Layers, images: torch.Tensor, labels: torch.Tensor) -> Pack:
    """A network in float32."""
    weights = [torch.from_numpy(one)[None].requires_grad_() for one in initial_weights(own, np.random.default_rng(1))]
    optimizer, random = torch.optim.Adam(weights, RATE), torch.Generator().manual_seed(1)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=random).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(logits(own, weights, images[batch])[0], labels[batch]).backward()
            optimizer.step()
    return Pack(own, [weight.detach() for weight in weights])


def report(name: str, pack: Pack, x: torch.Tensor, ball: Ball) -> int:
    """Print a row; returns how many bounds lie above what an attack reached."""
    predicted = pack(x)[0].argmax(-1)
    rows, around = leads(predicted, 10), ball.around(x)
    point, flat = torch.arange(len(x)).repeat_interleave(rows.shape[1]), rows.flatten(0, 1)
    started = time.process_time()
    nowhere = torch.full((len(flat),), math.inf, dtype=torch.float64)
    coupled = exceeding(*quadratics(pack, around, point, flat), nowhere, math.inf)
    seconds = (time.process_time() - started) / len(x)
    by_class = differences(pack, x, ball, "crown", every=True)[0, torch.arange(len(x)), predicted]
    others = torch.ones_like(by_class, dtype=torch.bool).scatter(-1, predicted[:, None], False)
    crown, reached = by_class[others], lowest(pack, x, ball, point, flat)
    by_point = [bound.double().view(len(x), -1).amin(1) > 0 for bound in (reached, crown, coupled)]
    left = by_point[0]
    proven = [int((one & left).sum()) for one in by_point[1:]]
    apart = [(reached - bound).median().item() for bound in (crown, coupled)]
    print(
        f"{name:<16}{ball.delta:>5}{apart[0]:>9.2f}{apart[1]:>9.2f}{int(left.sum()):>6}{proven[0]:>7}{proven[1]:>9}"
        f"{seconds:>13.2f}",
        flush=True,
    )
    return int((coupled > reached).sum() + (crown > reached).sum())


def lowest(pack: Pack, x: torch.Tensor, ball: Ball, point: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The lowest value [B] that PGD reaches of rows [B, classes] of the logits, around the points [B]."""
    exact = Pack(pack.layers, [weight.double() for weight in pack.weights])
    images, random = x[point].double(), torch.Generator().manual_seed(0)
    low, high = (images - ball.delta).clamp(0, 1), (images + ball.delta).clamp(0, 1)
    best = torch.full((len(point),), math.inf, dtype=torch.float64)
    for _ in range(STARTS):
        here = low + (high - low) * torch.rand(images.shape, generator=random, dtype=torch.float64)
        for step in range(STEPS):
            leaf = here.requires_grad_()
            value = (exact(leaf)[0] * rows).sum(-1)
            best = torch.minimum(best, value.detach())
            (slope,) = torch.autograd.grad(value.sum(), leaf)
            stride = STRIDE * ball.delta * (1 - step / STEPS)
            here = (leaf.detach() - stride * slope.sign()).clamp(low, high)
    return best


if __name__ == "__main__":
    main()
