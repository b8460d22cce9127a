"""Attacks against closed forms, nets solved by hand and grids of brute force."""

import math

import numpy as np
import pytest
import torch
from attack_cases import (
    DELTAS,
    EVERY,
    JUDGED,
    NORMS,
    SHORT,
    found_by,
    hand_pack,
    images,
    linear_pack,
    one_found,
    scores,
    sides,
)

from deltaball.local.attacks.attack import Attack
from deltaball.local.attacks.fgsm import Fgsm
from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.notions import ClassChange, Margin, SoftmaxVariation, VariationAbove
from deltaball.local.references import Reference
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Activation, Dense, Flatten, Layers
from deltaball.networks.packs import Pack


@pytest.mark.parametrize("method", [Fgsm(), SHORT], ids=["fgsm", "pgd"])
@pytest.mark.parametrize(("norm", "delta"), EVERY)
def test_of_a_linear_network_the_worst_case_is_found(norm: str, delta: float, method: Attack):
    """Two classes: the margin falls by at most -min (w_p - w_o)·(z - x), which the ball knows exactly.

    FGSM lowers the predicted class; where raising it varies the softmax more, PGD may find that too.
    """
    pack, x, ball = linear_pack(2, 3), images(200), Ball(norm, delta)
    found = found_by(method, pack, x, {ball: JUDGED})
    for k in range(3):
        before, row = sides(pack, k, x)
        after = before + ball.around(x).minimum(torch.from_numpy(row)[:, None])[:, 0].numpy()
        clear = np.abs(after) > 1e-5  # float32 may disagree on the others
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(found[ball, ClassChange()].outcome[k].numpy()[clear], (after > 0)[clear])
        raised = before - ball.around(x).minimum(torch.from_numpy(-row)[:, None])[:, 0].numpy()
        low, now, high = (1 / (1 + np.exp(-one)) for one in (after, before, raised))
        varied = found[ball, SoftmaxVariation()].outcome[k].numpy()
        assert (varied >= now - low - 1e-6).all()
        if isinstance(method, Fgsm):
            np.testing.assert_allclose(varied, now - low, atol=1e-6)
        else:
            assert (varied <= np.maximum(now - low, high - now) + 1e-6).all()
        clear = np.abs(varied - 0.3) > 1e-6
        above = found[ball, VariationAbove(0.3)].outcome[k].numpy()
        np.testing.assert_array_equal(above[clear], (varied <= 0.3)[clear])


def test_the_sample_of_the_closed_form_has_robust_and_violated_points():
    pack, x = linear_pack(2, 3), images(200)
    for norm in NORMS:
        found = found_by(Fgsm(), pack, x, {Ball(norm, delta): [ClassChange()] for delta in DELTAS[norm]})
        shares = [one.outcome.mean().item() for one in found.values()]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] == 1
        assert 0.1 < shares[-2] < 0.95
        assert shares[-1] < 0.5


@pytest.mark.parametrize("method", [Fgsm(), SHORT, Fmn()], ids=["fgsm", "pgd", "fmn"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_net_of_one_hidden_unit_by_hand(method: Attack, norm: str):
    """relu(4 x - 1) > 1 exactly for x > ½: points at ½ ± distance are robust exactly within it."""
    pack = hand_pack(4.0, -1.0)
    x = torch.tensor([0.3, 0.4, 0.49, 0.51, 0.6, 1.0]).reshape(-1, 1, 1, 1)
    distances = torch.tensor([0.2, 0.1, 0.01, 0.01, 0.1, 0.5])
    for delta in (0.005, 0.05, 0.15, 0.45):
        found = one_found(method, pack, x, Ball(norm, delta), ClassChange())
        assert torch.equal(found.outcome[0], (distances > delta).float())
    if isinstance(method, Fmn):
        found = one_found(method, pack, x, Ball(norm, 1.0), Margin(1.0))
        torch.testing.assert_close(found.outcome[0], distances, atol=1e-5, rtol=0)
    else:
        varied = one_found(method, pack, x[:1], Ball(norm, 0.1), SoftmaxVariation()).outcome.item()
        # Logits (1, 0.2) become (1, 0.6), the other way (1, 0).
        here, there = (1 / (1 + math.exp(1 - unit)) for unit in (0.2, 0.6))
        assert varied == pytest.approx(there - here, abs=1e-6)


def test_a_unit_that_is_off_has_no_gradient_but_random_starts():
    """relu(4 x - 3) is off at x = ½: no gradient leads to the change at x = 1. PGD's restarts may start close."""
    pack, x, ball = hand_pack(8.0, -6.0), torch.full((64, 1, 1, 1), 0.5), Ball("linf", 0.5)
    still = one_found(Fgsm(), pack, x, ball, ClassChange())
    assert torch.equal(still.perturbed[0], x)
    assert still.no_gradient.all()
    assert still.outcome.all()
    assert one_found(Pgd(10, restarts=1), pack, x, ball, ClassChange()).outcome.all()
    restarted = one_found(Pgd(10, restarts=3), pack, x, ball, ClassChange()).outcome
    assert 0 < restarted.mean() < 1  # each point has its own starts


def test_the_attacked_class_is_the_predicted_one():
    """Three classes: the step is δ sign(Σ_c softmax_c w_c - w_p), so the predicted class p loses, not the label."""
    pack, x = linear_pack(3, 2, seed=3), images(100)
    found = one_found(Fgsm(), pack, x, Ball("linf", 0.05), ClassChange())
    for k in range(2):
        flat = x.flatten(1).numpy().astype(np.float64)
        values, kernel = scores(pack, k)(flat), pack.weights[0][k].numpy().astype(np.float64)
        softmax = np.exp(values) / np.exp(values).sum(1, keepdims=True)
        predicted = values.argmax(1)
        assert set(predicted) == {0, 1, 2}
        direction = np.sign(softmax @ kernel.T - kernel.T[predicted])
        expected = (flat + 0.05 * direction).clip(0, 1).reshape(x.shape)
        np.testing.assert_allclose(found.perturbed[k].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_on_two_pixels_a_grid_finds_no_less_and_attacks_hardly_less(norm: str, activation: str):
    """Brute force over 150 × 150 images."""
    found = Layers((1, 2, 1), (Flatten(), Dense(8), Activation(activation), Dense(3)))
    weights = [[4 * one for one in initial_weights(found, np.random.default_rng(k))] for k in range(4)]
    pack, x = Pack.of(found, weights), images(32, shape=(1, 2, 1))
    ball = Ball(norm, {"linf": 0.15, "l2": 0.2, "l1": 0.25}[norm])
    results = found_by(Pgd(20, restarts=8), pack, x, {ball: [ClassChange(), SoftmaxVariation()]})
    closest = one_found(Fmn(), pack, x, Ball(norm, 2.0), Margin(2.0)).outcome
    side = torch.linspace(0, 1, 150)
    grid = torch.cartesian_prod(side, side).reshape(-1, 1, 1, 2, 1)
    distance = ball.around(x).distance(grid)  # [22500, 32]
    spacing = 1 / 149  # an image is no further than this from one of the grid, in any of the norms
    at_point, at_grid = (one[..., None, :, :] for one in (pack(x), pack(grid.flatten(0, 1))))
    at_grid = at_grid.squeeze(-3)[:, :, None].expand(-1, -1, 32, -1)  # [4, 22500, 32, 3]
    at_point = at_point.expand_as(at_grid)
    kept = ClassChange().outcome(Reference.output(at_point), at_grid, distance)
    nearest = torch.where(kept == 0, distance, 2.0).amin(1)  # [4, 32]
    varied = (
        SoftmaxVariation()
        .outcome(Reference.output(at_point), at_grid, distance)
        .where(distance <= ball.delta, -1.0)
        .amax(1)
    )
    # What an attack finds, the grid finds nearby.
    violated = results[ball, ClassChange()].outcome == 0
    assert (nearest[violated] <= ball.delta + 2 * spacing).all()
    assert (closest >= nearest - 2 * spacing).all()
    slope = torch.tensor([0.5 * np.abs(one[0]).sum() * np.abs(one[2]).max() for one in weights])[:, None]
    by_attack = results[ball, SoftmaxVariation()].outcome
    assert (by_attack <= varied + slope * spacing).all()
    # What the grid finds, attacks hardly ever miss.
    changeable = nearest <= ball.delta
    assert changeable.sum() > (20 if activation != "sigmoid" else 0)
    assert (changeable & ~violated).sum() <= 0.02 * changeable.sum()
    assert (by_attack > varied - 0.01).float().mean() > 0.95
    assert (closest < 1.02 * nearest + 1e-3).float().mean() > 0.8
