"""Balls within [0, 1] against exact fractions, linear programmes and the optimality conditions of a projection."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog

from deltaball.local.balls import Ball

SHAPE = (3, 2, 1)
NORMS = ["linf", "l2", "l1"]
DELTAS = {"linf": [0.0, 1e-6, 0.05, 0.3, 1.0], "l2": [0.0, 1e-6, 0.1, 0.7, 3.0], "l1": [0.0, 1e-6, 0.2, 1.5, 6.0]}
EVERY = [(norm, delta) for norm in NORMS for delta in DELTAS[norm]]

pixels = st.floats(0, 1, width=32)
radii = st.one_of(st.sampled_from([0.0, 1.0, 0.1, 1 / 255, 8 / 255]), st.floats(0, 1), st.floats(0, 1e-6))
anything = st.floats(allow_nan=False, allow_infinity=True, width=32)


def images(count: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    """Images of which some pixels lie on the border of [0, 1]."""
    drawn = np.random.default_rng(seed).uniform(-0.3, 1.3, (count, *shape)).clip(0, 1)
    return torch.from_numpy(drawn.astype(np.float32))


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32))


def one_pixel(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32).reshape(1, 1, 1, 1)


def inside_exactly(image: np.ndarray, x: np.ndarray, ball: Ball) -> bool:
    """In rational arithmetic."""
    moved = [abs(Fraction(float(a)) - Fraction(float(b))) for a, b in zip(image.ravel(), x.ravel(), strict=True)]
    within = {
        "linf": max(moved) <= Fraction(ball.delta),
        "l2": sum(one * one for one in moved) <= Fraction(ball.delta) ** 2,
        "l1": sum(moved) <= Fraction(ball.delta),
    }
    return within[ball.norm] and 0 <= image.min() and image.max() <= 1


def least(ball: Ball, x: np.ndarray, coefficients: np.ndarray) -> float:
    """min coefficients · (z - x) over the ball: a linear programme for L∞ and L1, for L2 its dual in one variable."""
    low, high = -x, 1 - x
    match ball.norm:
        case "linf":
            bounds = list(zip(np.maximum(low, -ball.delta), np.minimum(high, ball.delta), strict=True))
            return linprog(coefficients, bounds=bounds).fun
        case "l1":  # z - x = up - down
            count = len(x)
            bounds = [*((0, one) for one in high), *((0, -one) for one in low)]
            return linprog(
                [*coefficients, *-coefficients], A_ub=np.ones((1, 2 * count)), b_ub=[ball.delta], bounds=bounds
            ).fun

    def moved(multiplier: float) -> np.ndarray:
        return np.clip(-coefficients / multiplier, low, high)

    if ball.delta == 0:
        return 0.0
    furthest = np.where(coefficients < 0, high, np.where(coefficients > 0, low, 0))
    if np.linalg.norm(furthest) <= ball.delta:
        return float(coefficients @ furthest)
    multiplier = brentq(lambda one: np.linalg.norm(moved(one)) - ball.delta, 1e-9, 1e9, xtol=1e-14, rtol=1e-14)
    return float(coefficients @ moved(multiplier))


@given(pixels, radii, anything, st.sampled_from(NORMS))
@settings(max_examples=500)
def test_a_projected_pixel_is_in_the_ball_and_in_the_unit_interval_exactly(
    x: float, delta: float, candidate: float, norm: str
):
    around = Ball(norm, delta).around(one_pixel(x))
    projected = around.project(one_pixel(candidate).nan_to_num())
    assert abs(Fraction(projected.item()) - Fraction(x)) <= Fraction(delta)
    assert 0 <= projected.item() <= 1
    assert around.contains(projected).item()


@pytest.mark.parametrize(("norm", "delta"), EVERY)
def test_whatever_a_ball_hands_out_is_inside_exactly(norm: str, delta: float):
    ball, x = Ball(norm, delta), images(60)
    around = ball.around(x)
    for scale in (0.01, 0.3, 3.0):
        for found in (
            around.project(x + normal(*x.shape, scale=scale)),
            around.steepest(normal(*x.shape, scale=scale)),
        ):
            assert found.dtype == torch.float32
            assert around.contains(found).all()
            assert all(inside_exactly(one.numpy(), at.numpy(), ball) for one, at in zip(found, x, strict=True))


@given(pixels, radii)
@settings(max_examples=300)
def test_a_box_reaches_as_far_as_float32_can(x: float, delta: float):
    lower, upper = (bound.item() for bound in Ball("linf", delta).around(one_pixel(x)).bounds)
    assert 0 <= lower <= x <= upper <= 1
    below = np.nextafter(np.float32(lower), np.float32(-1)).item()
    above = np.nextafter(np.float32(upper), np.float32(2)).item()
    assert below < 0 or Fraction(x) - Fraction(below) > Fraction(delta)
    assert above > 1 or Fraction(above) - Fraction(x) > Fraction(delta)


@given(pixels, radii, pixels)
@settings(max_examples=300)
def test_a_point_of_the_box_is_its_own_projection(x: float, delta: float, candidate: float):
    inside = abs(Fraction(candidate) - Fraction(x)) <= Fraction(delta)
    around = Ball("linf", delta).around(one_pixel(x))
    assert around.contains(one_pixel(candidate)).item() == inside
    assert (around.project(one_pixel(candidate)).item() == candidate) == inside


@pytest.mark.parametrize(("norm", "delta"), EVERY)
def test_a_projection_is_its_own_projection(norm: str, delta: float):
    x = images(200)
    around = Ball(norm, delta).around(x)
    for scale in (0.01, 0.3, 3.0):
        once = around.project(x + normal(*x.shape, seed=1, scale=scale))
        assert torch.equal(around.project(once), once)


@pytest.mark.parametrize(("norm", "delta"), EVERY)
def test_a_projection_is_the_nearest_image(norm: str, delta: float):
    """p is nearest to c exactly if no z of the ball has (c - p)·(z - p) > 0."""
    ball, x = Ball(norm, delta), images(40)
    around = ball.around(x)
    for scale in (0.05, 0.5, 3.0):
        candidate = x + normal(*x.shape, seed=2, scale=scale)
        projected = around.project(candidate)
        away = (candidate.double() - projected.double()).flatten(1).numpy()
        moved = (projected.double() - x.double()).flatten(1).numpy()
        flat = x.double().flatten(1).numpy()
        for k in range(len(x)):
            assert -least(ball, flat[k], -away[k]) <= away[k] @ moved[k] + 1e-6 * (1 + np.abs(away[k]).sum())


@pytest.mark.parametrize(("norm", "delta"), EVERY)
@pytest.mark.parametrize("sparse", [False, True])
def test_minimum_and_steepest_agree_with_a_solver(norm: str, delta: float, sparse: bool):
    ball, x = Ball(norm, delta), images(40)
    around = ball.around(x)
    coefficients = normal(40, 3, 6, seed=3).double()
    if sparse:
        coefficients[:, :, ::2] = 0
        coefficients[:, 1] = coefficients[:, 1].sign()  # ties
    found = around.minimum(coefficients)
    assert found.dtype == torch.float64
    for row in range(3):
        steepest = around.steepest(-coefficients[:, row].reshape(x.shape))
        reached = (coefficients[:, row] * (steepest.double() - x.double()).flatten(1)).sum(-1).numpy()
        for k in range(40):
            exact = least(ball, x[k].double().flatten().numpy(), coefficients[k, row].numpy())
            # The rim of a ball is placed 1e-12 of its radius inside, and float32 rounds towards x.
            assert found[k, row].item() == pytest.approx(exact, abs=1e-9)
            assert found[k, row].item() <= reached[k] + 1e-12
            assert reached[k] == pytest.approx(exact, abs=3e-6)


@given(st.integers(0, 2**32), st.floats(0, 3), st.sampled_from(NORMS))
@settings(max_examples=100)
def test_no_image_of_the_ball_lies_below_the_minimum(seed: int, delta: float, norm: str):
    x = images(5, seed)
    around = Ball(norm, delta).around(x)
    coefficients = normal(5, 4, 6, seed=seed).double()
    minimum = around.minimum(coefficients)
    for scale in (0.1, 1.0, 10.0):
        inside = around.project(x + normal(20, *x.shape, seed=seed + 1, scale=scale)).double() - x.double()
        values = torch.einsum("nrd,snd->snr", coefficients, inside.flatten(-3))
        assert (values >= minimum - 1e-12).all()


def test_pixels_without_gradient_stay():
    x = images(10)
    gradient = normal(*x.shape)
    gradient[:, 1] = 0
    for norm in NORMS:
        around = Ball(norm, 0.3).around(x)
        assert torch.equal(around.steepest(gradient)[:, 1], x[:, 1])
        assert torch.equal(around.steepest(torch.zeros_like(x)), x)
        assert not torch.equal(around.steepest(gradient), x)


def test_the_steepest_image_by_hand():
    x = torch.tensor([0.5, 0.9, 0.0, 0.5]).reshape(1, 2, 2, 1)
    gradient = torch.tensor([1.0, 2.0, -4.0, -0.5]).reshape(1, 2, 2, 1)
    expected = {
        ("linf", 0.2): [0.7, 1.0, 0.0, 0.3],
        # The second pixel can move by 0.1, the third not at all; the first takes what is left.
        ("l1", 0.3): [0.7, 1.0, 0.0, 0.5],
        # The second is cut at 0.1; the others share √(0.05 - 0.01) = 0.2 as 1 : -½.
        ("l2", math.sqrt(0.05)): [0.5 + 0.2 / math.sqrt(1.25), 1.0, 0.0, 0.5 - 0.1 / math.sqrt(1.25)],
    }
    for (norm, delta), pixels_ in expected.items():
        found = Ball(norm, delta).around(x).steepest(gradient)
        np.testing.assert_allclose(found.flatten().numpy(), pixels_, atol=1e-6)


@pytest.mark.parametrize("outside", [-1e-6, 1.000001, 0.5 + 0.1001, 0.5 - 0.1001, float("nan")])
@pytest.mark.parametrize("norm", NORMS)
def test_one_pixel_outside_is_outside(outside: float, norm: str):
    x = torch.full((2, *SHAPE), 0.5)
    candidate = x.expand(3, *x.shape).clone()
    candidate[1, 0, 2, 1, 0] = outside
    around = Ball(norm, 0.1 if abs(outside - 0.5) < 0.2 else 1.0).around(x)
    assert around.contains(candidate).tolist() == [[True, True], [False, True], [True, True]]


def test_distance_is_the_norm():
    x = images(20)
    candidate = normal(3, *x.shape)
    moved = (candidate.double() - x.double()).flatten(-3).numpy()
    for norm, order in (("linf", np.inf), ("l2", 2), ("l1", 1)):
        found = Ball(norm, 1.0).around(x).distance(candidate)
        np.testing.assert_allclose(found.numpy(), np.linalg.norm(moved, order, axis=-1), rtol=1e-14)
        assert found.dtype == torch.float64


@pytest.mark.parametrize("norm", NORMS)
def test_balls_of_several_sizes_are_balls_of_each_size(norm: str):
    x = images(5)
    sizes = torch.tensor([0.0, 0.1, 0.5, 1.0, 2.0], dtype=torch.float64)
    several = type(Ball(norm, 0.0).around(x))(x, sizes)
    candidate, coefficients = x + normal(*x.shape), normal(5, 2, 6).double()
    for k, size in enumerate(sizes.tolist()):
        one = Ball(norm, size).around(x[k : k + 1])
        assert torch.equal(several.project(candidate)[k], one.project(candidate[k : k + 1])[0])
        assert torch.equal(several.steepest(candidate)[k], one.steepest(candidate[k : k + 1])[0])
        torch.testing.assert_close(several.minimum(coefficients)[k], one.minimum(coefficients[k : k + 1])[0])


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_that_are_no_numbers_end(norm: str):
    x = images(3)
    gradient = normal(*x.shape)
    gradient[0] = math.nan
    gradient[1, 0] = math.inf
    around = Ball(norm, 0.3).around(x)
    assert around.contains(around.steepest(gradient))[2]
