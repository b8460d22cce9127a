"""What every attack keeps to: what it finds is there, alone as in company, whatever the network."""

import math

import numpy as np
import pytest
import torch
from attack_cases import (
    JUDGED,
    NORMS,
    SHAPE,
    SHORT,
    Function,
    deep_pack,
    digits,
    found_by,
    hand_pack,
    images,
    linear_pack,
    nets,
    one_found,
    serves,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.local.attacks.attack import Attack
from deltaball.local.attacks.bg import Bg
from deltaball.local.attacks.ensemble import Ensemble
from deltaball.local.attacks.fgsm import Fgsm
from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.losses import margin
from deltaball.local.notions import ClassChange, Margin, SoftmaxVariation, VariationAbove
from deltaball.local.references import Reference


@given(nets, st.sampled_from(NORMS), st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=15)
def test_what_is_found_is_there_and_pgd_is_nowhere_weaker(net: dict, norm: str, share: float, seed: int):
    pack, x = deep_pack(2, **net), digits(32, seed)
    ball = Ball(norm, share * {"linf": 0.2, "l2": 1.5, "l1": 8.0}[norm])
    weak, strong = (found_by(method, pack, x, {ball: JUDGED}) for method in (Fgsm(), SHORT))
    closest = found_by(Fmn(10), pack, x, {ball: [ClassChange(), Margin(ball.delta)]})
    around, at_point = ball.around(x), pack(x)
    for results in (weak, strong, closest):
        for (_, notion), found in results.items():
            assert around.contains(found.perturbed).all()
            fresh = notion.outcome(Reference.output(at_point), pack(found.perturbed), around.distance(found.perturbed))
            assert torch.equal(found.outcome, fresh)
            assert not found.perturbed.requires_grad
    for asked in strong:
        worst = asked[1].worst(weak[asked].outcome, strong[asked].outcome)
        assert torch.equal(strong[asked].outcome, worst)


@pytest.mark.parametrize("norm", NORMS)
def test_every_iterate_is_judged(norm: str):
    """What PGD finds is the worst of all images that it ever showed the networks."""
    pack, x, seen = deep_pack(2, scale=2.0), digits(32), []

    def watched(images: torch.Tensor) -> torch.Tensor:
        seen.append(pack(images).detach())
        return pack(images)

    ball = Ball(norm, {"linf": 0.05, "l2": 0.3, "l1": 2.0}[norm])
    for notion in JUDGED:
        seen.clear()
        ((_, _, found),) = Pgd(6, restarts=3, early_exit=False)(Function(watched, 2), x, {ball: [notion]}, range(32))
        ever = torch.stack([notion.outcome(Reference.output(seen[0]), one, torch.zeros(())) for one in seen])
        assert torch.equal(found.outcome, ever.amax(0) if notion.entry.violations_raise else ever.amin(0))
        assert notion != SoftmaxVariation() or (found.outcome > ever[1]).any()  # FGSM's point is not all of it


@pytest.mark.parametrize(
    "method", [Fgsm(), SHORT, Fmn(10), Bg(), Ensemble(4, 4)], ids=["fgsm", "pgd", "fmn", "bg", "ensemble"]
)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("architecture", ["fcn", "cnn"])
def test_found_alone_as_in_company(method: Attack, norm: str, architecture: str):
    """Bit for bit: alone or in a pack, whatever the batch, and whatever else is asked."""
    pack, x = deep_pack(3, architecture=architecture, scale=2.0), digits(96)
    notions = [one for one in (*JUDGED, Margin(1.0)) if serves(method, one)]
    balls = [Ball(norm, one * {"linf": 1, "l2": 10, "l1": 50}[norm]) for one in (0.03, 0.0, 0.1)]
    keys = [7 * one + 3 for one in range(96)]
    together = found_by(method, pack, x, dict.fromkeys(balls, notions), keys)
    order = np.random.default_rng(0).permutation(96)
    shuffled = found_by(method, pack, x[order], dict.fromkeys(balls, notions), [keys[one] for one in order])
    half = found_by(method, pack.one(1), x[32:64], dict.fromkeys(balls, notions), keys[32:64])
    for asked, found in together.items():
        single = found_by(method, pack, x, {asked[0]: [asked[1]]}, keys)[asked]
        for field in ("perturbed", "outcome", "no_gradient"):
            whole = getattr(found, field)
            assert torch.equal(getattr(single, field), whole)
            assert torch.equal(getattr(shuffled[asked], field), whole[:, order])
            assert torch.equal(getattr(half[asked], field)[0], whole[1, 32:64])
    one = together[balls[0], notions[0]].perturbed
    assert not torch.equal(one[0], one[1])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("method", [Fgsm(), SHORT, Fmn(5)], ids=["fgsm", "pgd", "fmn"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_network_without_numbers_is_nowhere_robust(bad: float, method: Attack, norm: str):
    pack, x = linear_pack(3, 2), images(32)
    healthy = pack.one(0)
    pack.weights[0][1] = bad
    notions = [one for one in (*JUDGED, Margin(0.1)) if serves(method, one)]
    found = found_by(method, pack, x, {Ball(norm, 0.1): notions})
    alone = found_by(method, healthy, x, {Ball(norm, 0.1): notions})
    for (ball, notion), one in found.items():
        assert ball.around(x).contains(one.perturbed).all()
        worst = 1 if notion == SoftmaxVariation() else 0
        assert (one.outcome[1] == worst).all()
        assert torch.equal(one.outcome[0], alone[ball, notion].outcome[0])


def test_ties_are_not_robust():
    """Two equal logits: at the point itself, and at the border that the ball just reaches."""
    tied = linear_pack(2, 1)
    tied.weights[0][..., 1], tied.weights[1][..., 1] = tied.weights[0][..., 0], tied.weights[1][..., 0]
    for method in (Fgsm(), SHORT, Fmn(5)):
        assert not one_found(method, tied, images(32), Ball("linf", 0.1), ClassChange()).outcome.any()
    assert not one_found(Fmn(5), tied, images(32), Ball("linf", 0.1), Margin(0.1)).outcome.any()
    # Logits (1, unit) of relu(4 x - 1) are equal at x = ½ exactly.
    x = torch.full((1, 1, 1, 1), 0.375)
    for method in (Fgsm(), SHORT):
        assert one_found(method, hand_pack(4.0, -1.0), x, Ball("linf", 0.125), ClassChange()).outcome.item() == 0
        assert one_found(method, hand_pack(4.0, -1.0), x, Ball("linf", 0.1249), ClassChange()).outcome.item() == 1


@pytest.mark.parametrize("method", [Fgsm(), SHORT, Fmn(5)], ids=["fgsm", "pgd", "fmn"])
@pytest.mark.parametrize("norm", NORMS)
def test_in_a_ball_of_radius_0_nothing_varies(method: Attack, norm: str):
    pack, x = deep_pack(3), digits(64)
    ranked = pack(x).sort(-1).values
    for (_, notion), found in found_by(method, pack, x, {Ball(norm, 0.0): [ClassChange()]}).items():
        assert torch.equal(found.perturbed, x.expand(3, *x.shape))
        assert torch.equal(found.outcome, (ranked[..., -1] > ranked[..., -2]).float()), notion
    if serves(method, SoftmaxVariation()):
        assert one_found(method, pack, x, Ball(norm, 0.0), SoftmaxVariation()).outcome.abs().max() == 0
        assert one_found(method, pack, x, Ball(norm, 0.0), VariationAbove(0.001)).outcome.min() == 1


def test_an_attack_that_leaves_the_ball_is_brought_back():
    class Wild(Attack):
        def run(self, points, asked):
            for ball, notions in asked.items():
                first = torch.arange(points.images.shape[1])[:, None, None, None] == 0
                yield ball, notions, torch.where(first, torch.nan, points.images + 5)

    pack, x = linear_pack(2, 2), images(3)
    for norm in NORMS:
        ball = Ball(norm, 0.1)
        found = one_found(Wild(), pack, x, ball, ClassChange())
        assert torch.equal(found.perturbed[:, 0], x[:1].expand(2, *SHAPE))
        assert torch.equal(found.perturbed, ball.around(x).project(found.perturbed))
        fresh = ClassChange().outcome(Reference.output(pack(x)), pack(found.perturbed), torch.zeros(()))
        assert torch.equal(found.outcome, fresh)
    torch.testing.assert_close(
        one_found(Wild(), pack, x, Ball("linf", 0.1), ClassChange()).perturbed[:, 1:],
        (x[1:] + 0.1).clamp(max=1).expand(2, 2, *SHAPE),
    )


def test_one_gradient_serves_several_balls():
    pack, x = deep_pack(2), digits(32)
    calls = []

    def counting(images: torch.Tensor) -> torch.Tensor:
        calls.append(images.requires_grad)
        return pack(images)

    asked = dict.fromkeys((Ball("linf", delta) for delta in (0.1, 0.0, 0.03)), JUDGED)
    assert len(list(Fgsm()(Function(counting, 2), x, asked, range(32)))) == 9
    assert calls == [True, False, False, False]  # and each ball's image is judged once for all notions


@pytest.mark.parametrize("method", [Fgsm(), SHORT, Fmn(5)], ids=["fgsm", "pgd", "fmn"])
def test_an_attack_leaves_weights_points_and_modes_alone(method: Attack):
    pack, x = deep_pack(2), digits(32)
    weights, before = [weight.clone() for weight in pack.weights], x.clone()
    for _ in method(pack, x, {Ball("linf", 0.1): [ClassChange()]}, range(32)):
        assert torch.is_grad_enabled()
    with torch.no_grad():
        found = one_found(method, pack, x, Ball("linf", 0.1), ClassChange())
        assert not torch.is_grad_enabled()
    assert torch.equal(x, before)
    assert all(torch.equal(one, other) for one, other in zip(pack.weights, weights, strict=True))
    assert not found.perturbed.requires_grad


def test_any_function_can_be_attacked():
    """The mean of several networks' softmax, as a posterior predicts."""
    pack, x = deep_pack(3, scale=2.0), digits(32)

    def mean(images: torch.Tensor) -> torch.Tensor:
        return pack(images.expand(3, *images.shape[1:])).softmax(-1).mean(0, keepdim=True).log()

    ball = Ball("l2", 0.3)
    ((_, _, found),) = SHORT(Function(mean, 1), x, {ball: [ClassChange()]}, range(32))
    assert found.outcome.shape == (1, 32)
    predicted = mean(x[None]).argmax(-1, keepdim=True)
    assert torch.equal(found.outcome, (margin(mean(found.perturbed), predicted) > 0).float())
    assert 0 < found.outcome.mean() < 1
