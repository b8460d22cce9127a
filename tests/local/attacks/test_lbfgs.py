"""L-BFGS against closed forms, and what it is asked to lead by."""

import numpy as np
import pytest
import torch
from attack_cases import deep_pack, digits, hand_pack, images, linear_pack, one_found, sides, through_the_middle

from deltaball.local.attacks.lbfgs import Lbfgs
from deltaball.local.balls import Ball
from deltaball.local.losses import margin
from deltaball.local.notions import Margin
from deltaball.study.judges import JUDGES, NetworkKind
from deltaball.study.notions import NOTIONS


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_of_a_linear_network_it_is_the_closest_in_l2_to_the_width_of_the_bisection(scale: float):
    pack, x = through_the_middle(linear_pack(2, 1, 0, scale)), images(16, beyond=-0.3)
    before, row = sides(pack, 0, x)
    length = np.linalg.norm(row, axis=1)
    exact = {"l2": before / length, "linf": before * np.abs(row).max(1) / length**2}
    for norm, most in (("l2", 2.0), ("linf", 1.0)):
        found = one_found(Lbfgs(), pack, x, Ball(norm, most), Margin(most)).outcome[0].numpy()
        near = exact["linf"] < 0.29  # where [0, 1] lets every pixel move so far
        assert near.any()
        ratio = found[near] / exact[norm][near]
        # The margin and C are inversely proportional.
        assert (
            ((0.99 < ratio) & (ratio < 1.05)).all() if norm == "linf" else ((1 - 1e-5 < ratio) & (ratio < 1.05)).all()
        )


def test_where_nothing_is_found_the_distance_is_the_largest_and_the_image_the_point_itself():
    """Logits 1 and relu(x - 0.5): never equal in [0, 1]."""
    x = torch.tensor([0.2, 0.8]).view(2, 1, 1, 1)
    found = one_found(Lbfgs(), hand_pack(1.0, -0.5), x, Ball("linf", 1.0), Margin(1.0))
    assert (found.outcome == 1.0).all()
    assert torch.equal(found.perturbed[0], x)


@pytest.mark.parametrize(("alpha", "rounded_to"), [(0.2, 0), (0.2, 255)])
def test_what_is_found_leads_by_alpha_on_whole_levels(alpha: float, rounded_to: int):
    pack, x, ball = deep_pack(1, "relu", "fcn"), digits(8), Ball("linf", 1.0)
    predicted = pack(x).argmax(-1, keepdim=True)
    verdict = one_found(Lbfgs(alpha, 1, rounded_to), pack, x, ball, Margin(1.0))
    moved = (verdict.perturbed[0] != x).flatten(1).any(1)
    assert moved.any()
    assert (margin(pack(verdict.perturbed[0]), predicted)[0, moved] <= -alpha * 0.998).all()
    if rounded_to:
        levels = verdict.perturbed[0, moved] * 255
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_what_is_found_is_in_the_ball_and_the_same_alone_and_more_targets_find_what_is_no_further(activation: str):
    pack, x, ball = deep_pack(2, activation, "fcn"), digits(6), Ball("l2", 3.0)
    one, three = (one_found(attack, pack, x, ball, Margin(3.0)) for attack in (Lbfgs(), Lbfgs(targets=3)))
    assert (three.outcome <= one.outcome).all()
    assert (one.outcome < 3).any()
    assert ball.around(x).contains(one.perturbed).all()
    alone = one_found(Lbfgs(), pack.one(1), x[2:4], ball, Margin(3.0))
    assert torch.equal(alone.perturbed[0], one.perturbed[1, 2:4])


def test_what_is_no_class_is_refused():
    entry = JUDGES["lbfgs"]
    for norm in ("linf", "l2", "l1"):
        assert entry.refuses(NOTIONS["margin"], norm, NetworkKind(layered=False, activations=("tanh",))) is None
        assert "class" in entry.refuses(NOTIONS["softmax_variation"], norm)
