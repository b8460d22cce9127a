"""What training under attack costs: packs of this package beside one network in plain torch, with the same attack.

    .venv/bin/python benchmarks/objectives.py [DATA.npz]

Networks of paper 001 (one hidden layer of 100 units, Adam, batches of 128), PGD of 10 steps inside every step, on
images of the size of Fashion-MNIST (or those of a file). For each objective: seconds of an epoch per network, that as a
multiple of an epoch on cross-entropy by the same code, and how many times longer plain torch takes. The last column is
the most that this could be: plain torch beside nothing but the products of the first layer that the objective cannot do
without. On one thread, by CPU time; each is timed in turn, TURNS times, and the median counts.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from deltaball.networks.initial import initial_weights
from deltaball.run.libraries import prepare_torch
from deltaball.study.architectures import layers
from deltaball.training import draws
from deltaball.training.objectives.objective import objective_of
from deltaball.training.steps import Members, Recipe, Steps

NETWORKS, BATCH, POINTS, TURNS, STEPS, RADIUS = 8, 128, 2048, 5, 10, 0.1
CASES = {
    "cross_entropy": {},
    "adversarial": {"against": "label"},
    "constrained": {"constraint": "standard_robustness", "logic": "dl2"},
    "trades": {},
}


def data(path: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, h, w, c] in [0, 1] and labels."""
    if path:
        with np.load(path) as file:
            images, labels = file["x_train"][:POINTS] / np.float32(255), file["y_train"][:POINTS]
        images = images if images.ndim == 4 else images[..., None]
    else:
        random = np.random.default_rng(0)
        images, labels = random.random((POINTS, 28, 28, 1), dtype=np.float32), random.integers(0, 10, POINTS)
    return torch.from_numpy(images), torch.from_numpy(labels.reshape(-1).astype(np.int64))


def ours(name: str, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    """An epoch of a pack."""
    network = layers("fcn", {"depth": 1, "width": 100, "activation": "relu"}, tuple(images.shape[1:]), 10)
    objective = objective_of({"objective": name, "attack_steps": STEPS, **CASES[name]})
    drawn = [initial_weights(network, np.random.default_rng(k)) for k in range(NETWORKS)]
    weights = [torch.from_numpy(np.stack(arrays)) for arrays in zip(*drawn, strict=True)]
    moments = [torch.zeros_like(one) for one in (*weights, *weights)]
    axes = {name: torch.full((NETWORKS,), value) for name, value in (("radius", RADIUS), ("alpha", 1.0), ("beta", 0.2))}
    keys = draws.keys([str(k) for k in range(NETWORKS)], "cpu")
    recipe = Recipe(network, BATCH, "adam", objective=objective)
    steps = Steps(recipe, Members(weights, moments, (), axes, keys), images, labels)
    order = np.stack([np.random.default_rng(k).permutation(len(images)) for k in range(NETWORKS)])
    rates = torch.full((NETWORKS,), 1e-4)
    return lambda: steps.epoch(order, rates, 0)


def plain(name: str, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    """An epoch of one network, as torch's users write it."""
    functional = torch.nn.functional
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(images[0].numel(), 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)

    def distance(logits: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
        return (logits - original).abs().amax(1)

    def divergence(logits: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
        return functional.kl_div(logits.log_softmax(1), original.softmax(1), reduction="batchmean")

    def attacked(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        original = model(x).detach()
        raised = {
            "adversarial": lambda logits: functional.cross_entropy(logits, y),
            "constrained": lambda logits: distance(logits, original).mean(),
            "trades": lambda logits: divergence(logits, original),
        }[name]
        current = (x + RADIUS * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        for _ in range(STEPS):
            current.requires_grad_()
            (slope,) = torch.autograd.grad(raised(model(current)), current)
            current = (current.detach() + 0.25 * RADIUS * slope.sign()).clamp(x - RADIUS, x + RADIUS).clamp(0, 1)
        return current.detach()

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if name == "cross_entropy":
            return functional.cross_entropy(model(x), y)
        moved = attacked(x, y)
        if name == "adversarial":
            return functional.cross_entropy(model(moved), y)
        original = model(x)
        if name == "trades":
            return functional.cross_entropy(original, y) + 0.2 * divergence(model(moved), original)
        excess = (distance(model(moved), original) - 10).clamp(min=0).mean()
        return functional.cross_entropy(original, y) + 0.2 * excess

    def epoch() -> None:
        for chosen in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            loss(images[chosen], labels[chosen]).backward()
            optimizer.step()

    return epoch


def products(name: str, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    """Of an epoch of one network only the first layer's products: what no code for it on this core can be faster than.

    Two in each step of the attack, forward and back to the image; and two, forward and the kernel's gradient, for
    each kind of image that the loss is taken of.
    """
    kinds = 1 if name in ("cross_entropy", "adversarial") else 2
    steps = 0 if name == "cross_entropy" else STEPS
    pixels, hidden = images[0].numel(), 100
    x, kernel, slope = torch.rand(BATCH, pixels), torch.rand(pixels, hidden), torch.rand(BATCH, hidden)
    forward, back, gradient = torch.empty(BATCH, hidden), torch.empty(BATCH, pixels), torch.empty(pixels, hidden)

    def epoch() -> None:
        for _ in range(len(labels) // BATCH):
            for _ in range(steps):
                torch.mm(x, kernel, out=forward)
                torch.mm(slope, kernel.T, out=back)
            for _ in range(kinds):
                torch.mm(x, kernel, out=forward)
                torch.mm(x.T, slope, out=gradient)

    return epoch


def main() -> None:
    prepare_torch("cpu")
    images, labels = data(sys.argv[1] if len(sys.argv) > 1 else None)
    work = {(name, by.__name__): by(name, images, labels) for by in (ours, plain, products) for name in CASES}
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    for _ in range(1 + TURNS):
        for key, epoch in work.items():
            began = time.process_time()
            epoch()
            taken[key].append(time.process_time() - began)
    median = {key: statistics.median(times[1:]) for key, times in taken.items()}
    print(f"{NETWORKS} networks in a pack, {POINTS} images, torch {torch.__version__}, one thread")
    heads = f"{'ms per network':>16}{'× cross-entropy':>17}{'plain torch':>13}{'its time / ours':>17}{'at most':>9}"
    print(f"{'objective':<15}{heads}")
    for name in CASES:
        own, other, least = median[name, "ours"] / NETWORKS, median[name, "plain"], median[name, "products"]
        multiple = median[name, "ours"] / median["cross_entropy", "ours"]
        ratios = f"{other / own:>17.2f}{other / least:>9.1f}"
        print(f"{name:<15}{1e3 * own:>16.1f}{multiple:>17.1f}{1e3 * other:>13.1f}{ratios}")


if __name__ == "__main__":
    main()
