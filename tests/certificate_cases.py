"""Networks, balls and bounds that the tests of certificates share."""

from itertools import pairwise

import numpy as np
import torch

from deltaball.local.balls import Ball, Neighbourhood
from deltaball.local.certificates.crown import backward, layer_bounds
from deltaball.local.certificates.differences import differences
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Activation, Dense, Flatten, Layers
from deltaball.networks.packs import Pack, logits
from deltaball.study.architectures import layers

CLASSES = 4

# Odd rows and columns to drop, an even kernel, several channels, three pools, convolutions without a pool between.
CNN = {"fc_depth": 1, "fc_width": 9, "filters": 3, "kernel": 3, "conv_depth": 1}

SHAPES = {
    "fcn 1": ("fcn", {"depth": 1, "width": 12}, (4, 3, 2)),
    "fcn 3": ("fcn", {"depth": 3, "width": 8}, (4, 3, 1)),
    "cnn 1": ("cnn", CNN, (7, 6, 2)),
    "cnn 2, even kernel": ("cnn", {**CNN, "conv_depth": 2, "kernel": 4}, (9, 7, 1)),
    "cnn 3": ("cnn", {**CNN, "conv_depth": 3, "kernel": 2}, (11, 9, 1)),
    "vgg": ("vgg", {**CNN, "filters": 2, "kernel": 3}, (5, 6, 1)),
}

RADII = {"linf": [0.002, 0.03, 0.3], "l2": [0.01, 0.2, 1.5], "l1": [0.03, 0.5, 4.0]}

BALLS = [Ball(norm, delta) for norm, deltas in RADII.items() for delta in deltas]

PAIRS = ~torch.eye(CLASSES, dtype=torch.bool)


def drawn_pack(found: Layers, networks: int = 2, seed: int = 0, gain: float = 1.5) -> Pack:
    """Networks with biases, and with kernels `gain` times as large as Glorot's."""

    def drawn(random: np.random.Generator) -> list[np.ndarray]:
        moved = []
        for one in initial_weights(found, random):
            if one.ndim > 1:
                moved.append(one * np.float32(gain))
                continue
            noise = random.normal(0, 0.3, one.shape).astype(np.float32)
            moved.append(np.exp(noise) if one.any() else noise)  # scales and variances stay positive
        return moved

    return Pack.of(found, [drawn(np.random.default_rng((seed, k))) for k in range(networks)])


def drawn_images(shape: tuple[int, ...], *counts: int, seed: int = 0) -> torch.Tensor:
    """Images of which some pixels lie on the border of [0, 1]."""
    drawn = np.random.default_rng(seed).uniform(-0.2, 1.2, (*counts, *shape)).clip(0, 1)
    return torch.from_numpy(drawn.astype(np.float32))


def case(name: str, activation: str, seed: int = 0, gain: float = 1.5) -> tuple[Pack, torch.Tensor]:
    architecture, axes, shape = SHAPES[name]
    found = layers(architecture, {**axes, "activation": activation}, shape, CLASSES)
    return drawn_pack(found, seed=seed, gain=gain), drawn_images(shape, 2, seed=seed)


def exactly(pack: Pack) -> Pack:
    """The same networks in float64."""
    return Pack(pack.layers, tuple(weight.double() for weight in pack.weights))


def sampled(pack: Pack, around: Neighbourhood, count: int) -> torch.Tensor:
    """float32 images [count, n, h, w, c] of each ball: extreme along random directions and along gradients, and between
    those and the centre."""
    x = around.x
    leaf = x.clone().requires_grad_()
    output = pack(leaf)
    gradients = [
        sign * torch.autograd.grad(output[k, :, i].sum() - output[k, :, j].sum(), leaf, retain_graph=True)[0]
        for k in range(len(pack))
        for i, j in pairwise(range(CLASSES))
        for sign in (1, -1)
    ]
    random = torch.Generator().manual_seed(0)
    directions = torch.randn(count - len(gradients), *x.shape, generator=random)
    steepest = around.steepest(torch.cat([torch.stack(gradients), directions]))
    steps = torch.rand(count, len(x), 1, 1, 1, generator=random)
    steps[: count // 2] = 1
    found = around.project(x + steps * (steepest - x))
    assert around.contains(found).all()
    return found


def entering(pack: Pack, x: torch.Tensor) -> list[torch.Tensor]:
    """What enters each Activation layer at images x [n, h, w, c]: [K, n, units]."""
    found, before, weights = [], [], []
    for layer, _, own in pack.layers.with_weights(pack.weights):
        if isinstance(layer, Activation):
            flat = before if Flatten() in before else [*before, Flatten()]
            found.append(logits(Layers(pack.layers.shape, tuple(flat)), weights, x))
        before.append(layer)
        weights.extend(own)
    return found


def pairs(output: torch.Tensor) -> torch.Tensor:
    """Differences of logits [..., classes] of all pairs."""
    return output[..., :, None] - output[..., None, :]


def all_rows(networks: int, points: int) -> torch.Tensor:
    """Rows [K, n, classes², classes] of all differences of logits."""
    identity = torch.eye(CLASSES, dtype=torch.float64)
    return pairs(identity.T).movedim(0, -1).flatten(0, 1).expand(networks, points, -1, -1)


def bounded(pack: Pack, around: Neighbourhood, by: str = "crown", **more) -> torch.Tensor:
    """CROWN's differences [K, n, classes, classes], no allowance for rounding subtracted."""
    bounds = layer_bounds(pack, around, by)
    rows = all_rows(len(pack), around.x.shape[-4])
    lower = backward(pack, around, rows, bounds, **more)
    return lower.unflatten(-1, (CLASSES, CLASSES))


def one_pixel(hidden: list[tuple[float, float]], outputs: list[list[float]], activation: str) -> Pack:
    """One pixel, hidden units (weight, bias), logits outputs[unit][class] without bias."""
    sequence = (Flatten(), Dense(len(hidden)), Activation(activation), Dense(len(outputs[0])))
    kernel, bias = np.array(hidden, np.float32).T
    weights = [kernel[None], bias, np.array(outputs, np.float32), np.zeros(len(outputs[0]), np.float32)]
    return Pack.of(Layers((1, 1, 1), sequence), [weights])


def first_minus_second(pack: Pack, ball: Ball, by: str) -> float:
    return differences(pack, torch.full((1, 1, 1, 1), 0.5), ball, by, every=True)[0, 0, 0, 1].item()
