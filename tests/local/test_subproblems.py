"""Bounds of parts of balls: below every image of the part, and better after a few steps."""

import math

import numpy as np
import pytest
import torch

from deltaball.local.balls import Ball
from deltaball.local.certificates.crown import layer_bounds
from deltaball.local.exact import leads
from deltaball.local.subproblems import Relaxations, Subproblems
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.dense_form import affine_layers
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers

SHAPE, CLASSES, POINTS = (2, 3, 1), 3, 3


class Case:
    """A network with its points, and images of their balls with what enters its units."""

    def __init__(self, activation: str, norm: str, seed: int) -> None:
        random = np.random.default_rng(seed)
        found = layers("fcn", {"depth": 3, "width": 5, "activation": activation}, SHAPE, CLASSES)
        weights = [
            random.normal(0, 2 / math.sqrt(math.prod(one.shape[:-1])) if one.role == "kernel" else 0.3, one.shape)
            for one in found.weights
        ]
        pack = Pack.of(found, [[one.astype(np.float32) for one in weights]])
        pack = Pack(pack.layers, tuple(weight.double() for weight in pack.weights))
        x = torch.from_numpy(random.uniform(0, 1, (POINTS, *SHAPE)).astype(np.float32))
        self.around = Ball(norm, {"linf": 0.2, "l1": 0.8}[norm]).around(x)
        bounds = zip(*layer_bounds(pack, self.around, "crown"), strict=True)
        low, high = (torch.cat([one[0] for one in side], -1) for side in bounds)
        affine = affine_layers(pack)
        self.kept = pack(x.double())[0].argmax(-1)
        given = (affine, [activation] * 3, self.around, low, high, leads(self.kept, CLASSES))
        self.exactly, self.quickly = (Relaxations(*given, dtype) for dtype in (torch.float64, torch.float32))
        noise = torch.from_numpy(random.normal(size=(400, *x.shape)))
        images = torch.cat([self.around.project(x + 0.3 * noise), self.around.steepest(noise)]).double()
        values, self.entering = images.flatten(-3), []
        for kernel, bias in affine:
            values = values @ kernel + bias
            self.entering.append(values)
            values = ACTIVATIONS[activation](values)
        self.logits = self.entering.pop()
        self.entering = torch.cat(self.entering, -1)  # [images, points, units]
        self.random = random

    def split(self) -> Subproblems:
        """Each point against each class, with some units split around what one of the images has there."""
        every = torch.cartesian_prod(torch.arange(POINTS), torch.arange(CLASSES - 1))
        some = self.exactly.roots(*every.T)
        places, possible = self.exactly.places(some)
        at = self.entering[self.random.integers(len(self.entering))][some.point]
        chosen = possible & torch.from_numpy(self.random.random(possible.shape) < 0.3)
        multipliers = torch.from_numpy(self.random.exponential(size=places.shape)) * chosen
        return some._replace(
            low=torch.where(chosen & (at >= places), places, some.low),
            high=torch.where(chosen & (at < places), places, some.high),
            choices=torch.from_numpy(self.random.random(some.choices.shape)),
            multipliers=torch.where(at >= places, multipliers, -multipliers),
        )

    def least(self, some: Subproblems) -> torch.Tensor:
        """The smallest margin [B] over the images of the part."""
        inside = ((self.entering[:, some.point] >= some.low) & (self.entering[:, some.point] <= some.high)).all(-1)
        assert inside.any(0).all()
        kept = self.kept[some.point]
        logits, each = self.logits[:, some.point], torch.arange(len(kept))
        margins = logits[:, each, kept] - logits[:, each, some.row + (some.row >= kept)]
        return torch.where(inside, margins, torch.inf).amin(0)


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("seed", range(5))
def test_bounds_are_below_every_image_of_the_part(activation: str, norm: str, seed: int):
    case = Case(activation, norm, seed)
    some = case.split()
    least = case.least(some)
    before = case.exactly.bounds(some).value
    assert (before <= least + 1e-9).all()
    after, moved = case.exactly.improved(some, 20, torch.full_like(before, torch.inf))
    assert (after.value <= least + 1e-9).all()
    assert (after.value >= before).all()
    assert (after.value > before + 1e-3).any()
    # In float32 the same but for rounding.
    quickly = case.quickly.bounds(moved.to(torch.float32)).value
    torch.testing.assert_close(quickly.double(), after.value, atol=1e-4, rtol=1e-4)
