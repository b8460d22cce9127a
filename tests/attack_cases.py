"""Networks, images and searches that the tests of attacks share."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from hypothesis import strategies as st

from deltaball.base.implementations import implementation
from deltaball.local.attacks.attack import Attack
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.judge import Verdict
from deltaball.local.notions import ClassChange, Notion, SoftmaxVariation, VariationAbove
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Activation, Dense, Flatten, Layers
from deltaball.networks.models import Model
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers
from deltaball.study.judges import JUDGES

SHAPE = (4, 3, 1)

NORMS = ["linf", "l2", "l1"]

LARGEST = {"linf": 1.0, "l2": math.sqrt(12), "l1": 12.0}

DELTAS = {"linf": [0.0, 0.01, 0.05, 0.2, 1.0], "l2": [0.0, 0.05, 0.3, 1.0], "l1": [0.0, 0.1, 0.8, 3.0]}

EVERY = [(norm, delta) for norm in NORMS for delta in DELTAS[norm]]

JUDGED = (ClassChange(), SoftmaxVariation(), VariationAbove(0.3))

SHORT = Pgd(steps=10)


def linear_pack(classes: int, networks: int, seed: int = 0, scale: float = 0.5) -> Pack:
    random = np.random.default_rng(seed)
    inputs = math.prod(SHAPE)
    weights = [
        [
            random.normal(0, scale, (inputs, classes)).astype(np.float32),
            random.normal(0, 0.1, classes).astype(np.float32),
        ]
        for _ in range(networks)
    ]
    return Pack.of(Layers(SHAPE, (Flatten(), Dense(classes))), weights)


def images(count: int, seed: int = 0, shape: tuple[int, ...] = SHAPE, beyond: float = 0.2) -> torch.Tensor:
    """Images of which some pixels lie on the border of [0, 1]; away from it if `beyond` is negative."""
    drawn = np.random.default_rng(seed).uniform(-beyond, 1 + beyond, (count, *shape)).clip(0, 1)
    return torch.from_numpy(drawn.astype(np.float32))


def deep_pack(networks: int, activation: str = "tanh", architecture: str = "cnn", scale: float = 1.0) -> Pack:
    axes = {"fc_depth": 1, "fc_width": 16, "filters": 4, "kernel": 3, "conv_depth": 1, "depth": 2, "width": 24}
    found = layers(architecture, {**axes, "activation": activation}, (8, 8, 1), 10)
    weights = [initial_weights(found, np.random.default_rng(k)) for k in range(networks)]
    return Pack.of(found, [[scale * weight for weight in one] for one in weights])


def digits(count: int, seed: int = 0) -> torch.Tensor:
    levels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1))
    return torch.from_numpy(levels.astype(np.float32) / np.float32(255))


def found_by(
    attack: Attack,
    pack: Pack,
    x: torch.Tensor,
    asked: Mapping[Ball, Sequence[Notion]],
    keys: Sequence[int] | None = None,
) -> dict[tuple[Ball, Notion], Verdict]:
    results = attack(pack, x, asked, range(len(x)) if keys is None else keys)
    return {(ball, notion): found for ball, notion, found in results}


def one_found(attack: Attack, pack: Pack, x: torch.Tensor, ball: Ball, notion: Notion) -> Verdict:
    ((_, found),) = found_by(attack, pack, x, {ball: [notion]}).items()
    return found


class Function(Model):
    """K networks that are any function of images [K, n, h, w, c]; it may note what it is shown."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], networks: int) -> None:
        self.function, self.networks = function, networks

    def __len__(self) -> int:
        return self.networks

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)

    @property
    def numbers(self) -> int:
        return 1

    def one(self, k: int) -> "Function":
        return Function(lambda x: self.function(x.expand(self.networks, *x.shape[-4:]))[k : k + 1], 1)


def serves(attack: Attack, notion: Notion) -> bool:
    """Whether the table of judges lets an attack judge by a notion."""
    (entry,) = (one for one in JUDGES.values() if implementation(one.implementation) is type(attack))
    return not entry.refuses(notion.entry, "linf")


def scores(pack: Pack, k: int) -> Callable[[np.ndarray], np.ndarray]:
    """A linear network in float64."""
    kernel, bias = (weight[k].numpy().astype(np.float64) for weight in pack.weights)
    return lambda flat: flat @ kernel + bias


def sides(pack: Pack, k: int, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of a linear network with two classes: its margin at each point, and the row that the margin is linear in."""
    kernel = pack.weights[0][k].numpy().astype(np.float64)
    values = scores(pack, k)(x.flatten(1).numpy().astype(np.float64))
    side = np.where(values[:, 0] > values[:, 1], 1.0, -1.0)
    return np.abs(values[:, 0] - values[:, 1]), side[:, None] * (kernel[:, 0] - kernel[:, 1])


def through_the_middle(pack: Pack) -> Pack:
    """A linear network of two classes, moved so that they are equal where all pixels are ½."""
    kernel, bias = pack.weights
    return Pack(pack.layers, (kernel, bias - (kernel / 2).sum(1) - bias))


def hand_pack(kernel: float, bias: float) -> Pack:
    """One pixel x, one hidden unit relu(kernel x + bias), logits (1, unit)."""
    weights = [[[kernel]], [bias], [[0.0, 1.0]], [1.0, 0.0]]
    sequence = (Flatten(), Dense(1), Activation("relu"), Dense(2))
    return Pack.of(Layers((1, 1, 1), sequence), [[np.float32(one) for one in weights]])


nets = st.fixed_dictionaries(
    {
        "activation": st.sampled_from(["relu", "tanh", "sigmoid"]),
        "architecture": st.sampled_from(["fcn", "cnn"]),
        "scale": st.sampled_from([1.0, 3.0, 30.0]),
    }
)
