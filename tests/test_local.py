"""Local robustness of a point, against closed forms and exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.architectures import Dense, Flatten, layers
from deltaball.local.attacks import Attack, Fgsm, attack
from deltaball.local.neighbourhoods import LinfBall
from deltaball.local.notions import ClassChange, SoftmaxVariation, VariationAbove, margin, notion
from deltaball.packs import Pack, initial_weights

SHAPE = (4, 3, 1)
DELTAS = [0.0, 0.01, 0.05, 0.2, 1.0]


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


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Images of which some pixels lie on the border of [0, 1]."""
    drawn = np.random.default_rng(seed).uniform(-0.2, 1.2, (count, *SHAPE)).clip(0, 1)
    return torch.from_numpy(drawn.astype(np.float32))


def deep_pack(networks: int) -> Pack:
    axes = {"fc_depth": 1, "fc_width": 16, "filters": 4, "kernel": 3, "conv_depth": 1, "activation": "tanh"}
    found = layers("cnn", axes, (8, 8, 1), 10)
    return Pack.of(found, [initial_weights(found, np.random.default_rng(k)) for k in range(networks)])


@pytest.mark.parametrize("delta", DELTAS)
def test_fgsm_of_a_linear_network_is_the_worst_case_in_closed_form(delta: float):
    """Two classes: the margin of the predicted class p against the other, (w_p - w_o)·x + b_p - b_o, is smallest in
    the corner x - δ sign(w_p - w_o), clipped to [0, 1]; without clipping that is δ ‖w_p - w_o‖₁ below."""
    pack, x = linear_pack(2, 3), images(200)
    (perturbed,) = Fgsm()(pack, x, 3, [LinfBall(delta)])
    robust = ClassChange().outcome(pack(x), pack(perturbed)).numpy()
    variation = SoftmaxVariation().outcome(pack(x), pack(perturbed)).numpy()
    for k in range(3):
        kernel, bias = (weight[k].numpy().astype(np.float64) for weight in pack.weights)
        flat = x.reshape(200, -1).numpy().astype(np.float64)
        difference, offset = kernel[:, 0] - kernel[:, 1], bias[0] - bias[1]
        side = np.where(flat @ difference + offset > 0, 1.0, -1.0)
        corner = (flat - delta * side[:, None] * np.sign(difference)).clip(0, 1)
        before = side * (flat @ difference + offset)
        after = side * (corner @ difference + offset)
        assert np.abs(after).min() > 1e-5  # no point so close to the border that float32 could disagree
        np.testing.assert_array_equal(robust[k], after > 0)
        closed = 1 / (1 + np.exp(-before)) - 1 / (1 + np.exp(-after))
        np.testing.assert_allclose(variation[k], np.abs(closed), atol=1e-6)
        assert robust[k].mean() == pytest.approx((after > 0).mean(), abs=1e-6)
        assert variation[k].mean() == pytest.approx(np.abs(closed).mean(), abs=1e-6)


@pytest.mark.parametrize("delta", [0.01, 0.05, 0.1])
def test_away_from_the_border_the_margin_falls_by_delta_times_the_1_norm(delta: float):
    pack = linear_pack(2, 1, seed=3)
    x = torch.from_numpy(np.random.default_rng(1).uniform(0.2, 0.8, (100, *SHAPE)).astype(np.float32))
    (perturbed,) = Fgsm()(pack, x, 1, [LinfBall(delta)])
    predicted = pack(x).argmax(-1, keepdim=True)
    fallen = margin(pack(x), predicted) - margin(pack(perturbed), predicted)
    difference = pack.weights[0][0, :, 0] - pack.weights[0][0, :, 1]
    torch.testing.assert_close(fallen, (delta * difference.abs().sum()).expand(1, 100), rtol=1e-4, atol=1e-5)


def test_the_sample_of_the_closed_form_has_robust_and_violated_points():
    pack, x = linear_pack(2, 3), images(200)
    attacked = Fgsm()(pack, x, 3, [LinfBall(delta) for delta in DELTAS])
    shares = [ClassChange().outcome(pack(x), pack(perturbed)).mean().item() for perturbed in attacked]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1
    assert 0.2 < shares[3] < 0.9
    assert shares[4] < 0.1


def test_the_attacked_class_is_the_predicted_one():
    """Three classes: the step is δ sign(Σ_c softmax_c w_c - w_p), so the predicted class p loses, not the label."""
    pack, x = linear_pack(3, 2, seed=3), images(100)
    (perturbed,) = Fgsm()(pack, x, 2, [LinfBall(0.05)])
    for k in range(2):
        kernel, bias = (weight[k].numpy().astype(np.float64) for weight in pack.weights)
        flat = x.reshape(100, -1).numpy().astype(np.float64)
        scores = flat @ kernel + bias
        softmax = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        predicted = scores.argmax(1)
        assert set(predicted) == {0, 1, 2}
        direction = np.sign(softmax @ kernel.T - kernel.T[predicted])
        expected = (flat + 0.05 * direction).clip(0, 1).reshape(x.shape)
        np.testing.assert_allclose(perturbed[k].numpy(), expected, atol=1e-6)


pixels = st.floats(0, 1, width=32)
radii = st.one_of(st.sampled_from([0.0, 1.0, 0.1, 1 / 255, 8 / 255]), st.floats(0, 1), st.floats(0, 1e-6))
anything = st.floats(allow_nan=False, allow_infinity=True, width=32)


def one_pixel(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32).reshape(1, 1, 1, 1)


@given(pixels, radii, anything)
@settings(max_examples=500)
def test_a_projected_point_is_in_the_ball_and_in_the_unit_interval_exactly(x: float, delta: float, candidate: float):
    ball = LinfBall(delta)
    projected = ball.project(one_pixel(candidate), one_pixel(x))
    value = projected.item()
    assert abs(Fraction(value) - Fraction(x)) <= Fraction(delta)
    assert 0 <= value <= 1
    assert ball.contains(projected, one_pixel(x)).item()


@given(pixels, radii)
@settings(max_examples=500)
def test_the_ball_reaches_as_far_as_float32_can(x: float, delta: float):
    lower, upper = (bound.item() for bound in LinfBall(delta).bounds(one_pixel(x)))
    assert 0 <= lower <= x <= upper <= 1
    below = np.nextafter(np.float32(lower), np.float32(-1)).item()
    above = np.nextafter(np.float32(upper), np.float32(2)).item()
    assert below < 0 or Fraction(x) - Fraction(below) > Fraction(delta)
    assert above > 1 or Fraction(above) - Fraction(x) > Fraction(delta)


@given(pixels, radii, pixels)
@settings(max_examples=300)
def test_a_point_of_the_ball_is_its_own_projection(x: float, delta: float, candidate: float):
    inside = abs(Fraction(candidate) - Fraction(x)) <= Fraction(delta)
    assert LinfBall(delta).contains(one_pixel(candidate), one_pixel(x)).item() == inside
    assert (LinfBall(delta).project(one_pixel(candidate), one_pixel(x)).item() == candidate) == inside


@pytest.mark.parametrize("outside", [-1e-6, 1.000001, 0.5 + 0.1001, 0.5 - 0.1001, float("nan")])
def test_one_pixel_outside_is_outside(outside: float):
    x = torch.full((2, *SHAPE), 0.5)
    candidate = x.expand(3, *x.shape).clone()
    candidate[1, 0, 2, 1, 0] = outside
    ball = LinfBall(0.1 if abs(outside) < 0.9 else 1.0)
    assert ball.contains(candidate, x).tolist() == [[True, True], [False, True], [True, True]]


@pytest.mark.parametrize("delta", DELTAS)
def test_an_attack_stays_in_the_ball_of_real_numbers(delta: float):
    pack = deep_pack(3)
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1)).astype(np.float32) / np.float32(255))
    (perturbed,) = Fgsm()(pack, x, 3, [LinfBall(delta)])
    distance = (perturbed.double() - x.double()).abs()
    assert distance.max() <= delta
    assert perturbed.min() >= 0
    assert perturbed.max() <= 1
    inner = (x > delta) & (x < 1 - delta)
    if delta and inner.any():
        assert distance[:, inner].min() > 0.999 * delta


def test_an_attack_that_leaves_the_ball_is_brought_back():
    class Wild(Attack):
        def run(self, predict, x, balls):
            for _ in balls:
                yield torch.where(torch.arange(x.shape[1])[:, None, None, None] == 0, torch.nan, x + 5)

    pack, x = linear_pack(2, 2), images(3)
    (perturbed,) = Wild()(pack, x, 2, [LinfBall(0.1)])
    assert torch.equal(perturbed[:, 0], x[:1].expand(2, *SHAPE))
    torch.testing.assert_close(perturbed[:, 1:], (x[1:] + 0.1).clamp(max=1).expand(2, 2, *SHAPE))


@pytest.mark.parametrize(
    ("point", "perturbed", "robust"),
    [
        ([2.0, 1.0, 0.0], [2.0, 1.0, 0.0], 1),
        ([2.0, 1.0, 0.0], [1.1, 1.0, 0.0], 1),
        ([2.0, 1.0, 0.0], [1.0, 2.0, 0.0], 0),
        ([2.0, 2.0, 0.0], [9.0, 1.0, 0.0], 0),  # a tie at the point
        ([2.0, 1.0, 0.0], [1.0, 1.0, 0.0], 0),  # a tie at the perturbed point
        ([2.0, 1.0, 0.0], [1.0, 0.0, 1.0], 0),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 0),
        ([2.0, 1.0, 0.0], [math.nan, 1.0, 0.0], 0),
        ([2.0, 1.0, 0.0], [2.0, math.nan, 0.0], 0),
        ([2.0, 1.0, math.nan], [2.0, 1.0, 0.0], 0),
        ([math.nan] * 3, [2.0, 1.0, 0.0], 0),
        ([math.inf, 1.0, 0.0], [math.inf, math.inf, 0.0], 0),
        ([math.inf, math.inf, 0.0], [math.inf, 1.0, 0.0], 0),
        ([-math.inf, -math.inf, -math.inf], [2.0, 1.0, 0.0], 0),
    ],
)
def test_a_class_change_is_anything_but_a_clear_stay(point: list[float], perturbed: list[float], robust: int):
    found = ClassChange().outcome(torch.tensor([point]), torch.tensor([perturbed]))
    assert found.tolist() == [robust]
    assert found.dtype == torch.float32


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=5), st.data())
@settings(max_examples=200)
def test_margin_is_the_lead_over_the_best_other(logits: list[float], data: st.DataObject):
    reference = data.draw(st.integers(0, len(logits) - 1))
    others = [value for index, value in enumerate(logits) if index != reference]
    found = margin(torch.tensor(logits), torch.tensor([reference])).item()
    assert found == np.float32(logits[reference]) - np.float32(max(others))


@given(st.integers(0, 2**32), st.integers(2, 10))
@settings(max_examples=100)
def test_variation_is_the_largest_change_of_any_softmax(seed: int, classes: int):
    point, perturbed = np.random.default_rng(seed).normal(0, 5, (2, 7, classes)).astype(np.float32)

    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    found = SoftmaxVariation().outcome(torch.from_numpy(point), torch.from_numpy(perturbed)).numpy()
    np.testing.assert_allclose(found, np.abs(softmax(point) - softmax(perturbed)).max(1), atol=1e-6)
    assert (0 <= found).all()
    assert (found <= 1).all()


def test_variation_that_is_no_number_counts_as_the_largest():
    point, perturbed = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.nan, 0.0]])
    for one, other in ((point, perturbed), (perturbed, point), (perturbed, perturbed)):
        assert SoftmaxVariation().outcome(one, other).tolist() == [1]
        assert VariationAbove(0.999).outcome(one, other).tolist() == [0]
    infinite = torch.tensor([[math.inf, 0.0]])
    assert SoftmaxVariation().outcome(point, infinite).tolist() == [1]


def test_variation_at_gamma_is_robust_and_above_it_is_not():
    # Softmax of [0, 0] is exactly (½, ½), of [∞-like, 0] exactly (1, 0): a variation of exactly ½.
    point, perturbed = torch.tensor([[0.0, 0.0]]), torch.tensor([[200.0, 0.0]])
    assert SoftmaxVariation().outcome(point, perturbed).tolist() == [0.5]
    assert VariationAbove(0.5).outcome(point, perturbed).tolist() == [1]
    assert VariationAbove(math.nextafter(0.5, 0)).outcome(point, perturbed).tolist() == [1]  # the same in float32
    assert VariationAbove(float(np.nextafter(np.float32(0.5), np.float32(0)))).outcome(point, perturbed).tolist() == [0]
    assert VariationAbove(0.49).outcome(point, perturbed).tolist() == [0]
    assert VariationAbove(0.51).outcome(point, perturbed).tolist() == [1]


def test_in_a_ball_of_radius_0_nothing_varies():
    pack = deep_pack(3)
    x = torch.from_numpy(np.random.default_rng(0).random((40, 8, 8, 1), dtype=np.float32))
    (perturbed,) = Fgsm()(pack, x, 3, [LinfBall(0.0)])
    assert torch.equal(perturbed, x.expand(3, *x.shape))
    at_point = pack(x.expand(3, *x.shape))
    assert SoftmaxVariation().outcome(at_point, pack(perturbed)).abs().max() == 0
    assert VariationAbove(0.001).outcome(at_point, pack(perturbed)).min() == 1
    robust = ClassChange().outcome(at_point, pack(perturbed))
    ranked = at_point.sort(-1).values
    assert torch.equal(robust, (ranked[..., -1] > ranked[..., -2]).float())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_network_without_numbers_is_nowhere_robust(bad: float):
    pack, x = linear_pack(3, 2), images(10)
    pack.weights[0][1] = bad
    (perturbed,) = Fgsm()(pack, x, 2, [LinfBall(0.05)])
    assert not perturbed.isnan().any()
    at_point, at_perturbed = pack(x.expand(2, *x.shape)), pack(perturbed)
    assert ClassChange().outcome(at_point, at_perturbed)[1].max() == 0
    assert VariationAbove(0.9).outcome(at_point, at_perturbed)[1].max() == 0
    assert SoftmaxVariation().outcome(at_point, at_perturbed)[1].min() == 1
    assert not SoftmaxVariation().outcome(at_point, at_perturbed)[0].isnan().any()


def test_a_saturated_network_keeps_its_points():
    # Its gradient is 0 in float32: FGSM finds nothing, which must not become NaN or a random step.
    pack, x = linear_pack(2, 1, scale=1e6), images(20)
    (perturbed,) = Fgsm()(pack, x, 1, [LinfBall(0.1)])
    assert torch.equal(perturbed[0], x)


def test_one_gradient_serves_several_balls():
    pack = deep_pack(2)
    x = torch.from_numpy(np.random.default_rng(0).random((32, 8, 8, 1), dtype=np.float32))
    balls = [LinfBall(delta) for delta in (0.1, 0.0, 0.03)]
    calls = 0

    def counting(images: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return pack(images)

    together = list(Fgsm()(counting, x, 2, balls))
    assert calls == 1
    for ball, perturbed in zip(balls, together, strict=True):
        (alone,) = Fgsm()(pack, x, 2, [ball])
        assert torch.equal(perturbed, alone)


def test_networks_attacked_together_are_attacked_one_by_one():
    pack = deep_pack(3)
    x = torch.from_numpy(np.random.default_rng(0).random((32, 8, 8, 1), dtype=np.float32))
    (together,) = Fgsm()(pack, x, 3, [LinfBall(0.1)])
    for k in range(3):
        one = Pack(pack.layers, tuple(weight[k : k + 1] for weight in pack.weights))
        (alone,) = Fgsm()(one, x, 1, [LinfBall(0.1)])
        assert torch.equal(together[k], alone[0])
    assert not torch.equal(together[0], together[1])


def test_points_attacked_together_are_attacked_one_by_one():
    pack = linear_pack(3, 2)
    x = images(12)
    (together,) = Fgsm()(pack, x, 2, [LinfBall(0.1)])
    for index in range(12):
        (alone,) = Fgsm()(pack, x[index : index + 1], 2, [LinfBall(0.1)])
        assert torch.equal(together[:, index], alone[:, 0])


def test_an_attack_leaves_weights_and_points_alone():
    pack, x = deep_pack(2), torch.rand(8, 8, 8, 1, generator=torch.Generator().manual_seed(0))
    weights, before = [weight.clone() for weight in pack.weights], x.clone()
    with torch.no_grad():
        (perturbed,) = Fgsm()(pack, x, 2, [LinfBall(0.1)])
    assert torch.equal(x, before)
    assert all(torch.equal(one, other) for one, other in zip(pack.weights, weights, strict=True))
    assert not perturbed.requires_grad


def test_names_of_a_study_become_notions_and_attacks():
    assert notion("class_change") == ClassChange()
    assert notion("softmax_variation") == SoftmaxVariation()
    assert notion("variation_above", 0.3) == VariationAbove(0.3)
    assert isinstance(attack("fgsm"), Fgsm)
    sides = [notion(name, 0.5).attacked_side for name in ("class_change", "softmax_variation", "variation_above")]
    assert sides == ["upper", "lower", "upper"]
