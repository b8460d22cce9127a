"""The nearest image of a class in a linear region, against closed forms, the program of all rows, and refusals."""

import math

import numpy as np
import pytest
import torch
from attack_cases import hand_pack, images, linear_pack, one_found, sides, through_the_middle
from certificate_cases import drawn_pack

from deltaball.base.errors import InputError
from deltaball.local.attacks.linear_region import LinearRegion, targets
from deltaball.local.balls import Ball
from deltaball.local.losses import margin
from deltaball.local.nearest import nearest
from deltaball.local.notions import Margin
from deltaball.local.regions import Region, piecewise
from deltaball.networks.layers import (
    Activation,
    AveragePool,
    Clamp,
    Conv,
    Dense,
    Flatten,
    Layers,
    LeakyReLU,
    MaxPool,
    Residual,
)
from deltaball.study.architectures import layers
from deltaball.study.judges import JUDGES, NetworkKind
from deltaball.study.notions import NOTIONS

SMALL = (6, 6, 1)
NETWORKS = {
    "dense": layers("fcn", {"depth": 2, "width": 12, "activation": "relu"}, SMALL, 4),
    "pools": Layers(
        SMALL,
        (Conv(3, 3), LeakyReLU(0.1), MaxPool(), Conv(4, 2), LeakyReLU(0.0), AveragePool(), Flatten(), Dense(4)),
    ),
    "clamps and sums": Layers(
        SMALL,
        (Conv(3, 3), Clamp(-0.2, 0.3), Residual((Conv(3, 3), Activation("relu"))), Flatten(), Dense(4)),
    ),
}


@pytest.mark.parametrize("seed", range(3))
def test_of_a_linear_network_it_is_the_distance_of_a_hyperplane(seed: int):
    pack, x = through_the_middle(linear_pack(2, 1, seed)), images(16, seed, beyond=-0.3)
    before, row = sides(pack, 0, x)
    exact = before / np.abs(row).sum(1)
    found = one_found(LinearRegion(), pack, x, Ball("linf", 1.0), Margin(1.0)).outcome[0].numpy()
    far = exact < 0.29  # where [0, 1] lets every pixel move so far
    np.testing.assert_allclose(found[far], exact[far], rtol=1e-3, atol=2e-5)
    assert far.any()


def test_a_region_without_an_image_of_another_class_has_none():
    """Logits 1 and relu(a (x - 0.5)): of a = 1 never equal in [0, 1], of a = 4 at x = 0.75, where the unit is on."""
    x = torch.tensor([0.2, 0.8]).view(2, 1, 1, 1)
    for point in x:
        region = Region.around(piecewise(hand_pack(1.0, -0.5)), point.double())
        assert nearest(region, 0, 1).distance == math.inf
        beyond = Region.around(piecewise(hand_pack(4.0, -2.0)), point.double())
        assert nearest(beyond, 0, 1).distance == math.inf if point < 0.5 else nearest(beyond, 1, 0).distance < 0.06


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_as_needed_give_what_all_rows_give_and_hot_starts_what_cold_ones_do(name: str):
    found, compared = NETWORKS[name], 0
    for seed in range(4):
        pack, x = drawn_pack(found, 1, seed), images(28, seed, SMALL)
        network = piecewise(pack)
        for point in x:
            region = Region.around(network, point.double())
            kept = int(region.logits.argmax())
            target = targets(region, kept)[0]
            lazy = nearest(region, kept, target)
            for other in (nearest(region, kept, target, every_row=True), nearest(region, kept, target, hot=False)):
                assert lazy.distance == pytest.approx(other.distance, rel=1e-5, abs=1e-7)
            compared += 1
            if lazy.distance < math.inf:
                logits, slacks = region.at(region.x + lazy.displacement)
                assert (slacks > -1e-6).all()
                assert logits[target] >= logits.max() - 1e-6
    assert compared == 112


def test_a_search_without_an_answer_says_neither_that_there_is_none_nor_how_far_it_is():
    pack, x, ended = drawn_pack(NETWORKS["dense"], 1, 0), images(8, 0, SMALL), 0
    network = piecewise(pack)
    for point in x:
        region = Region.around(network, point.double())
        kept = int(region.logits.argmax())
        whole, short = (nearest(region, kept, targets(region, kept)[0], iterations=most) for most in (10_000, 2))
        assert not math.isnan(whole.distance)
        if whole.iterations > 2:
            ended += 1
            assert math.isnan(short.distance)
            assert short.displacement.isnan().all()
            assert short.iterations <= 2
    assert ended


@pytest.mark.parametrize("name", NETWORKS)
def test_in_its_region_a_network_is_its_affine_function(name: str):
    pack, x = drawn_pack(NETWORKS[name], 1, 5), images(8, 5, SMALL).double()
    network = piecewise(pack)
    for point, other in zip(x, x.roll(1, 0), strict=True):
        region = Region.around(network, point)
        assert (region.slacks >= 0).all()
        torch.testing.assert_close(region.logits, network(point[None])[0, 0])
        image = torch.lerp(point, other, 0.3)
        logits, slacks = region.at(image)
        every = torch.arange(len(slacks))
        moved = (image - point).flatten()
        torch.testing.assert_close(slacks, region.slacks + region.gradients(every) @ moved)
        torch.testing.assert_close(logits, region.logits + region.logit_gradients() @ moved)


@pytest.mark.parametrize(("alpha", "rounded_to"), [(0.0, 0), (0.2, 0), (0.0, 255), (0.2, 255)])
def test_what_is_handed_back_leads_by_alpha_on_whole_levels_and_is_no_nearer_for_it(alpha: float, rounded_to: int):
    pack, x, ball = drawn_pack(NETWORKS["dense"], 1, 0), images(32, 0, SMALL), Ball("linf", 0.5)
    predicted = pack(x).argmax(-1, keepdim=True)
    nearest_of_all = one_found(LinearRegion(), pack, x, ball, Margin(0.5))
    verdict = one_found(LinearRegion(alpha, 1, rounded_to), pack, x, ball, Margin(0.5))
    images_found, distance = verdict.perturbed[0], (verdict.perturbed[0] - x).abs().flatten(1).amax(1)
    found = distance > 0
    assert found.any()
    logits = pack(images_found)
    assert (margin(logits, predicted)[0, found] <= -alpha * 0.998).all()
    assert (verdict.outcome >= nearest_of_all.outcome - (0.5 / 255 if rounded_to else 1e-5)).all()
    if rounded_to:
        levels = images_found[found] * 255
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)


def test_what_has_no_program_is_refused():
    entry, distance = JUDGES["linear_region"], NOTIONS["margin"]
    assert entry.refuses(distance, "linf") is None
    assert "linf" in entry.refuses(distance, "l2")
    assert "relu" in entry.refuses(distance, "linf", NetworkKind(activations=("tanh",)))
    curved = drawn_pack(layers("fcn", {"depth": 1, "width": 4, "activation": "tanh"}, (8, 8, 1), 3), 1)
    with pytest.raises(InputError, match="tanh is not piecewise linear"):
        piecewise(curved)
