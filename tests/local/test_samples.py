"""Means over random images: known shares, the same images for all, and what more draws change."""

import numpy as np
import pytest
import torch
from attack_cases import deep_pack, digits

from deltaball.local.balls import Ball
from deltaball.local.judges import judge
from deltaball.local.label_notions import Classification
from deltaball.local.notions import ClassChange, Notion, SoftmaxVariation
from deltaball.local.output_notions import StandardRobustness
from deltaball.networks.layers import Dense, Flatten, Layers
from deltaball.networks.models import Model
from deltaball.networks.packs import Pack


def mean(model: Model, x: torch.Tensor, ball: Ball, kind: Notion, draws: int, labels: torch.Tensor) -> torch.Tensor:
    ((_, _, verdict),) = judge("uniform", draws=draws)(model, x, {ball: [kind]}, range(len(x)), labels)
    return verdict.outcome


# One pixel, whose logits are 4 pixel - 2 and 0: class 0 from 0.5 on.
PIXEL = Pack.of(Layers((1, 1, 1), (Flatten(), Dense(2))), [[np.float32([[4, 0]]), np.float32([-2, 0])]])


@pytest.mark.parametrize(
    ("kind", "pixel", "delta", "label", "share"),
    [
        (Classification(), 0.4, 0.2, 0, 0.25),  # of [0.2, 0.6]; wrong at the point itself
        (Classification(), 0.4, 0.2, 1, 0.75),
        (ClassChange(), 0.4, 0.2, 0, 0.75),
        (Classification(), 0.9, 0.8, 0, 5 / 9),  # of [0.1, 1]: balls are cut by [0, 1]
        (StandardRobustness(0.4), 0.4, 0.2, 0, 0.5),  # of 4 · 0.2
        (Classification(), 0.4, 0.0, 1, 1.0),
    ],
)
def test_the_share_is_that_of_the_ball(kind: Notion, pixel: float, delta: float, label: int, share: float):
    x, labels = torch.full((8, 1, 1, 1), pixel), torch.full((8,), label)
    found = mean(PIXEL, x, Ball("linf", delta), kind, 2000, labels)
    # Each of 8 points has draws of its own; six standard deviations.
    assert found.unique().numel() > 4 or share == 1
    assert (found - share).abs().max() <= 6 * (share * (1 - share) / 2000) ** 0.5


def test_of_a_variation_the_mean_is_taken_and_it_is_below_the_worst():
    x, labels = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    found = mean(PIXEL, x, Ball("linf", 0.25), SoftmaxVariation(), 4000, labels).item()
    # |1 / (1 + exp(-t)) - 1/2| for t uniform in [-1, 1]: its mean is ln cosh(1/2).
    assert found == pytest.approx(np.log(np.cosh(0.5)), abs=0.01)


def test_images_are_the_same_for_every_network_and_more_draws_add_to_fewer():
    pack, x, ball = deep_pack(3, "relu", "fcn", 2.0), digits(6), Ball("linf", 0.2)
    labels = torch.arange(6)
    whole = mean(pack, x, ball, ClassChange(), 12, labels)
    assert 0 < whole.mean() < 1
    torch.testing.assert_close(mean(pack.one(1), x, ball, ClassChange(), 12, labels)[0], whole[1], rtol=0, atol=1e-6)
    fewer = 8 * mean(pack, x, ball, ClassChange(), 8, labels)
    added = 12 * whole - fewer
    assert (added.round() >= 0).all()
    assert (added.round() <= 4).all()
    torch.testing.assert_close(added, added.round(), rtol=0, atol=1e-4)
