"""Certificates against closed forms, sampled balls, and networks for which they are exact."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from deltaball.local.balls import Ball, Neighbourhood
from deltaball.local.certificates import crown, lines
from deltaball.local.certificates import differences as room
from deltaball.local.certificates.crown import backward, layer_bounds
from deltaball.local.certificates.differences import differences
from deltaball.local.certificates.lines import LINES, pool_lines, relu_lines
from deltaball.local.certificates.rounding import rounding
from deltaball.local.losses import margin_loss, variation
from deltaball.local.notions import ClassChange, SoftmaxVariation
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Activation, Conv, Dense, Flatten, Layers, MaxPool
from deltaball.networks.packs import Pack, logits
from deltaball.study.architectures import layers

CLASSES = 4
# Odd rows and columns to drop, an even kernel, several channels, three pools, convolutions without a pool between.
CNN = {"fc_depth": 1, "fc_width": 9, "filters": 3, "kernel": 3, "conv_depth": 1}
SHAPES = {
    "fcn 1": ("fcn", {"depth": 1, "width": 12}, (4, 3, 2)),
    "fcn 3": ("fcn", {"depth": 3, "width": 8}, (4, 3, 1)),
    "cnn 1": ("cnn", CNN, (7, 6, 2)),
    "cnn 2, even kernel": ("cnn", {**CNN, "conv_depth": 2, "kernel": 4}, (9, 7, 1)),
    "cnn 3": ("cnn", {**CNN, "conv_depth": 3, "kernel": 2}, (11, 9, 1)),
    "vgg": ("vgg", {**CNN, "filters": 2, "kernel": 3}, (5, 6, 1)),
}
RADII = {"linf": [0.002, 0.03, 0.3], "l2": [0.01, 0.2, 1.5], "l1": [0.03, 0.5, 4.0]}
BALLS = [Ball(norm, delta) for norm, deltas in RADII.items() for delta in deltas]
PAIRS = ~torch.eye(CLASSES, dtype=torch.bool)


def drawn_pack(found: Layers, networks: int = 2, seed: int = 0, gain: float = 1.5) -> Pack:
    """Networks with biases, and with kernels `gain` times as large as Glorot's."""

    def drawn(random: np.random.Generator) -> list[np.ndarray]:
        return [
            one * np.float32(gain) if one.ndim > 1 else random.normal(0, 0.3, one.shape).astype(np.float32)
            for one in initial_weights(found, random)
        ]

    return Pack.of(found, [drawn(np.random.default_rng((seed, k))) for k in range(networks)])


def drawn_images(shape: tuple[int, ...], *counts: int, seed: int = 0) -> torch.Tensor:
    """Images of which some pixels lie on the border of [0, 1]."""
    drawn = np.random.default_rng(seed).uniform(-0.2, 1.2, (*counts, *shape)).clip(0, 1)
    return torch.from_numpy(drawn.astype(np.float32))


def case(name: str, activation: str, seed: int = 0, gain: float = 1.5) -> tuple[Pack, torch.Tensor]:
    architecture, axes, shape = SHAPES[name]
    found = layers(architecture, {**axes, "activation": activation}, shape, CLASSES)
    return drawn_pack(found, seed=seed, gain=gain), drawn_images(shape, 2, seed=seed)


def exactly(pack: Pack) -> Pack:
    """The same networks in float64."""
    return Pack(pack.layers, tuple(weight.double() for weight in pack.weights))


def sampled(pack: Pack, around: Neighbourhood, count: int) -> torch.Tensor:
    """float32 images [count, n, h, w, c] of each ball: extreme along random directions and along gradients, and between
    those and the centre."""
    x = around.x
    leaf = x.clone().requires_grad_()
    output = pack(leaf)
    gradients = [
        sign * torch.autograd.grad(output[k, :, i].sum() - output[k, :, j].sum(), leaf, retain_graph=True)[0]
        for k in range(len(pack))
        for i, j in pairwise(range(CLASSES))
        for sign in (1, -1)
    ]
    random = torch.Generator().manual_seed(0)
    directions = torch.randn(count - len(gradients), *x.shape, generator=random)
    steepest = around.steepest(torch.cat([torch.stack(gradients), directions]))
    steps = torch.rand(count, len(x), 1, 1, 1, generator=random)
    steps[: count // 2] = 1
    found = around.project(x + steps * (steepest - x))
    assert around.contains(found).all()
    return found


def entering(pack: Pack, x: torch.Tensor) -> list[torch.Tensor]:
    """What enters each Activation layer at images x [n, h, w, c]: [K, n, units]."""
    found, weights = [], 0
    for index, layer in enumerate(pack.layers):
        if isinstance(layer, Activation):
            before = pack.layers[:index]
            flat = before if Flatten() in before else (*before, Flatten())
            found.append(logits(flat, pack.weights[:weights], x))
        weights += 2 * isinstance(layer, Dense | Conv)
    return found


def pairs(output: torch.Tensor) -> torch.Tensor:
    """Differences of logits [..., classes] of all pairs."""
    return output[..., :, None] - output[..., None, :]


def all_rows(networks: int, points: int) -> torch.Tensor:
    """Rows [K, n, classes², classes] of all differences of logits."""
    identity = torch.eye(CLASSES, dtype=torch.float64)
    return pairs(identity.T).movedim(0, -1).flatten(0, 1).expand(networks, points, -1, -1)


def bounded(pack: Pack, around: Neighbourhood, by: str = "crown", **more) -> torch.Tensor:
    """CROWN's differences [K, n, classes, classes], no allowance for rounding subtracted."""
    bounds = layer_bounds(pack.layers, pack.weights, around, by)
    rows = all_rows(len(pack), around.x.shape[-4])
    lower = backward(pack.layers, pack.weights, around, rows, bounds, **more)
    return lower.unflatten(-1, (CLASSES, CLASSES))


# ---- closed forms ----


@pytest.mark.parametrize("by", ["ibp", "crown"])
@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_bounds_of_a_linear_network_are_its_minima(ball: Ball, by: str):
    pack = drawn_pack((Flatten(), Dense(12, CLASSES)))
    x = drawn_images((4, 3, 1), 5)
    if ball.norm == "l2":
        x = 0.5 + 0 * x  # away from the border the minimum has a closed form
        ball = Ball("l2", min(ball.delta, 0.4))
    around = ball.around(x)
    found = differences(pack, x, ball, by, every=True)
    allowed = rounding(pack.layers, pack.weights, around, [])
    found = found + allowed[..., :, None] + allowed[..., None, :]
    flat = x.flatten(1).double().numpy()
    for k in range(len(pack)):
        kernel, bias = (weight[k].double().numpy() for weight in pack.weights)
        for i in range(CLASSES):
            for j in set(range(CLASSES)) - {i}:
                row, offset = kernel[:, i] - kernel[:, j], bias[i] - bias[j]
                match ball.norm:
                    case "linf":
                        corner = (flat - ball.delta * np.sign(row)).clip(0, 1)
                        least = corner @ row
                    case "l2":
                        least = flat @ row - ball.delta * np.linalg.norm(row)
                    case "l1":
                        least = [linear_minimum(row, point, ball.delta) for point in flat]
                np.testing.assert_allclose(found[k, :, i, j], least + offset, rtol=0, atol=1e-6)


def linear_minimum(row: np.ndarray, point: np.ndarray, delta: float) -> float:
    """min row·z over the L1 ball around a point, within [0, 1], as a linear program in z = point + up - down."""
    bounds = [(0, 1 - one) for one in point] + [(0, one) for one in point]
    found = linprog(np.concatenate([row, -row]), A_ub=np.ones((1, 2 * len(row))), b_ub=[delta], bounds=bounds)
    return row @ point + found.fun


@pytest.mark.parametrize("by", ["ibp", "crown"])
@pytest.mark.parametrize("ball", BALLS[1::3], ids=str)
@pytest.mark.parametrize("name", ["fcn 1", "cnn 1"])
def test_bounds_of_the_first_layer_are_attained(name: str, ball: Ball, by: str):
    pack, x = case(name, "relu")
    around = ball.around(x)
    bounds = layer_bounds(pack.layers, pack.weights, around, by)[0]
    for unit in range(7):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(entering(pack, leaf)[0][0, :, unit].sum(), leaf)
        for bound, sign in zip(bounds, (-1, 1), strict=True):
            reached = entering(exactly(pack), around.steepest(sign * gradient).double())[0]
            torch.testing.assert_close(bound[0, :, unit], reached[0, :, unit], rtol=0, atol=1e-5)


def one_pixel(hidden: list[tuple[float, float]], outputs: list[list[float]], activation: str) -> Pack:
    """One pixel, hidden units (weight, bias), logits outputs[unit][class] without bias."""
    found = (Flatten(), Dense(1, len(hidden)), Activation(activation), Dense(len(hidden), len(outputs[0])))
    kernel, bias = np.array(hidden, np.float32).T
    weights = [kernel[None], bias, np.array(outputs, np.float32), np.zeros(len(outputs[0]), np.float32)]
    return Pack.of(found, [weights])


def first_minus_second(pack: Pack, ball: Ball, by: str) -> float:
    return differences(pack, torch.full((1, 1, 1, 1), 0.5), ball, by, every=True)[0, 0, 0, 1].item()


def test_relu_networks_solved_by_hand():
    # z = 2x - 1 is within ±1/2 for x = 1/2 ± 1/4. |z| = relu(z) + relu(-z): the triangle's upper lines (z + 1/2) / 2
    # and (-z + 1/2) / 2 add to 1/2, the exact maximum, where intervals allow 1/2 each; the lower slopes are 0, so 0.
    ball = Ball("linf", 0.25)
    absolute = [(2.0, -1.0), (-2.0, 1.0)]
    rising, falling = ([[sign, 0.0]] * 2 for sign in (1.0, -1.0))
    for outputs, by, expected in [
        (rising, "ibp", 0),
        (rising, "crown", 0),
        (falling, "ibp", -1),
        (falling, "crown", -1 / 2),
    ]:
        found = first_minus_second(one_pixel(absolute, outputs, "relu"), ball, by)
        assert found == pytest.approx(expected, abs=1e-5)
    # z = 2x - 1/2 is within [0, 1], decided: relu(z) - relu(z) is 0 by CROWN and within ±1 by intervals.
    cancelling = one_pixel([(2.0, -0.5)] * 2, [[1.0, 0.0], [-1.0, 0.0]], "relu")
    assert first_minus_second(cancelling, ball, "ibp") == pytest.approx(-1, abs=1e-5)
    assert first_minus_second(cancelling, ball, "crown") == pytest.approx(0, abs=1e-5)
    # z = 2x - 3/4 is within [-1/4, 3/4]: lower slope 1, so 2 relu(z) - 2z ≥ 0, where a slope of 0 would give -3/2.
    steeper = one_pixel([(2.0, -0.75), (2.0, 0.0)], [[2.0, 0.0], [-2.0, 0.0]], "relu")
    assert first_minus_second(steeper, ball, "crown") == pytest.approx(-3 / 2, abs=1e-5)


def test_a_tanh_unit_solved_by_hand():
    # z = 4x - 2 + 1 is within [0, 2], where tanh is concave: below it the chord, above it the tangent at 1.
    pack, around = (
        one_pixel([(4.0, -1.0)], [[1.0, 0.0]], "tanh"),
        Ball("linf", 0.25).around(torch.full((1, 1, 1, 1), 0.5)),
    )
    rows = torch.tensor([[[[1.0, -1.0], [-1.0, 1.0]]]], dtype=torch.float64)
    lower = backward(pack.layers, pack.weights, around, rows, layer_bounds(pack.layers, pack.weights, around, "crown"))
    assert lower[0, 0].tolist() == pytest.approx([0, -(math.tanh(1) + math.cosh(1) ** -2)], abs=1e-12)


def test_a_pool_solved_by_hand():
    # Four pixels 0.1, 0.2, 0.5, 0.9 ± δ through an identity and a pool: up to δ = 0.2 the last is always the largest.
    found = (Conv(2, 2, 1, 1, 1), Activation("relu"), MaxPool(), Flatten(), Dense(1, 2))
    one = np.ones((1, 1, 1, 1), np.float32)
    pack = Pack.of(found, [[one, np.zeros(1, np.float32), np.array([[1, 0]], np.float32), np.zeros(2, np.float32)]])
    x = torch.tensor([0.1, 0.2, 0.5, 0.9]).reshape(1, 2, 2, 1)
    for delta, by, least, most in [
        (0.2, "crown", 0.7, 1.0),
        (0.3, "crown", 0.6, 1.0),
        (0.3, "ibp", 0.6, 1.0),
    ]:
        difference = differences(pack, x, Ball("linf", delta), by, every=True)[0, 0]
        assert difference[0, 1].item() == pytest.approx(least, abs=1e-5)
        assert difference[1, 0].item() == pytest.approx(-most, abs=1e-5)


# ---- lines ----

EDGES = [-50.0, -7.3, -1.0, -0.2, -1e-3, -1e-6, -1e-9, 0.0, 1e-9, 1e-6, 1e-3, 0.3, 1.0, 6.1, 50.0, 3e4]
WIDTHS = [0.0, 1e-15, 1e-9, 1e-6, 1e-3]
INTERVALS = torch.tensor(
    sorted(
        {(low, high) for low in EDGES for high in EDGES if low <= high}
        | {(low, low + w) for low in EDGES for w in WIDTHS}
    ),
    dtype=torch.float64,
)


@pytest.mark.parametrize("activation", LINES)
def test_lines_enclose_the_activation(activation: str):
    low, high = INTERVALS.T
    at = (low + torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None] * (high - low)).clamp(low, high)
    truth = ACTIVATIONS[activation](at)
    lower, lower_offset, upper, upper_offset = LINES[activation](low, high)
    # Float64 rounding of a line at its point.
    tolerance = 4e-16 * (
        1 + truth.abs() + (lower * at).abs() + (upper * at).abs() + lower_offset.abs() + upper_offset.abs()
    )
    assert (lower * at + lower_offset <= truth + tolerance).all()
    assert (upper * at + upper_offset >= truth - tolerance).all()


def test_lines_enclose_tanh_wherever_the_tangent_point_ends_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lines, "TANGENTS", 0)
    test_lines_enclose_the_activation("tanh")


@settings(max_examples=40)
@given(st.floats(-30, 30), st.floats(0, 60))
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_lines_touch_the_activation_and_no_area_is_wasted(activation: str, low: float, width: float):
    low, high = torch.tensor([low], dtype=torch.float64), torch.tensor([low + width], dtype=torch.float64)
    at = (low + torch.linspace(0, 1, 20_001, dtype=torch.float64) * (high - low)).clamp(low, high)
    truth = ACTIVATIONS[activation](at)
    lower, lower_offset, upper, upper_offset = LINES[activation](low, high)
    assert -1e-15 <= (truth - lower * at - lower_offset).min() < 1e-5
    assert -1e-15 <= (upper * at + upper_offset - truth).min() < 1e-5
    # Among lines above that touch at some point, none is lower in the middle: a line above is above the concave hull.
    middle = (low + high) / 2
    hull = hull_above(at.numpy(), truth.numpy(), middle.item())
    assert (upper * middle + upper_offset).item() == pytest.approx(hull, abs=2e-4)
    hull = -hull_above(at.numpy(), -truth.numpy(), middle.item())
    assert (lower * middle + lower_offset).item() == pytest.approx(hull, abs=2e-4)


def hull_above(at: np.ndarray, values: np.ndarray, middle: float) -> float:
    """The least concave function above some values, in the middle: the highest chord across it."""
    left, right = slice(0, len(at) // 2 + 1, 20), slice(len(at) // 2, None, 20)
    a, b = at[left][:, None], at[right][None]
    f, g = values[left][:, None], values[right][None]
    width = np.where(b > a, b - a, 1)
    return np.where(b > a, f + (g - f) * (middle - a) / width, np.maximum(f, g)).max()


@pytest.mark.parametrize("activation", LINES)
@pytest.mark.parametrize("scale", [1e-9, 1e-2, 1.0, 50.0])
def test_lines_enclose_the_pool_of_an_activation(activation: str, scale: float):
    random = torch.Generator().manual_seed(1)
    low = scale * torch.randn(4, 500, generator=random, dtype=torch.float64)
    high = low + scale * torch.rand(4, 500, generator=random, dtype=torch.float64) * torch.rand(500, generator=random)
    high[:, :20] = low[:, :20]  # points
    low[:, 20:40], high[:, 20:40] = low[0, 20:40], high[0, 20:40]  # ties
    low[0, 40:60], high[0, 40:60] = high[:, 40:60].amax(0), high[:, 40:60].amax(0) + scale  # always the largest
    function = ACTIVATIONS[activation]
    lower, lower_offset, upper, upper_offset = pool_lines(LINES[activation], function, low, high)
    steps = torch.rand(2000, 4, 500, generator=random, dtype=torch.float64)
    steps[:1000] = steps[:1000].round()  # corners, where a convex function less a line is largest
    at = low + steps * (high - low)
    truth = function(at).amax(1)
    tolerance = 1e-14 * (1 + at.abs().amax(1))
    assert ((lower * at).sum(1) + lower_offset <= truth + tolerance).all()
    assert ((upper * at).sum(1) + upper_offset >= truth - tolerance).all()
    if activation == "relu":
        largest = function(at[:, 0, 40:60])
        wherever = (low[0, 40:60] >= 0).expand_as(largest)
        found = ((upper * at).sum(1) + upper_offset)[:, 40:60]
        torch.testing.assert_close(found[wherever], largest[wherever], rtol=1e-9, atol=1e-12)


def test_relu_takes_the_slope_of_the_smaller_area_or_the_given_one():
    low, high = torch.tensor([[-1.0, -2.0, -1.0, 1.0, -2.0], [2.0, 1.0, 1.0, 2.0, -1.0]], dtype=torch.float64)
    assert relu_lines(low, high)[0].tolist() == [1, 0, 0, 1, 0]
    given_slopes = relu_lines(low, high, torch.full((5,), 0.3, dtype=torch.float64))[0]
    assert given_slopes.tolist() == [0.3, 0.3, 0.3, 1, 0]


# ---- soundness ----


def check_sound(pack: Pack, x: torch.Tensor, ball: Ball, count: int) -> None:
    """No sampled point of the ball lies outside of any bound; CROWN is nowhere looser than intervals."""
    around, precise = ball.around(x), exactly(pack)
    points = sampled(pack, around, count)
    seen = points.flatten(0, 1).double()
    outputs = pairs(precise(seen).unflatten(1, (count, len(x))))
    least = outputs.amin(1)
    intervals, crown = (differences(pack, x, ball, by, every=True) for by in ("ibp", "crown"))
    scale = 1 + outputs.abs().amax()
    assert (intervals <= least)[..., PAIRS].all()
    assert (crown <= least)[..., PAIRS].all()
    assert (bounded(pack, around) <= least + 1e-12 * scale)[..., PAIRS].all()
    assert (crown >= intervals - 1e-9 * scale).all()
    loose, tight = (layer_bounds(pack.layers, pack.weights, around, by) for by in ("ibp", "crown"))
    for values, (low, high), (lower, upper) in zip(entering(precise, seen), loose, tight, strict=True):
        assert values.shape[-1] == low.shape[-1] == lower.shape[-1]
        values = values.unflatten(1, (count, len(x)))
        slack = 1e-12 * (1 + values.abs().amax())
        assert (values >= lower[:, None] - slack).all()
        assert (values <= upper[:, None] + slack).all()
        assert (low - slack <= lower).all()
        assert (upper <= high + slack).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_bounds_contain_ten_thousand_points(name: str, activation: str):
    pack, x = case(name, activation)
    x = x[:1]
    check_sound(pack, x, BALLS[(3 * list(SHAPES).index(name) + list(ACTIVATIONS).index(activation) + 1) % 9], 10_000)


@settings(max_examples=40)
@given(
    st.sampled_from(list(SHAPES)),
    st.sampled_from(list(ACTIVATIONS)),
    st.sampled_from(BALLS),
    st.sampled_from([0.5, 1.5, 4.0]),
    st.integers(0, 10**6),
)
def test_bounds_contain_the_truth(name: str, activation: str, ball: Ball, gain: float, seed: int):
    check_sound(*case(name, activation, seed, gain), ball, 300)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["fcn 1", "cnn 1"])
def test_saturated_networks_are_bounded_soundly(name: str, activation: str):
    pack, x = case(name, activation)
    saturated = Pack(pack.layers, tuple(weight * 1000 for weight in pack.weights))
    for ball in BALLS[1::3]:
        check_sound(saturated, x, ball, 500)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_a_ball_of_no_radius_has_the_logits_of_its_point(name: str, activation: str):
    pack, x = case(name, activation)
    truth = pairs(exactly(pack)(x.double()))
    for norm in RADII:
        around = Ball(norm, 0.0).around(x)
        torch.testing.assert_close(bounded(pack, around), truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["fcn 3", "cnn 2, even kernel", "cnn 3", "vgg"])
def test_crown_tightens_all_layers_on_which_its_lines_depend(
    name: str, activation: str, monkeypatch: pytest.MonkeyPatch
):
    pack, x = case(name, activation)
    around = Ball("linf", 0.03).around(x)
    loose, tight = (layer_bounds(pack.layers, pack.weights, around, by) for by in ("ibp", "crown"))
    widths = [[high - low for low, high in bounds] for bounds in (loose, tight)]
    kept = [(narrow / wide).mean().item() for wide, narrow in zip(*widths, strict=True)]
    assert kept[0] == 1
    assert max(kept[1:]) < 0.98
    # Bounds of the others change nothing.
    found = bounded(pack, around)
    monkeypatch.setattr(crown, "_needed", lambda stage, low, high: torch.ones_like(low, dtype=torch.bool))
    torch.testing.assert_close(bounded(pack, around), found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("name", SHAPES)
def test_intervals_widen_with_the_ball(name: str, norm: str):
    # CROWN's need not: a lower slope of ReLU that jumps between 0 and 1 may help a larger ball.
    pack, x = case(name, "relu")
    radii = [0, *np.geomspace(0.003, 3, 12)]
    found = [differences(pack, x, Ball(norm, radius), "ibp", every=True) for radius in radii]
    for smaller, larger in pairwise(found):
        assert (larger <= smaller + 1e-9)[..., PAIRS].all()
    assert (found[-1] < found[0] - 0.1)[..., PAIRS].all()


@pytest.mark.parametrize("norm", RADII)
def test_crown_with_the_same_slopes_falls_with_the_ball(norm: str):
    pack, x = case("fcn 1", "relu")
    slopes = [torch.full((1, 1, 1, 12), 0.4, dtype=torch.float64)]
    found = [bounded(pack, Ball(norm, radius).around(x), slopes=slopes) for radius in np.geomspace(0.003, 3, 12)]
    for smaller, larger in pairwise(found):
        assert (larger <= smaller + 1e-9)[..., PAIRS].all()


# ---- batches ----


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("by", ["ibp", "crown"])
def test_a_batch_is_what_its_networks_and_points_are_alone(
    name: str, activation: str, by: str, monkeypatch: pytest.MonkeyPatch
):
    pack, x = case(name, activation)
    x = torch.cat([x, drawn_images(x.shape[1:], 3, seed=5)])
    own = torch.stack([x, x.flip(0)])
    for norm, ball in [(ball.norm, ball) for ball in BALLS[1::3]]:
        together = differences(pack, x, ball, by, every=True)
        each = differences(pack, own, ball, by, every=True)
        for k in range(2):
            alone = Pack(pack.layers, tuple(weight[k : k + 1] for weight in pack.weights))
            found = torch.cat([differences(alone, one[None], ball, by, every=True) for one in x], 1)
            torch.testing.assert_close(together[k : k + 1], found, rtol=1e-9, atol=1e-9, msg=norm)
            torch.testing.assert_close(each[k : k + 1], found if k == 0 else found.flip(1), rtol=1e-9, atol=1e-9)
        with monkeypatch.context() as small:
            for one in (crown, room):
                small.setattr(one, "ELEMENTS", {"cpu": 3000})
            torch.testing.assert_close(differences(pack, x, ball, by, every=True), together, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(differences(pack, own, ball, by, every=True), each, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("by", ["ibp", "crown"])
def test_the_rows_of_the_predicted_class_are_among_all(by: str):
    pack, x = case("cnn 1", "relu")
    every, some = (differences(pack, x, BALLS[1], by, every=every) for every in (True, False))
    assert every.isfinite().all()
    assert (every.diagonal(dim1=-2, dim2=-1) == 0).all()
    predicted = pack(x).argmax(-1)
    for k in range(2):
        for n in range(2):
            row = predicted[k, n]
            torch.testing.assert_close(some[k, n, row], every[k, n, row], rtol=1e-9, atol=1e-9)
            assert (some[k, n, [i for i in range(CLASSES) if i != row]] == -torch.inf).all()


@pytest.mark.parametrize("name", ["fcn 3", "cnn 2, even kernel"])
@pytest.mark.parametrize("kind", RADII)
def test_balls_of_several_radii_are_each_alone(name: str, kind: str):
    pack, x = case(name, "tanh")
    radii = RADII[kind][1:]
    of = type(Ball(kind, 1.0).around(x))
    together = bounded(pack, of(x, torch.tensor(radii, dtype=torch.float64)))
    for n, radius in enumerate(radii):
        alone = bounded(pack, of(x[n : n + 1], radius))
        torch.testing.assert_close(together[:, n : n + 1], alone, rtol=1e-9, atol=1e-9)


def dense_of(convolution: Conv, kernel: np.ndarray) -> np.ndarray:
    """A convolution as a Dense kernel, column by column from images with one pixel."""
    shape = (convolution.height, convolution.width, convolution.inputs)
    units = torch.eye(math.prod(shape)).unflatten(1, shape)
    weights = [torch.from_numpy(kernel)[None], torch.zeros(1, convolution.outputs)]
    return logits((convolution, Flatten()), weights, units)[0].numpy()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("ball", BALLS[1::3], ids=str)
@pytest.mark.parametrize("size", [2, 3, 5])
def test_convolutions_are_bounded_as_the_dense_layers_that_they_are(activation: str, ball: Ball, size: int):
    first, second, third = Conv(4, 5, size, 2, 3), Conv(4, 5, size, 3, 2), Conv(4, 5, size, 2, 2)
    last = Dense(40, CLASSES)
    function = Activation(activation)
    found = (first, function, second, function, third, function, Flatten(), last)
    random = np.random.default_rng(0)
    kernels = [random.normal(0, 0.5, one.kernel).astype(np.float32) for one in (first, second, third)]
    biases = [random.normal(0, 0.3, one.outputs).astype(np.float32) for one in (first, second, third)]
    end = [random.normal(0, 0.5, (40, CLASSES)).astype(np.float32), np.zeros(CLASSES, np.float32)]
    images = Pack.of(found, [[*(one for pair in zip(kernels, biases, strict=True) for one in pair), *end]])
    dense = [Flatten()]
    weights = []
    for one, kernel, bias in zip((first, second, third), kernels, biases, strict=True):
        matrix = dense_of(one, kernel)
        dense += [Dense(*matrix.shape), function]
        weights += [matrix, np.tile(bias, 20)]
    flat = Pack.of((*dense, last), [[*weights, *end]])
    x = drawn_images((4, 5, 2), 3)
    torch.testing.assert_close(images(x), flat(x), rtol=1e-5, atol=1e-5)
    around = ball.around(x)
    ours, theirs = (layer_bounds(pack.layers, pack.weights, around, "crown") for pack in (images, flat))
    for pair, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(pair, other, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(bounded(images, around), bounded(flat, around), rtol=1e-7, atol=1e-7)


# ---- branch and bound ----


@pytest.mark.parametrize("name", ["fcn 3", "cnn 2, even kernel", "vgg"])
def test_any_slopes_are_sound_and_their_gradient_helps(name: str):
    pack, x = case(name, "relu")
    around = Ball("linf", 0.1).around(x)
    least = pairs(exactly(pack)(sampled(pack, around, 2000).flatten(0, 1).double()).unflatten(1, (2000, 2))).amin(1)
    bounds = layer_bounds(pack.layers, pack.weights, around, "crown")
    rows = all_rows(2, 2)
    random = torch.Generator().manual_seed(0)
    slopes = [
        torch.rand(2, 2, rows.shape[2], low.shape[-1], generator=random, dtype=torch.float64) for low, _ in bounds
    ]
    slopes = [one.requires_grad_() for one in slopes]
    lower = backward(pack.layers, pack.weights, around, rows, bounds, slopes=slopes)
    assert (lower.detach().unflatten(-1, (CLASSES, CLASSES)) <= least + 1e-12)[..., PAIRS].all()
    gradients = torch.autograd.grad(lower.sum(), slopes)
    better = [(one + 1e-3 * gradient.sign()).clamp(0, 1) for one, gradient in zip(slopes, gradients, strict=True)]
    raised = backward(pack.layers, pack.weights, around, rows, bounds, slopes=better)
    assert raised.sum() > lower.sum() + 1e-4
    # Of the same slopes for all rows, one row will do.
    shared = [one[:, :, :1] for one in slopes]
    found = backward(pack.layers, pack.weights, around, rows, bounds, slopes=shared)
    repeated = [one.expand(-1, -1, rows.shape[2], -1) for one in shared]
    torch.testing.assert_close(found, backward(pack.layers, pack.weights, around, rows, bounds, slopes=repeated))


@pytest.mark.parametrize("name", ["fcn 3", "cnn 1"])
def test_multipliers_bound_the_subproblem_of_their_splits(name: str):
    pack, x = case(name, "relu")
    around, count = Ball("linf", 0.15).around(x), 4000
    points = sampled(pack, around, count).flatten(0, 1).double()
    outputs = pairs(exactly(pack)(points).unflatten(1, (count, 2)))
    values = [one.unflatten(1, (count, 2)) for one in entering(exactly(pack), points)]
    bounds = layer_bounds(pack.layers, pack.weights, around, "crown")
    random, rows = torch.Generator().manual_seed(0), all_rows(2, 2)
    whole, helped, tested = bounded(pack, around), 0, 0
    for layer, (low, high) in enumerate(bounds):
        # Split the unit with the widest triangle, to either side.
        unit = (high.clamp(min=0) * -low.clamp(max=0)).argmax(-1, keepdim=True)
        for sign in (1, -1):
            tightened = list(bounds)
            cut = (low.scatter(-1, unit, 0.0), high) if sign == 1 else (low, high.scatter(-1, unit, 0.0))
            tightened[layer] = cut
            multipliers = [torch.zeros(2, 2, 1, one.shape[-1], dtype=torch.float64) for one, _ in bounds]
            force = torch.rand(2, 2, 1, generator=random, dtype=torch.float64)
            multipliers[layer] = multipliers[layer].scatter(-1, unit[:, :, None], -sign * force[..., None])
            lower = backward(pack.layers, pack.weights, around, rows, tightened, multipliers=multipliers)
            lower = lower.unflatten(-1, (CLASSES, CLASSES))
            inside = (sign * values[layer].gather(-1, unit[:, None].expand(-1, count, -1, -1)) >= 0)[..., None]
            least = torch.where(inside, outputs, torch.inf).amin(1)
            assert (lower <= least + 1e-12)[..., PAIRS].all()
            helped += (lower > whole + 1e-6).sum().item()
            tested += inside.sum().item()
    assert helped > 0
    assert tested > 1000


# ---- against attacks ----


def attacked(pack: Pack, x: torch.Tensor, ball: Ball) -> torch.Tensor:
    """float32 images [steps, K, n, h, w, c] of the ball on a way up the margin loss, from the point and its corners."""
    around, point, found = ball.around(x), pack(x), []
    random = torch.Generator().manual_seed(0)
    for restart in range(3):
        moved = x.expand(len(pack), *x.shape)
        if restart:
            moved = around.steepest(torch.randn(moved.shape, generator=random))
        for _ in range(10):
            leaf = moved.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(margin_loss(point, pack(leaf)).sum(), leaf)
            moved = (
                around.steepest(-gradient) if restart == 1 else around.project(moved + gradient.sign() * ball.delta / 4)
            )
            found.append(moved)
            found.append(around.steepest(gradient))
    return torch.stack(found)


@pytest.mark.parametrize("gain", [1.0, 1000.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["fcn 1", "fcn 3", "cnn 1"])
def test_no_attack_contradicts_a_certificate(name: str, activation: str, gain: float):
    pack, _ = case(name, activation)
    pack = Pack(pack.layers, (*pack.weights[:-2], *(weight * gain for weight in pack.weights[-2:])))
    x = drawn_images(SHAPES[name][2], 25, seed=3)
    point, certified = pack(x), 0
    for norm, radii in RADII.items():
        for radius in np.geomspace(radii[0], radii[1], 3):
            ball = Ball(norm, radius)
            moved = attacked(pack, x, ball)
            outputs = torch.stack([pack(one) for one in moved])
            distance = torch.stack([ball.around(x).distance(one) for one in moved])
            before = point.expand_as(outputs)
            robust = ClassChange().outcome(before, outputs, distance).amin(0)
            changed = SoftmaxVariation().outcome(before, outputs, distance).amax(0)
            for by in ("ibp", "crown"):
                proven = differences(pack, x, ball, by, every=True)
                assert (ClassChange().certified(point, proven) <= robust).all()
                assert (SoftmaxVariation().certified(point, proven) >= changed - 1e-6).all()
                row = differences(pack, x, ball, by, every=False)
                assert torch.equal(ClassChange().certified(point, row), ClassChange().certified(point, proven))
            certified += ClassChange().certified(point, proven).sum().item()
    assert certified > 10  # else nothing was shown


def test_certified_variation_is_close_to_what_attacks_find():
    # Tight for small balls; two classes and no hidden layer: exact.
    pack, x = case("fcn 1", "relu")
    x = drawn_images(SHAPES["fcn 1"][2], 40, seed=3)
    ball = Ball("linf", 0.01)
    found = torch.stack([variation(pack(x), pack(one)) for one in attacked(pack, x, ball)])
    certified = SoftmaxVariation().certified(pack(x), differences(pack, x, ball, "crown", every=True))
    # Bounds of pairs cannot be attained by all pairs at once; the attack ascends another loss.
    assert (certified.mean() / found.amax(0).mean()).item() < 1.6
    linear = drawn_pack((Flatten(), Dense(24, 2)))
    certified = SoftmaxVariation().certified(linear(x), differences(linear, x, ball, "crown", every=True))
    row = (linear.weights[0][..., 0] - linear.weights[0][..., 1]).double()
    around = ball.around(x)
    least, most = (around.minimum(sign * row[:, None, None].expand(-1, 40, -1, -1))[..., 0] for sign in (1, -1))
    now = pairs(exactly(linear)(x.double()))[..., 0, 1]
    exact = torch.maximum(now.sigmoid() - (now + least).sigmoid(), (now - most).sigmoid() - now.sigmoid())
    torch.testing.assert_close(certified.double(), exact, rtol=0, atol=1e-5)


# ---- rounding and broken networks ----


@pytest.mark.parametrize("gain", [1.0, 100.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_the_allowance_covers_float32_and_is_tiny(name: str, activation: str, gain: float):
    pack, x = case(name, activation)
    pack = Pack(pack.layers, tuple(weight * gain for weight in pack.weights))
    around = Ball("linf", 0.03).around(x)
    points = sampled(pack, around, 500).flatten(0, 1)
    error = (pack(points).double() - exactly(pack)(points.double())).abs().unflatten(1, (500, 2))
    bounds = layer_bounds(pack.layers, pack.weights, around, "crown")
    allowed = rounding(pack.layers, pack.weights, around, bounds)
    assert (error.amax(1) < allowed).all()
    if gain == 1:
        assert (allowed < 1e-4 * pack(points).abs().amax()).all()


def test_a_margin_of_rounding_size_is_not_certified():
    # Class 0 is ahead of 1 by 1e-9 in real arithmetic everywhere; in float32 a sum of 1 + 1e-9 is a tie.
    hidden = [(1.0, 0.0), (1e-9, 0.0)]
    pack = one_pixel(hidden, [[1.0, 1.0], [1.0, 0.0]], "relu")
    x = torch.full((1, 1, 1, 1), 0.5)
    around = Ball("linf", 0.1).around(x)
    bounds = layer_bounds(pack.layers, pack.weights, around, "crown")
    rows = torch.tensor([[[[1.0, -1.0]]]], dtype=torch.float64)
    assert backward(pack.layers, pack.weights, around, rows, bounds).item() == pytest.approx(4e-10, rel=1e-5)
    assert first_minus_second(pack, Ball("linf", 0.1), "crown") < 0
    assert pack(x)[0, 0, 0] == pack(x)[0, 0, 1]
    # A margin of 1e-4 is.
    clear = one_pixel([(1.0, 0.0), (1e-4, 0.0)], [[1.0, 1.0], [1.0, 0.0]], "relu")
    assert first_minus_second(clear, Ball("linf", 0.1), "crown") > 3e-5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["fcn 3", "cnn 1"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_broken_network_certifies_nothing_and_spoils_no_neighbour(name: str, activation: str, value: float):
    pack, x = case(name, activation)
    for ball, by in [(Ball("linf", 0.0), "crown"), (Ball("linf", 0.01), "ibp"), (Ball("l1", 0.1), "crown")]:
        whole = differences(pack, x, ball, by, every=True)
        for index in range(len(pack.weights)):
            weights = [weight.clone() for weight in pack.weights]
            weights[index][0].view(-1)[-1] = value
            broken = Pack(pack.layers, tuple(weights))
            for every in (True, False):
                check_uncertified(differences(broken, x, ball, by, every=every)[0])
            torch.testing.assert_close(differences(broken, x, ball, by, every=True)[1], whole[1], rtol=1e-9, atol=1e-9)


def check_uncertified(found: torch.Tensor) -> None:
    """No notion certifies anything from differences [n, classes, classes], whatever the logits at the points."""
    point = torch.arange(CLASSES).expand(len(found), -1).float()
    assert not ClassChange().certified(point, found).any()
    assert (SoftmaxVariation().certified(point, found) == 1).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_network_that_may_overflow_in_float32_is_not_certified(activation: str):
    pack, x = case("fcn 1", activation)
    kernel, bias, last, end = pack.weights
    ball = Ball("linf", 0.01)
    large = Pack(pack.layers, (kernel, bias, torch.full_like(last, 3e38), end))
    assert differences(large, x, ball, "crown", every=True).isnan().all()
    check_uncertified(differences(large, x, ball, "crown", every=False)[0])
    # Of what is merely large it is not afraid.
    large = Pack(pack.layers, (kernel, bias, last * 1e30, end))
    assert differences(large, x, ball, "crown", every=True).isfinite().all()
