"""Random starts, early exit, and what stays in the ball."""

import pytest
import torch
from attack_cases import JUDGED, NORMS, SHORT, Function, deep_pack, digits, found_by, hand_pack, nets
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.local import points
from deltaball.local.attacks import attack as base
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.notions import ClassChange, SoftmaxVariation


@given(nets, st.sampled_from(NORMS))
@settings(max_examples=6)
def test_early_exit_changes_nothing(net: dict, norm: str):
    pack, x = deep_pack(3, **net), digits(160)
    ball = Ball(norm, {"linf": 0.1, "l2": 0.8, "l1": 4.0}[norm])
    for kinds in (JUDGED, JUDGED[:1], JUDGED[2:]):
        with_, without = (found_by(Pgd(10, early_exit=one), pack, x, {ball: kinds}) for one in (True, False))
        for asked in with_:
            assert torch.equal(with_[asked].outcome, without[asked].outcome)
            assert torch.equal(with_[asked].perturbed, without[asked].perturbed)


def test_early_exit_leaves_points_alone():
    pack, x, seen = deep_pack(3, scale=2.0), digits(160), []

    def counting(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.shape[1])
        return pack(images)

    found = list(Pgd(10)(Function(counting, 3), x, {Ball("linf", 0.03): [ClassChange()]}, range(160)))
    assert 0 < found[0][2].outcome.mean() < 0.5
    assert seen[:2] == [160, 160]  # the points, and FGSM's
    assert seen[-1] == 160  # the judgement
    assert 0 < max(seen[3:-1]) < 160
    assert all(count % 32 == 0 for count in seen)
    seen.clear()
    list(Pgd(10, early_exit=False)(Function(counting, 3), x, {Ball("linf", 0.03): [ClassChange()]}, range(160)))
    # Per restart one for each step and one for the last image; FGSM's gradient and the judgement besides.
    assert seen == [160] * (2 * 11 + 2)


def test_a_point_has_its_own_random_starts():
    # Two copies of one image under different keys, in networks whose gradients are dead at the image itself.
    pack, x, ball = hand_pack(8.0, -6.0), torch.full((64, 1, 1, 1), 0.5), Ball("linf", 0.5)
    one, same, other = (
        found_by(Pgd(5, restarts=2), pack, x, {ball: [SoftmaxVariation()]}, keys)[ball, SoftmaxVariation()].outcome
        for keys in (range(64), range(64), range(64, 128))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len(one.unique()) > 1


@pytest.mark.parametrize("norm", NORMS)
def test_a_larger_ball_that_was_not_asked_for_changes_nothing(norm: str):
    pack, x = deep_pack(2), digits(32)
    small, large = Ball(norm, 0.05), Ball(norm, 0.5)
    alone = found_by(SHORT, pack, x, {small: [ClassChange()]})[small, ClassChange()]
    beside = found_by(SHORT, pack, x, {large: JUDGED, small: JUDGED[::-1]})[small, ClassChange()]
    assert torch.equal(alone.perturbed, beside.perturbed)


@pytest.mark.parametrize("norm", NORMS)
def test_a_search_stays_where_nothing_needs_to_be_brought_back(norm: str, monkeypatch: pytest.MonkeyPatch):
    """What is judged on the way must be what is judged at the end."""
    kept = []
    original = base.contained

    def watched(candidate: torch.Tensor, points: points.Points, ball: Ball) -> torch.Tensor:
        kept.append(ball.around(points.x).contains(candidate).all().item())
        return original(candidate, points, ball)

    monkeypatch.setattr(base, "contained", watched)
    for delta in (1e-6, 0.01, 0.1, 2.0):
        found_by(SHORT, deep_pack(2), digits(32), {Ball(norm, delta): JUDGED})
    assert kept == [True] * 12
