"""Steps of small packs, and a recorder that does on a CPU what a CUDA graph does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from deltaball.networks.autoencoders import AutoEncoder, drawn_weights
from deltaball.networks.coders import Coders
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    GlobalAveragePool,
    Layers,
    Residual,
    Subsample,
)
from deltaball.study.architectures import layers
from deltaball.training import draws
from deltaball.training.objectives.cross_entropy import CrossEntropy
from deltaball.training.objectives.objective import Objective
from deltaball.training.steps import Members, Recipe, Steps

SHAPE, NETWORKS, BATCH, POINTS = (6, 5, 2), 3, 4, 62  # 15 minibatches and one of 2: blocks of 4, single steps, a rest
CNN = {"fc_depth": 1, "fc_width": 8, "filters": 3, "kernel": 3, "conv_depth": 1, "activation": "relu"}
RELU, NORM = Activation("relu"), BatchNorm(1e-3, 0.8)
BODY = (Conv(5, 3, 2, (1, 1, 1, 1), bias=False), NORM, RELU, Conv(5, 3, bias=False), NORM)
BLOCK = (Residual(BODY, (Subsample(2, 5),)), RELU, Dropout(0.4), GlobalAveragePool())
# Of all layers that do something else in training.
RESIDUAL = (Conv(3, 3, bias=False), NORM, RELU, *BLOCK, Dense(4), NORM, RELU, Dense(3))
SHAPES: dict[str, Layers] = {
    "fcn": layers("fcn", {"depth": 2, "width": 7, "activation": "tanh"}, SHAPE, 3),
    "cnn": layers("cnn", CNN, SHAPE, 3),
    "residual": Layers(SHAPE, RESIDUAL),
}


def made(
    kind: str = "fcn",
    optimizer: str = "sgd",
    pruned: bool = False,
    device: str = "cpu",
    precision: str = "float32",
    objective: Objective | None = None,
    axes: Mapping[str, Sequence[float]] | None = None,
    only: Sequence[int] = range(NETWORKS),
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    **how: Any,
) -> tuple[Steps, torch.Tensor]:
    """Steps of a pack, or of `only` some of its networks, and their learning rates; `axes` are those of `objective`."""
    recipe = Recipe(SHAPES[kind], BATCH, optimizer, precision, objective or CrossEntropy(), momentum, weight_decay)
    drawn = [initial_weights(recipe.layers, np.random.default_rng(k)) for k in only]
    weights = [torch.from_numpy(np.stack(arrays)).to(device) for arrays in zip(*drawn, strict=True)]
    each = 2 if optimizer == "adam" else int(momentum > 0)
    moments = [torch.zeros_like(weights[position]) for position in recipe.trained * each]
    # The same for every network.
    masks = [(torch.arange(one[0].numel()) % 3 > 0).view(one[0].shape).expand_as(one) for one in weights]
    for position in recipe.having("scale", "buffer"):  # which no method prunes
        masks[position] = torch.ones_like(masks[position])
    masks = [one.to(device).contiguous() for one in masks] if pruned else []
    for weight, mask in zip(weights, masks, strict=False):
        weight *= mask
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.random((POINTS, *SHAPE), dtype=np.float32)).to(device)
    labels = torch.from_numpy(random.integers(0, 3, POINTS)).to(device)
    rates = torch.tensor([0.5, 0.1, 0.02] if optimizer == "sgd" else [0.02, 0.01, 0.001])[list(only)]
    varying = {name: torch.tensor(values, device=device)[list(only)] for name, values in (axes or {}).items()}
    keys = draws.keys([f"network {k}" for k in only], device)
    members = Members(weights, moments, masks, varying, keys, beside(recipe, only, device))
    return Steps(recipe, members, images, labels, **how), rates


def beside(recipe: Recipe, only: Sequence[int], device: str) -> Members | None:
    """The generators of some networks, if the recipe has any."""
    if recipe.generator is None:
        return None
    drawn = [initial_weights(recipe.generator.layers, np.random.default_rng([k, 1])) for k in only]
    weights = [torch.from_numpy(np.stack(arrays)).to(device) for arrays in zip(*drawn, strict=True)]
    each = 2 if recipe.optimizer == "adam" else int(recipe.momentum > 0)
    return Members(weights, [torch.zeros_like(weights[position]) for position in recipe.generator.trained * each])


def trained(
    steps: Steps, rates: torch.Tensor, epochs: int = 3, only: Sequence[int] = range(NETWORKS), first: int = 0
) -> list[torch.Tensor]:
    """The losses of some epochs, whose orders are always the same for a network."""
    per_epoch, losses = steps.rates.shape[1], []
    for epoch in range(first, first + epochs):
        keys = [[k, epoch] for k in only]
        own, others = ([np.random.default_rng([*one, *more]).permutation(POINTS) for one in keys] for more in ([], [1]))
        beside = np.stack(others) if steps.members.generators else None
        losses.append(steps.epoch(np.stack(own), rates, epoch * per_epoch, beside))
    return losses


def coder(shape: tuple[int, int, int] = SHAPE) -> AutoEncoder:
    """An auto-encoder that learned nothing."""
    coders = Coders(shape, 2, 2)
    return AutoEncoder.of(coders, drawn_weights(coders, np.random.default_rng(0)))


class Traced:
    """Records work as a CUDA graph does: once, without doing it, as operations on tensors that stay where they are.

    The tensors have no values while it records: work that asked for one, to decide something by it, would raise.
    """

    def __init__(self) -> None:
        self.steps: Steps | None = None
        self.graphs: list[torch.fx.GraphModule] = []

    @property
    def tensors(self) -> list[torch.Tensor]:
        s, m, beside = self.steps, self.steps.members, self.steps.members.generators
        keys = [] if m.keys is None else [m.keys]
        counters = s.places, s.before, s.taken
        of_members = *m.weights, *m.moments, *m.masks, *m.axes.values(), *keys
        generators = (*beside.weights, *beside.moments, s.generators_order) if beside else ()
        own = s.recipe.objective.autoencoder
        coders = own.weights if own else ()
        return [*of_members, *generators, *coders, s.images, s.labels, s.order, s.rates, *counters, s.loss]

    @tensors.setter
    def tensors(self, given: Sequence[torch.Tensor]) -> None:
        s, m, rest = self.steps, self.steps.members, iter(given)
        weights, moments, masks = ([next(rest) for _ in many] for many in (m.weights, m.moments, m.masks))
        axes = {name: next(rest) for name in m.axes}
        keys, generators = None if m.keys is None else next(rest), None
        if m.generators:
            own = ([next(rest) for _ in many] for many in (m.generators.weights, m.generators.moments))
            generators, s.generators_order = Members(*own), next(rest)
        s.members = Members(weights, moments, masks, axes, keys, generators)
        if own := s.recipe.objective.autoencoder:
            s.recipe.objective.autoencoder = AutoEncoder(own.coders, [next(rest) for _ in own.weights])
        s.images, s.labels, s.order, s.rates, s.places, s.before, s.taken, s.loss = rest

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        real = self.tensors

        def on(*given: torch.Tensor) -> None:
            self.tensors = given
            work()

        graph = make_fx(on, tracing_mode="fake")(*real)
        self.tensors = real
        self.graphs.append(graph)
        return lambda: graph(*real)


def replayed(*arguments: Any, **how: Any) -> tuple[Steps, torch.Tensor, Traced]:
    recorder = Traced()
    recorder.steps, rates = made(*arguments, **how, record=recorder)
    return recorder.steps, rates, recorder
