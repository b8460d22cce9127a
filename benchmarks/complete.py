"""Our exact answers beside those of Marabou, a complete verifier of others, point by point.

    pip install --target marabou maraboupy
    PYTHONPATH=marabou OMP_NUM_THREADS=1 .venv/bin/python benchmarks/complete.py [POINTS]

Marabou (Wu et al. 2024, "Marabou 2.0: a versatile formal analyzer of neural networks") is no dependency. Networks of
ReLUs are trained on digits of mnist5k, averaged to 7×7 pixels. Both decide whether the class stays the same in L∞ balls
around POINTS (default: 30) test images, with 20 s for each point; Marabou is asked of one point and one other class
after the other. Any disagreement is an error. Printed are what was found, the processor seconds of both, and the ratio.
"""

import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of parsers of files that are not needed
    from maraboupy import Marabou
    from maraboupy.MarabouNetwork import MarabouNetwork

from deltaball.data.datasets import load
from deltaball.local.balls import Ball
from deltaball.local.exact import decide
from deltaball.networks.initial import initial_weights
from deltaball.networks.packs import Pack, logits
from deltaball.study.architectures import layers

SIZES = [(1, 16), (1, 32), (2, 16)]  # depth, width
DELTAS = [0.05, 0.1]
SECONDS, EPOCHS, BATCH = 20.0, 10, 64


def small(images: np.ndarray) -> torch.Tensor:
    """Images [n, 28, 28, 1] averaged to [n, 7, 7, 1]."""
    return avg_pool2d(torch.from_numpy(images).movedim(-1, 1), 4).movedim(1, -1).contiguous()


def trained(depth: int, width: int, x: torch.Tensor, y: torch.Tensor) -> Pack:
    found = layers("fcn", {"depth": depth, "width": width, "activation": "relu"}, tuple(x.shape[1:]), 10)
    random = np.random.default_rng(0)
    weights = [torch.from_numpy(one)[None].requires_grad_() for one in initial_weights(found, random)]
    optimiser = torch.optim.Adam(weights, lr=5e-3)
    for _ in range(EPOCHS):
        for batch in torch.from_numpy(random.permutation(len(x))).split(BATCH):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits(found, weights, x[batch])[0], y[batch]).backward()
            optimiser.step()
    return Pack(found, tuple(one.detach() for one in weights))


def theirs(pack: Pack, point: torch.Tensor, delta: float) -> float:
    """1 robust, 0 violated, NaN unknown."""
    kept, ended = int(pack(point).argmax()), time.process_time() + SECONDS
    for other in range(pack.layers.output[0]):
        if other == kept:
            continue
        left = int(ended - time.process_time())
        answer = asked(pack, point, delta, kept, other, left) if left > 0 else "TIMEOUT"
        if answer != "unsat":
            return 0.0 if answer == "sat" else np.nan
    return 1.0


def asked(pack: Pack, point: torch.Tensor, delta: float, kept: int, other: int, seconds: int) -> str:
    """Whether some image has a logit of `other` no smaller than that of `kept`: sat, unsat or TIMEOUT."""
    network = MarabouNetwork()
    centre = point.flatten().double().numpy()
    entering = [network.getNewVariable() for _ in centre]
    for variable, value in zip(entering, centre, strict=True):
        network.setLowerBound(variable, max(value - delta, 0.0))
        network.setUpperBound(variable, min(value + delta, 1.0))
    network.inputVars = [np.array(entering)]
    kernels, biases = pack.weights[::2], pack.weights[1::2]
    for place, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        leaving = []
        for column, shift in zip(kernel[0].T.double().tolist(), bias[0].double().tolist(), strict=True):
            leaving.append(network.getNewVariable())
            network.addEquality([*entering, leaving[-1]], [*column, -1.0], -shift)
        if place < len(kernels) - 1:
            activated = [network.getNewVariable() for _ in leaving]
            for before, after in zip(leaving, activated, strict=True):
                network.addRelu(before, after)
            leaving = activated
        entering = leaving
    network.outputVars = [np.array(entering)]
    network.addInequality([entering[kept], entering[other]], [1.0, -1.0], 0.0)
    options = Marabou.createOptions(verbosity=0, timeoutInSeconds=max(1, seconds))
    return network.solve(verbose=False, options=options)[0]


def main() -> None:
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    torch.set_num_threads(1)
    data = load("mnist5k", Path("data"))
    x, y, shown = small(data.x_train), torch.from_numpy(data.y_train).long(), small(data.x_test[:points])
    for depth, width in SIZES:
        pack = trained(depth, width, x, y)
        for delta in DELTAS:
            started = time.process_time()
            ours = decide(pack, shown, Ball("linf", delta), SECONDS).outcome
            middle = time.process_time()
            other = np.array([theirs(pack, shown[place : place + 1], delta) for place in range(points)])
            taken, longer = middle - started, time.process_time() - middle
            both = ~np.isnan(ours) & ~np.isnan(other)
            assert (ours[both] == other[both]).all(), (
                f"they disagree at points {np.flatnonzero(both & (ours != other))}"
            )
            print(
                f"{depth}×{width}, δ = {delta}: robust {int((ours == 1).sum())}, violated {int((ours == 0).sum())}, "
                f"open {int(np.isnan(ours).sum())} and {int(np.isnan(other).sum())}; seconds {taken:.2f} and "
                f"{longer:.2f}, {longer / taken:.1f} × as long",
                flush=True,
            )


if __name__ == "__main__":
    main()
