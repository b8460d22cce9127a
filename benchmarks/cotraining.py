"""What co-training costs: packs that train a generator beside each network, and the same packs on cross-entropy.

    .venv/bin/python benchmarks/cotraining.py [DATA.npz]

Networks of papers 000 and 003 (three 5×5 convolutions, batch normalisation, Adam, batches of 32), narrower, with
generators of some widths and depths, on images of the size of MNIST (or those of a file). Seconds of an epoch per
network, and that as a multiple of an epoch on cross-entropy by the same code in the same run. On one thread, by CPU
time; each is timed in turn, TURNS times, and the median counts.

Beside it stands what Algorithm 1 asks for, in multiply-adds as a multiple of cross-entropy's. A step on cross-entropy
passes a minibatch forward, and back to weights and to what enters each layer but the first. Co-training does so with
two minibatches, and for the generator's step passes one forward for its classes, one forward and back to the images;
through the generator one forward, and one forward and back to the weights. So it is 3 times a step and more where a
generator costs nothing, and no code is below the number but by computing these passes more efficiently than the others.
The last line is the papers' own pair, which is not timed.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Layers
from deltaball.run.libraries import prepare_torch
from deltaball.study.architectures import layers
from deltaball.study.objectives import generator_of
from deltaball.training import draws
from deltaball.training.objectives.objective import objective_of
from deltaball.training.steps import Members, Recipe, Steps

NETWORKS, BATCH, POINTS, TURNS = 2, 32, 256, 3
FILTERS = (16, 32, 64)
PAPERS = {"filters": 128, "fc_width": 1024}, {"generator_filters": 128, "generator_depth": 2}
GENERATORS = ((4, 1), (4, 2), (8, 1), (8, 2))  # filters, hidden convolutions


def data(path: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, h, w, c] in [0, 1] and labels."""
    random = np.random.default_rng(0)
    images, labels = random.random((POINTS, 28, 28, 1), dtype=np.float32), random.integers(0, 10, POINTS)
    if path:
        with np.load(path) as file:
            images, labels = file["x_train"][:POINTS] / np.float32(255), file["y_train"][:POINTS]
        images = images if images.ndim == 4 else images[..., None]
    return torch.from_numpy(images), torch.from_numpy(labels.reshape(-1).astype(np.int64))


def started(network: Layers) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The weights of a pack, and Adam's moments of those that are trained."""
    drawn = [initial_weights(network, np.random.default_rng(k)) for k in range(NETWORKS)]
    weights = [torch.from_numpy(np.stack(arrays)) for arrays in zip(*drawn, strict=True)]
    trained = [one for one, weight in zip(weights, network.weights, strict=True) if weight.role != "buffer"]
    return weights, [torch.zeros_like(one) for one in trained * 2]


def epoch(filters: int, axes: Mapping[str, Any], images: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    """An epoch of a pack by the objective of these axes."""
    network = layers("conv5", {"filters": filters, "fc_width": 8 * filters}, tuple(images.shape[1:]), 10)
    recipe = Recipe(network, BATCH, "adam", objective=objective_of(axes))
    weights, moments = started(network)
    keys = draws.keys([str(k) for k in range(NETWORKS)], "cpu")
    beside = Members(*started(recipe.generator.layers)) if recipe.generator else None
    members = Members(weights, moments, (), {"beta": torch.full((NETWORKS,), 1.0)}, keys, beside)
    steps = Steps(recipe, members, images, labels)
    order, other = (
        np.stack([np.random.default_rng([k, own]).permutation(len(images)) for k in range(NETWORKS)]) for own in (0, 1)
    )
    rates = torch.full((NETWORKS,), 1e-3)
    return lambda: steps.epoch(order, rates, 0, other if beside else None)


def least(network: Mapping[str, Any], generator: Mapping[str, Any], shape: tuple[int, ...]) -> float:
    """The passes of a step of co-training as a multiple of those of a step on cross-entropy, in multiply-adds."""
    own, beside = layers("conv5", network, shape, 10), generator_of({"objective": "cotraining", **generator}, shape)
    (whole, first), (generated, generators_first) = (
        (one.flop / 2, next(layer.macs(entering) for layer, entering in one.walk())) for one in (own, beside)
    )
    step = 3 * whole - first
    return (2 * step + 3 * whole + 4 * generated - generators_first) / step


def main() -> None:
    prepare_torch("cpu")
    images, labels = data(sys.argv[1] if len(sys.argv) > 1 else None)
    work, floors = {}, {}
    for filters in FILTERS:
        work[filters, "cross-entropy"] = epoch(filters, {"objective": "cross_entropy"}, images, labels)
        floors[filters, "cross-entropy"] = 1.0
        for width, depth in GENERATORS:
            axes = {"margin_of": "softmax", "generator_filters": width, "generator_depth": depth}
            name = f"generator of {width} filters, depth {depth}"
            work[filters, name] = epoch(filters, {"objective": "cotraining", **axes}, images, labels)
            network = {"filters": filters, "fc_width": 8 * filters}
            floors[filters, name] = least(network, axes, tuple(images.shape[1:]))
    taken: dict[tuple[int, str], list[float]] = {key: [] for key in work}
    for _ in range(1 + TURNS):
        for key, run in work.items():
            began = time.process_time()
            run()
            taken[key].append(time.process_time() - began)
    median = {key: statistics.median(times[1:]) for key, times in taken.items()}
    print(f"{NETWORKS} networks in a pack, batches of {BATCH}, {POINTS} images, torch {torch.__version__}, one thread")
    print(f"{'filters':<9}{'':<34}{'ms per network':>15}{'× cross-entropy':>17}{'asked for':>11}")
    shape = tuple(images.shape[1:])
    for (filters, name), seconds in median.items():
        multiple = seconds / median[filters, "cross-entropy"]
        print(f"{filters:<9}{name:<34}{1e3 * seconds / NETWORKS:>15.1f}{multiple:>17.2f}{floors[filters, name]:>11.2f}")
    print(f"{'128':<9}{'the papers, 128 filters, depth 2':<34}{'':>32}{least(*PAPERS, shape):>11.2f}")


if __name__ == "__main__":
    main()
