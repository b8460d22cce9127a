"""What the exact answer leaves open of 160 random convolutional networks with max-pools, at 8 s for each.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/pools.py [SECONDS]

Images of 4×4 pixels, one or two channels and four classes; one point each. Printed are the networks that take longer
than a second: by branch and bound alone, which searches ReLU and max-pool in both orders; by it with the max-pool
always first; and by the whole chain, in which PGD and CROWN come before. One core.
"""

import os
import sys
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")

import numpy as np
import torch

from deltaball.local.balls import Ball
from deltaball.local.deciding import Exact
from deltaball.local.exact import decide
from deltaball.local.notions import ClassChange
from deltaball.networks.dense_form import pools_first
from deltaball.networks.initial import initial_weights
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers

NETWORKS = 160
SECONDS = 8.0
CLASSES = 4
LONG = 1.0  # seconds
SAID = {0.0: "violated", 1.0: "robust"}


def main(seconds: float) -> None:
    torch.set_num_threads(1)
    unknown = np.zeros(3, int)
    for number, (pack, x, ball) in enumerate(networks()):
        both = decide(pack, x, ball, seconds)
        pool = decide(Pack(pools_first(pack.layers), pack.weights), x, ball, seconds)
        ((_, _, chain),) = Exact(seconds=seconds)(pack, x, {ball: [ClassChange()]}, [number])
        outcomes = [both.outcome[0], pool.outcome[0], chain.outcome.item()]
        unknown += np.isnan(outcomes)
        if max(both.seconds[0], pool.seconds[0]) > LONG:
            said = [SAID.get(float(one), "unknown") for one in outcomes]
            print(
                f"{number}: δ = {ball.delta}; both orders: {said[0]}, {both.subproblems[0]:,} subproblems, "
                f"{both.seconds[0]:.1f} s; max-pool first: {said[1]}, {pool.subproblems[0]:,} subproblems, "
                f"{pool.seconds[0]:.1f} s; whole chain: {said[2]}",
                flush=True,
            )
    print(f"unknown of {NETWORKS}: {unknown[0]} in both orders, {unknown[1]} max-pool first, {unknown[2]} by the chain")


def networks() -> Iterator[tuple[Pack, torch.Tensor, Ball]]:
    """A network with biases, and with kernels up to 1.5 times as large as Glorot's; an image, and a ball around it."""
    for number in range(NETWORKS):
        random = np.random.default_rng(number)
        architecture = ("cnn", "vgg")[number % 2]
        depth = int(random.integers(1, 3)) if architecture == "cnn" else 1
        axes = {"fc_depth": 1, "fc_width": int(random.integers(4, 9)), "activation": "relu", "kernel": 3}
        axes |= {"filters": int(random.integers(1, 5)), "conv_depth": depth}
        shape = (4, 4, int(random.integers(1, 3)))
        network = layers(architecture, axes, shape, CLASSES)
        gain = random.choice([1.0, 1.5])
        weights = [
            one * np.float32(gain) if one.ndim > 1 else random.normal(0, 0.3, one.shape).astype(np.float32)
            for one in initial_weights(network, random)
        ]
        x = random.uniform(-0.2, 1.2, (1, *shape)).clip(0, 1).astype(np.float32)
        delta = float(random.choice([0.05, 0.1, 0.2, 0.3]))
        yield Pack.of(network, [weights]), torch.from_numpy(x), Ball("linf", delta)


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else SECONDS)
