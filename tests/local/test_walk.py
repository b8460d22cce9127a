"""The walk through linear regions and exact distances: against closed forms, each other, and neighbouring regions."""

import numpy as np
import pytest
import torch
from attack_cases import hand_pack, images, linear_pack, one_found, sides, through_the_middle
from certificate_cases import drawn_pack

from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.linear_region import LinearRegion
from deltaball.local.attacks.walk import Walk
from deltaball.local.balls import Ball
from deltaball.local.deciding import ExactDistance
from deltaball.local.exact_distance import distances
from deltaball.local.losses import margin
from deltaball.local.nearest import nearest
from deltaball.local.notions import Margin
from deltaball.local.regions import Region, piecewise
from deltaball.networks.layers import Activation, Clamp, Conv, Dense, Flatten, Layers, LeakyReLU, MaxPool
from deltaball.study.architectures import layers

SMALL = (5, 5, 1)
DENSE = layers("fcn", {"depth": 2, "width": 8, "activation": "relu"}, SMALL, 4)
EVERY_PIECE = Layers(
    SMALL, (Conv(2, 3), LeakyReLU(0.1), MaxPool(), Clamp(-0.2, 0.3), Flatten(), Dense(6), Activation("relu"), Dense(4))
)
WHOLE, ASKED = Ball("linf", 1.0), Margin(1.0)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_of_a_linear_network_the_exact_distance_is_that_of_a_hyperplane(norm: str):
    pack, x = through_the_middle(linear_pack(2, 1)), images(4, beyond=-0.3)
    before, row = sides(pack, 0, x)
    exact = torch.from_numpy(before / (np.abs(row).sum(1) if norm == "linf" else np.abs(row).max(1)))
    near = exact < 0.19  # where [0, 1] lets every pixel move so far
    assert near.any()
    for found in (x, one_found(Fmn(), pack, x, Ball(norm, 12.0), Margin(12.0)).perturbed[0]):
        bracket = distances(pack, x, found, norm, 0.01, 10.0)
        assert (bracket.lower <= exact * (1 + 1e-5))[near].all()
        assert (bracket.upper >= exact * (1 - 1e-5))[near].all()
        assert (bracket.upper - bracket.lower <= 0.0101 * bracket.upper)[near].all()
        assert (margin(pack(bracket.witness), pack(x).argmax(-1, keepdim=True))[0] <= 0).all()
    assert (bracket.answers >= 1).all()


def test_where_there_is_no_other_class_the_lower_end_is_all_of_the_images():
    """Logits 1 and relu(x - 0.5): never equal in [0, 1]."""
    x = torch.tensor([0.2, 0.8]).view(2, 1, 1, 1)
    bracket = distances(hand_pack(1.0, -0.5), x, x, "linf", 0.01, 10.0)
    assert (bracket.lower == 1).all()
    assert bracket.upper.isinf().all()
    assert torch.equal(bracket.witness, x)


def test_exact_distances_are_cut_where_the_ball_ends_and_begin_no_nearer_than_any_attacks():
    pack, x = drawn_pack(DENSE, 1, 2), images(6, 2, SMALL)
    whole = one_found(ExactDistance(0.01, 10.0), pack, x, WHOLE, ASKED)
    cut = float(whole.outcome.median())
    nearer = one_found(ExactDistance(0.01, 10.0), pack, x, Ball("linf", cut), Margin(cut))
    beyond = whole.outcome >= cut * 1.01
    assert beyond.any()
    assert (nearer.outcome[beyond] == torch.tensor(cut)).all()
    assert nearer.perturbed[beyond].isnan().all()
    assert ((nearer.outcome / whole.outcome)[~beyond] - 1 <= 0.0102).all()
    for attack in (Fmn(), LinearRegion(), Walk()):
        assert (whole.outcome * 0.99 <= one_found(attack, pack, x, WHOLE, ASKED).outcome * (1 + 1e-5)).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_walk_is_between_the_exact_distance_and_those_of_its_beginnings(seed: int):
    pack, x = drawn_pack(DENSE, 1, seed), images(6, seed, SMALL)
    walked = one_found(Walk(), pack, x, WHOLE, ASKED)
    for attack in (Fmn(), LinearRegion()):
        begun = one_found(attack, pack, x, WHOLE, ASKED).outcome
        assert (walked.outcome <= begun * (1 + 1e-5)).all()
    bracket = distances(pack, x, walked.perturbed[0], "linf", 0.01, 10.0)
    assert (bracket.lower <= walked.outcome[0] * (1 + 1e-6)).all()
    assert (bracket.upper <= walked.outcome[0] * (1 + 1e-6)).all()
    assert (bracket.upper - bracket.lower <= 0.0101 * bracket.upper).all()
    assert (one_found(Walk(programs=2), pack, x, WHOLE, ASKED).outcome >= bracket.lower).all()


def test_neighbours_meet_where_a_piece_ends_and_the_network_is_the_same_there():
    network = piecewise(drawn_pack(EVERY_PIECE, 1, 3))
    crossed = 0
    for point in images(6, 3, SMALL, beyond=-0.1).double():
        region = Region.around(network, point)
        for slack in torch.nonzero(region.gradients(torch.arange(len(region.slacks))).abs().amax(1)).flatten()[::5]:
            beyond = region.beyond(int(slack))
            # The foot of the perpendicular on the border that they share.
            (row,) = region.gradients(slack[None])
            foot = point - (region.slacks[slack] / row.square().sum() * row).view_as(point)
            (ours, held), (theirs, _) = region.at(foot), beyond.at(foot)
            torch.testing.assert_close(held[slack], torch.zeros_like(held[slack]), atol=1e-9, rtol=0)
            torch.testing.assert_close(ours, theirs, atol=1e-8, rtol=0)
            crossed += 1
    assert crossed > 20


def test_the_nearest_image_of_a_region_elsewhere_lies_in_it_and_no_image_of_it_is_nearer():
    pack = drawn_pack(DENSE, 1, 4)
    network, found = piecewise(pack), 0
    points = images(24, 4, SMALL)
    for point, other in zip(points.double(), points.roll(1, 0).double(), strict=True):
        region, kept = Region.around(network, point, other), int(network(point[None])[0, 0].argmax())
        target = int(network(other[None])[0, 0].argmax())
        if target != kept:
            found += 1
            near, every = (nearest(region, kept, target, every_row=whole) for whole in (False, True))
            assert near.distance == pytest.approx(every.distance, rel=1e-5)
            assert near.distance <= float((other - point).abs().max()) * (1 + 1e-6)
            logits, slacks = region.at(point + near.displacement)
            assert (slacks > -1e-6).all()
            assert logits[target] >= logits.max() - 1e-6
    assert found > 5
