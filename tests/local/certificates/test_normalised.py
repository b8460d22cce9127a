"""Bounds of layers that divide by a deviation of an image's own numbers: group normalisation, standardised images."""

import numpy as np
import pytest
import torch
from certificate_cases import CLASSES, PAIRS, drawn_images, drawn_pack, pairs, sampled
from torch.nn import functional

from deltaball.local.balls import Ball
from deltaball.local.certificates.differences import differences
from deltaball.networks.layers import Activation, Conv, Dense, Flatten, GroupNorm, Layer, Layers, Standardise
from deltaball.networks.packs import Pack

SHAPE = (5, 7, 2)
END = (Flatten(), Dense(CLASSES))
RELU = Activation("relu")
NETWORKS = {
    "groups": (Conv(4, 3), GroupNorm(2), RELU, *END),
    "one group": (Conv(4, 3), GroupNorm(1), RELU, *END),
    "twice": (Conv(4, 3), GroupNorm(2), RELU, Conv(4, 3), GroupNorm(4), RELU, *END),
    "standardised": (Standardise(), Conv(2, 3), RELU, *END),
}


def lower(pack: Pack, x: torch.Tensor, ball: Ball, by: str) -> torch.Tensor:
    return differences(pack, x, ball, by, every=True)[..., PAIRS]


@pytest.mark.parametrize("name", NETWORKS)
def test_of_a_small_ball_crown_is_within_a_few_times_what_images_do(name: str):
    pack, x = drawn_pack(Layers(SHAPE, NETWORKS[name])), drawn_images(SHAPE, 2)
    ball = Ball("linf", 0.001)
    seen = sampled(pack, ball.around(x), 300).flatten(0, 1)
    least = pairs(pack(seen).double()).unflatten(1, (300, 2)).amin(1)[..., PAIRS]
    now, crown = pairs(pack(x).double())[..., PAIRS], lower(pack, x, ball, "crown")
    assert (crown <= least).all()
    # That of a division the two sides are bounded each for itself costs a factor of two or so.
    divisions = sum(isinstance(layer, GroupNorm | Standardise) for layer in NETWORKS[name])
    assert ((now - crown).mean() / (now - least).mean()).item() < 2.5**divisions
    assert (crown > lower(pack, x, ball, "ibp")).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_alpha_crown_is_sound_and_no_looser(name: str):
    pack, x = drawn_pack(Layers(SHAPE, NETWORKS[name]), networks=1), drawn_images(SHAPE, 1)
    ball = Ball("linf", 0.01)
    seen = sampled(pack, ball.around(x), 300).flatten(0, 1)
    least = pairs(pack(seen).double()).amin(1, keepdim=True)[..., PAIRS]
    best = lower(pack, x, ball, "alpha_crown")
    assert (best <= least).all()
    assert (best >= lower(pack, x, ball, "crown")).all()


@pytest.mark.parametrize("by", ["ibp", "crown"])
def test_no_ball_bounds_more_than_any_normalised_number_can_be(by: str):
    """Of m numbers with mean 0 and mean square 1 none is above √(m - 1), whatever they were."""
    kernel = np.diag([1.0, 1.0, 0.0, 0.0]).astype(np.float32)
    layers = Layers((2, 2, 1), (Flatten(), GroupNorm(1, 1e-6), Dense(4, bias=False)))
    pack = Pack.of(layers, [[np.ones(4, np.float32), np.zeros(4, np.float32), kernel]])
    found = differences(pack, torch.full((1, 2, 2, 1), 0.5), Ball("linf", 0.5), by, every=True)[0, 0]
    # Logit 2 is always 0.
    assert -np.sqrt(3) - 0.01 <= found[0, 2].item() <= -np.sqrt(3) + 1e-9


def test_two_numbers_by_hand():
    """x = (a, b) with a > b becomes y = (r, -r) with r = d / √(d² + ε), d = (a - b) / 2, which only d decides."""
    epsilon = 0.04
    layers = Layers((1, 2, 1), (Flatten(), GroupNorm(1, epsilon), Dense(2, bias=False)))
    pack = Pack.of(layers, [[np.ones(2, np.float32), np.zeros(2, np.float32), np.eye(2, dtype=np.float32)]])
    x, delta = torch.tensor([0.8, 0.2]).view(1, 1, 2, 1), 0.1
    least = 0.2 / np.sqrt(0.2**2 + epsilon)  # d is from 0.2 to 0.4
    slowest, fastest = (1 / np.sqrt(d**2 + epsilon) for d in (0.4, 0.2))
    found = {
        by: differences(pack, x, Ball("linf", delta), by, every=True)[0, 0, 0, 1].item() for by in ("ibp", "crown")
    }
    for bound in found.values():
        # c and r are least at different images, as far as the bounds know.
        np.testing.assert_allclose(bound, 2 * 0.2 * slowest, atol=1e-4)
        assert bound <= 2 * least
    assert slowest < fastest


@pytest.mark.parametrize(
    ("layer", "reference"),
    [
        (GroupNorm(2, 1e-3), lambda x, gamma, beta: functional.group_norm(x, 2, gamma, beta, 1e-3)),
        (GroupNorm(1, 1e-5), lambda x, gamma, beta: functional.group_norm(x, 1, gamma, beta, 1e-5)),
        (GroupNorm(6, 1e-6), lambda x, gamma, beta: functional.instance_norm(x, None, None, gamma, beta, eps=1e-6)),
    ],
)
def test_it_is_torchs_group_normalisation(layer: Layer, reference):
    layers = Layers((4, 5, 6), (layer, *END))
    pack, x = drawn_pack(layers, networks=1), drawn_images((4, 5, 6), 3)
    gamma, beta, kernel, bias = (one[0] for one in pack.weights)
    maps = reference(x.permute(0, 3, 1, 2), gamma, beta).permute(0, 2, 3, 1)
    torch.testing.assert_close(pack(x)[0], maps.flatten(1) @ kernel + bias, rtol=1e-4, atol=1e-5)
