"""Attacks against closed forms, nets solved by hand, grids of brute force, and each other."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.data.datasets import Dataset
from deltaball.local import iterates, points
from deltaball.local.attacks import attack as base
from deltaball.local.attacks import gradients
from deltaball.local.attacks.attack import Attack, Found
from deltaball.local.attacks.fgsm import Fgsm
from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.judges import attack
from deltaball.local.losses import cross_entropy, margin, margin_loss, variation
from deltaball.local.notions import ClassChange, Margin, Notion, SoftmaxVariation, VariationAbove
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Activation, Dense, Flatten
from deltaball.networks.packs import Pack, logits
from deltaball.study.architectures import layers
from deltaball.training import objectives
from deltaball.training.optimizers import sgd_step

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
    return Pack.of((Flatten(), Dense(inputs, classes)), weights)


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
) -> dict[tuple[Ball, Notion], Found]:
    results = attack(pack, x, len(pack), asked, range(len(x)) if keys is None else keys)
    return {(ball, notion): found for ball, notion, found in results}


def one_found(attack: Attack, pack: Pack, x: torch.Tensor, ball: Ball, notion: Notion) -> Found:
    ((_, found),) = found_by(attack, pack, x, {ball: [notion]}).items()
    return found


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


# Closed forms


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


@pytest.mark.parametrize("norm", NORMS)
def test_of_a_linear_network_the_margin_is_the_distance_of_a_hyperplane(norm: str):
    """margin / ‖w_p - w_o‖ in the dual norm, where [0, 1] is far enough."""
    pack, x = through_the_middle(linear_pack(2, 3)), images(100, beyond=-0.3)
    most = LARGEST[norm]
    found = one_found(Fmn(), pack, x, Ball(norm, most), Margin(most))
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    for k in range(3):
        before, row = sides(pack, k, x)
        exact = before / np.linalg.norm(row, dual, axis=1)
        # The nearest image of the other class moves a pixel by no more than 0.29, which [0, 1] allows all of them.
        share = {"linf": 1.0, "l1": 1.0, "l2": np.abs(row).max(1) / np.linalg.norm(row, axis=1)}[norm]
        far = exact * share < 0.29
        assert far.mean() > 0.5
        np.testing.assert_allclose(found.outcome[k].numpy()[far], exact[far], atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_of_a_linear_network_in_the_unit_cube_the_margin_is_nearly_exact(norm: str):
    """The smallest radius at which the exact minimum of the margin is negative, by bisection."""
    pack, x = linear_pack(2, 3), images(60)
    most = LARGEST[norm]
    found = one_found(Fmn(), pack, x, Ball(norm, most), Margin(most)).outcome
    for k in range(3):
        before, row = sides(pack, k, x)
        near, far = np.zeros(60), np.full(60, most)
        for _ in range(50):
            middle = (near + far) / 2
            around = type(Ball(norm, 0.0).around(x))(x, torch.from_numpy(middle))
            after = before + around.minimum(torch.from_numpy(row)[:, None])[:, 0].numpy()
            near, far = np.where(after > 0, middle, near), np.where(after > 0, far, middle)
        assert (found[k].numpy() >= far - 1e-5).all()
        assert np.median(found[k].numpy() / far) < 1.02
        assert np.quantile(found[k].numpy() / far, 0.95) < 1.15


@pytest.mark.parametrize("norm", NORMS)
def test_fmn_changes_the_class_within_a_radius_or_not(norm: str):
    pack, x, largest = linear_pack(2, 2), images(64), Ball(norm, LARGEST[norm])
    distance = one_found(Fmn(), pack, x, largest, Margin(largest.delta)).outcome
    balls = [Ball(norm, distance.quantile(share).item()) for share in (0.2, 0.5, 0.8)]
    found = found_by(Fmn(), pack, x, {ball: [ClassChange()] for ball in balls})
    for ball in balls:
        violated = found[ball, ClassChange()].outcome == 0
        clear = (distance - ball.delta).abs() > 1e-6
        assert torch.equal(violated[clear], (distance <= ball.delta)[clear])
        assert torch.equal(found[ball, ClassChange()].perturbed[~violated], x.expand(2, *x.shape)[~violated])


def test_what_cannot_be_changed_is_robust_and_as_far_as_asked():
    constant = Pack.of((Flatten(), Dense(12, 2)), [[np.zeros((12, 2), np.float32), np.array([1, 0], np.float32)]])
    for norm in NORMS:
        found = found_by(Fmn(10), constant, images(8), {Ball(norm, 0.7): [ClassChange(), Margin(0.7)]})
        assert [one.outcome.unique().tolist() for one in found.values()] == [[1.0], [pytest.approx(0.7)]]


def hand_pack(kernel: float, bias: float) -> Pack:
    """One pixel x, one hidden unit relu(kernel x + bias), logits (1, unit)."""
    weights = [[[kernel]], [bias], [[0.0, 1.0]], [1.0, 0.0]]
    return Pack.of((Flatten(), Dense(1, 1), Activation("relu"), Dense(1, 2)), [[np.float32(one) for one in weights]])


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
        torch.testing.assert_close(found.outcome[0], distances, atol=1e-6, rtol=0)
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


# Steps and balls in float32


def test_an_l1_step_moves_the_steepest_pixels_that_can_move():
    x = torch.tensor([1.0] * 8 + [0.5, 0.5, 0.5, 0.0]).reshape(1, 1, *SHAPE)
    gradient = torch.tensor([9.0] * 8 + [4.0, -3.0, 2.0, -5.0]).reshape(x.shape)
    for length, moved in ((0.2, [0.7, 0.5, 0.5]), (0.8, [1.0, 0.2, 0.5]), (9.0, [1.0, 0.0, 1.0])):
        stepped = iterates.stepped("l1", x, gradient.clone(), length).flatten()
        torch.testing.assert_close(stepped, torch.tensor([1.0] * 8 + [*moved, 0.0]))


@pytest.mark.parametrize("length", [0.3, torch.tensor([[0.3, 0.3]])])
def test_a_step_has_its_length(length: float | torch.Tensor):
    x, gradient = torch.full((1, 2, *SHAPE), 0.5), torch.randn(1, 2, *SHAPE, generator=torch.manual_seed(0))
    for norm in NORMS:
        for scale in (1.0, 1e-30, 1e30):
            moved = iterates.stepped(norm, x, scale * gradient, length) - x
            torch.testing.assert_close(iterates.length_in(norm, moved), torch.full((1, 2), 0.3))
            assert (moved * gradient >= 0).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("radius", [0.0, 0.05, 0.5, 3.0])
def test_a_retracted_image_is_inside_and_one_inside_stays(norm: str, radius: float):
    x = images(50)
    around = Ball(norm, radius).around(x)
    for scale in (0.01, 0.1, 1.0):
        beyond = x + scale * torch.randn(x.shape, generator=torch.manual_seed(0))
        found = iterates.retracted(norm, beyond[None].clone(), x[None], radius)[0]
        assert 0 <= found.min()
        assert found.max() <= 1
        assert (around.distance(found) <= radius * (1 + 1e-5) + 1e-6).all()
        inside = around.contains(beyond)
        torch.testing.assert_close(found[inside], beyond[inside], atol=1e-6, rtol=0)
        outside = around.distance(beyond.clamp(0, 1)) > radius
        assert (around.distance(found)[outside] >= 0.999 * radius - 1e-6).all()


def test_a_slope_that_would_vanish_on_its_way_is_scaled():
    """Logits lead by 60 and weights are 1e-20: the product of e⁻⁶⁰ and 1e-20 is below float32."""
    pack = Pack.of((Flatten(), Dense(12, 2)), [[np.full((12, 2), [1e-20, 0], np.float32), np.float32([60, 0])]])
    x = images(4)[None]
    _, gradient = gradients.differentiated(pack, x, pack(x), cross_entropy)
    assert (gradient < 0).all()
    assert one_found(Fgsm(), pack, x[0], Ball("linf", 0.1), ClassChange()).no_gradient.all()


@pytest.mark.parametrize("norm", NORMS)
def test_where_a_loss_is_flat_the_margin_takes_its_place(norm: str):
    # The variation has no slope at the point itself, where logits are not changed.
    pack, x = deep_pack(2), digits(32).expand(2, 32, 8, 8, 1)
    found, expected = (gradients.differentiated(pack, x, pack(x), loss)[1] for loss in (variation, margin_loss))
    assert found.flatten(2).abs().amax(-1).min() > 0
    torch.testing.assert_close(iterates.stepped(norm, x, found, 0.1), iterates.stepped(norm, x, expected, 0.1))


# Invariants

nets = st.fixed_dictionaries(
    {
        "activation": st.sampled_from(["relu", "tanh", "sigmoid"]),
        "architecture": st.sampled_from(["fcn", "cnn"]),
        "scale": st.sampled_from([1.0, 3.0, 30.0]),
    }
)


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
            fresh = notion.outcome(at_point, pack(found.perturbed), around.distance(found.perturbed))
            assert torch.equal(found.outcome, fresh)
            assert not found.perturbed.requires_grad
    for asked in strong:
        worst = asked[1].worst(weak[asked].outcome, strong[asked].outcome)
        assert torch.equal(strong[asked].outcome, worst)


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

    found = list(Pgd(10)(counting, x, 3, {Ball("linf", 0.03): [ClassChange()]}, range(160)))
    assert 0 < found[0][2].outcome.mean() < 0.5
    assert seen[:2] == [160, 160]  # the points, and FGSM's
    assert seen[-1] == 160  # the judgement
    assert 0 < max(seen[3:-1]) < 160
    assert all(count % 32 == 0 for count in seen)
    seen.clear()
    list(Pgd(10, early_exit=False)(counting, x, 3, {Ball("linf", 0.03): [ClassChange()]}, range(160)))
    # Per restart one for each step and one for the last image; FGSM's gradient and the judgement besides.
    assert seen == [160] * (2 * 11 + 2)


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
        ((_, _, found),) = Pgd(6, restarts=3, early_exit=False)(watched, x, 2, {ball: [notion]}, range(32))
        ever = torch.stack([notion.outcome(seen[0], one, torch.zeros(())) for one in seen])
        assert torch.equal(found.outcome, ever.amin(0) if notion.attacked_side == "upper" else ever.amax(0))
        assert notion != SoftmaxVariation() or (found.outcome > ever[1]).any()  # FGSM's point is not all of it


@pytest.mark.parametrize("method", [Fgsm(), SHORT, Fmn(10)], ids=["fgsm", "pgd", "fmn"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("architecture", ["fcn", "cnn"])
def test_found_alone_as_in_company(method: Attack, norm: str, architecture: str):
    """Bit for bit: alone or in a pack, whatever the batch, and whatever else is asked."""
    pack, x = deep_pack(3, architecture=architecture, scale=2.0), digits(96)
    notions = [one for one in (*JUDGED, Margin(1.0)) if isinstance(one, method.notions)]
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
    original = base._contained

    def watched(candidate: torch.Tensor, points: points.Points, ball: Ball) -> torch.Tensor:
        kept.append(ball.around(points.x).contains(candidate).all().item())
        return original(candidate, points, ball)

    monkeypatch.setattr(base, "_contained", watched)
    for delta in (1e-6, 0.01, 0.1, 2.0):
        found_by(SHORT, deep_pack(2), digits(32), {Ball(norm, delta): JUDGED})
    assert kept == [True] * 12


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_on_two_pixels_a_grid_finds_no_less_and_attacks_hardly_less(norm: str, activation: str):
    """Brute force over 150 × 150 images."""
    found = (Flatten(), Dense(2, 8), Activation(activation), Dense(8, 3))
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
    kept = ClassChange().outcome(at_point, at_grid, distance)
    nearest = torch.where(kept == 0, distance, 2.0).amin(1)  # [4, 32]
    varied = SoftmaxVariation().outcome(at_point, at_grid, distance).where(distance <= ball.delta, -1.0).amax(1)
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


# Saturated, dead and broken networks


@pytest.fixture(scope="module")
def digits_pack(few: Dataset) -> tuple[Pack, torch.Tensor]:
    """Four FCNs trained on small digits, and 64 of the digits that they were trained on."""
    found = layers("fcn", {"depth": 1, "width": 32, "activation": "relu"}, few.x_train.shape[1:], 10)
    weights = Pack.of(found, [initial_weights(found, np.random.default_rng(k)) for k in range(4)]).weights
    x, y = torch.from_numpy(few.x_train), torch.from_numpy(few.y_train)
    for _ in range(150):
        weights = tuple(weight.requires_grad_() for weight in weights)
        gradients = torch.autograd.grad(objectives.cross_entropy(logits(found, weights, x), y).sum(), weights)
        with torch.no_grad():
            sgd_step(weights, gradients, torch.full((4,), 0.2))
    return Pack(found, tuple(weight.detach() for weight in weights)), x[:96]


def scaled(pack: Pack, factor: float) -> Pack:
    """The same network with its logits multiplied."""
    return Pack(pack.layers, (*pack.weights[:-2], *(factor * weight for weight in pack.weights[-2:])))


@pytest.mark.parametrize("norm", NORMS)
def test_a_saturated_network_looks_no_more_robust(digits_pack: tuple[Pack, torch.Tensor], norm: str):
    pack, x = digits_pack
    ball = Ball(norm, {"linf": 0.06, "l2": 0.5, "l1": 3.0}[norm])
    robust = {
        factor: one_found(Pgd(), scaled(pack, factor), x, ball, ClassChange()).outcome.mean(1)
        for factor in (1, 30, 1000)
    }
    assert 0.1 < robust[1].mean() < 0.9
    for factor in (30, 1000):
        change = (robust[factor] - robust[1]).mean()
        assert change <= 0.02
        assert norm != "linf" or change >= -0.02
        fgsm = [
            one_found(Fgsm(), scaled(pack, one), x, ball, ClassChange()).outcome.mean().item() for one in (1, factor)
        ]
        assert fgsm[1] <= fgsm[0] + 0.05
    plain, saturated = (
        one_found(Fmn(50), scaled(pack, factor), x, Ball(norm, 5.0), Margin(5.0)).outcome for factor in (1, 1000)
    )
    assert (saturated / plain).quantile(0.8) < 1.02


def test_vanished_gradients_are_counted(digits_pack: tuple[Pack, torch.Tensor]):
    pack, x = digits_pack
    asked = {Ball("linf", 0.05): [ClassChange()]}
    shares = {}
    for factor in (1, 1000):
        for method in (Fgsm(), Pgd(3), Fmn(3)):
            (found,) = found_by(method, scaled(pack, factor), x, asked).values()
            shares.setdefault(factor, []).append(found.no_gradient.float().mean().item())
    assert shares[1] == [0, 0, 0]
    assert min(shares[1000]) > 0.9
    assert len(set(shares[1000])) == 1


def test_the_variation_is_raised_from_where_it_has_no_slope(digits_pack: tuple[Pack, torch.Tensor]):
    """At ×1000 the softmax is flat almost everywhere; the margin's slope leads to where it falls."""
    pack, x = digits_pack
    ball, ascent = Ball("linf", 0.06), Pgd(20, restarts=1)
    changed = one_found(ascent, scaled(pack, 1000), x, ball, ClassChange()).outcome == 0
    varied = one_found(ascent, scaled(pack, 1000), x, ball, SoftmaxVariation()).outcome
    assert (varied[changed] > 0.4).float().mean() > 0.95
    assert (varied > 0.5).float().mean() > 0.1


@pytest.mark.parametrize("method", [Fgsm(), SHORT, Fmn(5)], ids=["fgsm", "pgd", "fmn"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_network_without_gradients_keeps_its_points(method: Attack, norm: str):
    dead = linear_pack(2, 2)
    dead.weights[0].zero_()
    (found,) = found_by(method, dead, images(32), {Ball(norm, 0.1): [ClassChange()]}).values()
    assert found.no_gradient.all()
    assert found.outcome.all()
    assert not found.perturbed.isnan().any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("method", [Fgsm(), SHORT, Fmn(5)], ids=["fgsm", "pgd", "fmn"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_network_without_numbers_is_nowhere_robust(bad: float, method: Attack, norm: str):
    pack, x = linear_pack(3, 2), images(32)
    healthy = pack.one(0)
    pack.weights[0][1] = bad
    notions = [one for one in (*JUDGED, Margin(0.1)) if isinstance(one, method.notions)]
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
    if SoftmaxVariation in method.notions:
        assert one_found(method, pack, x, Ball(norm, 0.0), SoftmaxVariation()).outcome.abs().max() == 0
        assert one_found(method, pack, x, Ball(norm, 0.0), VariationAbove(0.001)).outcome.min() == 1


# The template


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
        fresh = ClassChange().outcome(pack(x), pack(found.perturbed), torch.zeros(()))
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
    assert len(list(Fgsm()(counting, x, 2, asked, range(32)))) == 9
    assert calls == [True, False, False, False]  # and each ball's image is judged once for all notions


@pytest.mark.parametrize("method", [Fgsm(), SHORT, Fmn(5)], ids=["fgsm", "pgd", "fmn"])
def test_an_attack_leaves_weights_points_and_modes_alone(method: Attack):
    pack, x = deep_pack(2), digits(32)
    weights, before = [weight.clone() for weight in pack.weights], x.clone()
    for _ in method(pack, x, 2, {Ball("linf", 0.1): [ClassChange()]}, range(32)):
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
    ((_, _, found),) = SHORT(mean, x, 1, {ball: [ClassChange()]}, range(32))
    assert found.outcome.shape == (1, 32)
    predicted = mean(x[None]).argmax(-1, keepdim=True)
    assert torch.equal(found.outcome, (margin(mean(found.perturbed), predicted) > 0).float())
    assert 0 < found.outcome.mean() < 1


def test_what_an_attack_does_not_serve_is_refused():
    for method, notion in ((Fmn(), SoftmaxVariation()), (Fgsm(), Margin(0.1)), (Pgd(), Margin(0.1))):
        with pytest.raises(AssertionError, match="does not serve"):
            one_found(method, linear_pack(2, 1), images(4), Ball("linf", 0.1), notion)


def test_names_of_a_study_become_attacks():
    assert isinstance(attack("fgsm"), Fgsm)
    assert attack("pgd", steps=7, restarts=3) == Pgd(7, 3)
    assert attack("fmn", steps=50) == Fmn(50)
