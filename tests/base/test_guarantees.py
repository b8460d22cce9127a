import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.base.guarantees import confidence_each, confidence_text, epsilon_reached, samples_needed

getcontext().prec = 60

epsilons = st.floats(0.001, 0.999)
confidences = st.floats(0.5, 0.999999)
ranges = st.tuples(st.floats(-2, 2), st.floats(0.1, 4)).map(lambda drawn: (drawn[0], drawn[0] + drawn[1]))


def satisfies_equation_5(samples: int, epsilon: float, confidence: float, low: float, high: float) -> bool:
    """N ≥ (B - A)² ln(2/α) / (2 ε²), in exact decimals so that rounding cannot blur the smallest N."""
    alpha = 1 - Decimal(confidence)
    width = Decimal(high - low)
    return samples * 2 * Decimal(epsilon) ** 2 >= width**2 * (2 / alpha).ln()


def test_the_papers_example_needs_738_points():
    assert samples_needed(0.05, 0.95) == 738


@pytest.mark.parametrize(
    ("epsilon", "confidence", "samples"),
    [
        (0.1, 0.95, 185),  # ln 40 / 0.02 = 184.44
        (0.01, 0.95, 18445),  # ln 40 / 0.0002 = 18444.4
        (0.05, 0.99, 1060),  # ln 200 / 0.005 = 1059.66
        (0.5, 0.5, 3),  # ln 4 / 0.5 = 2.77
    ],
)
def test_closed_form(epsilon: float, confidence: float, samples: int):
    assert samples_needed(epsilon, confidence) == samples


def test_a_range_twice_as_wide_needs_four_times_the_points():
    assert samples_needed(0.1, 0.95, -1, 1) == math.ceil(4 * math.log(40) / 0.02)


@given(epsilons, confidences, ranges)
@settings(max_examples=300)
def test_no_smaller_sample_satisfies_equation_5(epsilon: float, confidence: float, values: tuple[float, float]):
    samples = samples_needed(epsilon, confidence, *values)
    assert satisfies_equation_5(samples, epsilon, confidence, *values)
    assert not satisfies_equation_5(samples - 1, epsilon, confidence, *values)


@given(st.integers(1, 10**6), confidences, ranges)
@settings(max_examples=200)
def test_epsilon_reached_is_the_inverse(samples: int, confidence: float, values: tuple[float, float]):
    epsilon = epsilon_reached(samples, confidence, *values)
    assert samples_needed(epsilon * (1 + 1e-9), confidence, *values) == samples
    assert samples_needed(epsilon * (1 - 1e-9), confidence, *values) == samples + 1


@given(confidences, st.integers(1, 10**5), st.floats(0.01, 0.5))
@settings(max_examples=100, deadline=None)
def test_union_bound_spends_alpha_once(confidence: float, estimates: int, epsilon: float):
    # As exactly as float64 can hold a number close to 1 …
    assert 1 - confidence_each(confidence, estimates) == pytest.approx((1 - confidence) / estimates, abs=2e-16)
    # … while N comes from α / estimates itself.
    failing = estimates * 2 * math.exp(-2 * epsilon**2 * samples_needed(epsilon, confidence, estimates=estimates))
    one_fewer = failing * math.exp(2 * epsilon**2)
    assert failing <= (1 - confidence) * (1 + 1e-9) < one_fewer * (1 + 2e-9)


def test_one_estimate_needs_no_union_bound():
    assert confidence_each(0.95, 1) == pytest.approx(0.95, abs=1e-15)


@pytest.mark.parametrize("truth", [0.01, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(("epsilon", "confidence"), [(0.05, 0.95), (0.1, 0.8)])
def test_bernoulli_estimates_miss_no_more_often_than_alpha(truth: float, epsilon: float, confidence: float):
    samples = samples_needed(epsilon, confidence)
    means = np.random.default_rng(1).binomial(samples, truth, 20000) / samples
    assert (np.abs(means - truth) > epsilon).mean() <= 1 - confidence


@pytest.mark.parametrize(("a", "b"), [(0.02, 0.02), (0.5, 2.0), (2.0, 2.0)])
def test_beta_estimates_miss_no_more_often_than_alpha(a: float, b: float):
    samples = samples_needed(0.1, 0.8)
    means = np.random.default_rng(2).beta(a, b, (4000, samples)).mean(1)
    assert (np.abs(means - a / (a + b)) > 0.1).mean() <= 0.2


def test_half_the_points_would_miss_more_often_than_alpha():
    # Beta(.02, .02) is nearly a fair coin, Hoeffding's worst case: shows that the two tests above can fail.
    samples = samples_needed(0.1, 0.8) // 3
    means = np.random.default_rng(3).beta(0.02, 0.02, (4000, samples)).mean(1)
    assert (np.abs(means - 0.5) > 0.1).mean() > 0.2


@pytest.mark.parametrize("epsilon", [0, -0.1, math.nan])
def test_no_epsilon_without_error(epsilon: float):
    with pytest.raises(ValueError, match="epsilon"):
        samples_needed(epsilon, 0.95)


@pytest.mark.parametrize("confidence", [0, 1, 1.5, -1, math.nan])
def test_confidence_lies_strictly_between_0_and_1(confidence: float):
    with pytest.raises(ValueError, match="confidence"):
        samples_needed(0.05, confidence)
    with pytest.raises(ValueError, match="confidence"):
        epsilon_reached(100, confidence)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, 0), (math.nan, 1)])
def test_an_empty_range_is_refused(low: float, high: float):
    with pytest.raises(ValueError, match="range"):
        samples_needed(0.05, 0.95, low, high)


def test_at_least_one_sample_and_one_estimate():
    with pytest.raises(ValueError, match="samples"):
        epsilon_reached(0, 0.95)
    with pytest.raises(ValueError, match="estimates"):
        confidence_each(0.95, 0)


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [(0.95, "0.95"), (0.999, "0.999"), (1 - 0.05 / 3564, "0.99998"), (0.5, "0.50"), (1.0, "1.00000000000000000")],
)
def test_a_confidence_is_never_spoken_as_more_than_it_is(confidence: float, expected: str):
    assert confidence_text(confidence) == expected
    assert float(confidence_text(confidence)) <= confidence
