"""Intervals: their closed forms, their symmetries, and how often they and each of their ends miss the truth."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from deltaball.base.errors import InputError
from deltaball.base.guarantees import epsilon_reached
from deltaball.cli.main import main
from deltaball.estimation import sample_sizes
from deltaball.estimation.intervals import ROWS_AT_ONCE, betting, clopper_pearson, hoeffding, sandwich

CONFIDENCE, ALPHA = 0.95, 0.05
DRAWS, SAMPLES = 10_000, 200

confidences = st.floats(0.5, 0.9999)
outcomes = st.lists(st.floats(0, 1), min_size=1, max_size=60)
counts = st.integers(1, 2000).flatmap(lambda samples: st.tuples(st.integers(0, samples), st.just(samples)))
ranges = st.tuples(st.floats(-2, 2), st.floats(0.1, 4)).map(lambda drawn: (drawn[0], drawn[0] + drawn[1]))

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
# Outcomes and their mean. D outcomes have mass at 0: half of the last but one, and nine in ten of the last.
BINARY: dict[str, tuple[Draw, float]] = {
    f"bernoulli {share}": (lambda random, shape, share=share: (random.random(shape) < share).astype(float), share)
    for share in (0.5, 0.9, 0.99)
}
BOUNDED: dict[str, tuple[Draw, float]] = {
    **BINARY,
    "beta(2, 5)": (lambda random, shape: random.beta(2, 5, shape), 2 / 7),
    "half 0": (lambda random, shape: random.beta(2, 1, shape) * (random.random(shape) < 0.5), 1 / 3),
    "most 0": (lambda random, shape: random.beta(2, 1, shape) * (random.random(shape) < 0.1), 2 / 30),
}


def assert_misses_no_more_than(allowed: float, missed: np.ndarray):
    """The share of misses is not above `allowed` by more than three standard errors of the simulation."""
    assert missed.mean() <= allowed + 3 * math.sqrt(allowed * (1 - allowed) / len(missed))


def assert_covers(truth: float, lower: np.ndarray, upper: np.ndarray):
    assert len(lower) == len(upper) == DRAWS
    assert_misses_no_more_than(ALPHA / 2, lower > truth)
    assert_misses_no_more_than(ALPHA / 2, upper < truth)
    assert_misses_no_more_than(ALPHA, (lower > truth) | (upper < truth))


def test_the_check_of_coverage_can_fail():
    means = np.random.default_rng(0).binomial(SAMPLES, 0.99, DRAWS) / SAMPLES
    reach = 1.96 * np.sqrt(means * (1 - means) / SAMPLES)
    with pytest.raises(AssertionError):
        assert_covers(0.99, means - reach, means + reach)


@pytest.mark.parametrize("name", BOUNDED)
def test_hoeffding_covers(name: str):
    draw, truth = BOUNDED[name]
    means = draw(np.random.default_rng(1), (DRAWS, SAMPLES)).mean(1)
    epsilon = epsilon_reached(SAMPLES, CONFIDENCE)
    assert_covers(truth, *np.transpose([hoeffding(mean, epsilon) for mean in means]))


@pytest.mark.parametrize("name", BINARY)
def test_clopper_pearson_covers(name: str):
    draw, truth = BINARY[name]
    successes = draw(np.random.default_rng(2), (DRAWS, SAMPLES)).sum(1)
    assert_covers(truth, *clopper_pearson(successes, SAMPLES, CONFIDENCE))


@pytest.mark.parametrize("name", BOUNDED)
def test_betting_covers(name: str):
    draw, truth = BOUNDED[name]
    assert_covers(truth, *betting(draw(np.random.default_rng(3), (DRAWS, SAMPLES)), CONFIDENCE))


def test_betting_covers_in_another_range():
    values = 3 * np.random.default_rng(4).beta(0.5, 2, (DRAWS, SAMPLES)) - 1
    assert_covers(3 * 0.2 - 1, *betting(values, CONFIDENCE, -1, 2))


@pytest.mark.parametrize("gap", [0.0, 0.002, 0.03])
def test_the_sandwich_of_certified_and_attacked_points_covers(gap: float):
    random = np.random.default_rng(5)
    robust = random.random((DRAWS, SAMPLES)) < 0.7
    certified = robust & (random.random(robust.shape) >= gap)
    survived = robust | (random.random(robust.shape) < gap)
    below, above = (clopper_pearson(one.sum(1), SAMPLES, CONFIDENCE) for one in (certified, survived))
    assert_covers(0.7, *sandwich(below, above))


@pytest.mark.parametrize("gap", [0.0, 0.2])
def test_the_sandwich_of_attacked_and_certified_variation_covers(gap: float):
    random = np.random.default_rng(6)
    variation = BOUNDED["half 0"][0](random, (DRAWS, SAMPLES))
    found = variation * (1 - gap * random.random(variation.shape))
    bound = variation + gap * (1 - variation) * random.random(variation.shape)
    assert_covers(1 / 3, *sandwich(betting(found, CONFIDENCE), betting(bound, CONFIDENCE)))


def test_a_sandwich_takes_the_outer_ends():
    assert sandwich((0.1, 0.2), (0.3, 0.4)) == (0.1, 0.4)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60), confidences)
def test_a_sandwich_is_never_empty(pairs: list[tuple[float, float]], confidence: float):
    below, above = np.sort(pairs, 1).T
    lower, upper = sandwich(betting(below, confidence), betting(above, confidence))
    assert lower <= upper


@given(counts, confidences)
def test_clopper_pearson_is_scipys_exact_interval(count: tuple[int, int], confidence: float):
    exact = binomtest(*count).proportion_ci(confidence, "exact")
    assert clopper_pearson(*count, confidence) == pytest.approx((exact.low, exact.high), rel=1e-9)


def test_no_success_and_no_failure():
    # (1 - upper)^N = α/2 and lower^N = α/2.
    assert clopper_pearson(0, 738, 0.95) == pytest.approx((0, 1 - 0.025 ** (1 / 738)), rel=1e-9)
    assert clopper_pearson(738, 738, 0.95) == pytest.approx((0.025 ** (1 / 738), 1), rel=1e-12)
    assert clopper_pearson(0, 738, 0.95)[0] == 0
    assert clopper_pearson(738, 738, 0.95)[1] == 1


@given(counts, confidences)
def test_clopper_pearson_is_symmetric(count: tuple[int, int], confidence: float):
    successes, samples = count
    lower, upper = clopper_pearson(successes, samples, confidence)
    assert clopper_pearson(samples - successes, samples, confidence) == pytest.approx((1 - upper, 1 - lower), abs=1e-12)


@given(counts, confidences, confidences)
def test_a_surer_clopper_pearson_interval_holds_the_other(count: tuple[int, int], one: float, other: float):
    inner, outer = (clopper_pearson(*count, confidence) for confidence in sorted((one, other)))
    assert outer[0] <= inner[0] <= count[0] / count[1] <= inner[1] <= outer[1]


def test_clopper_pearson_of_many_counts():
    lower, upper = clopper_pearson(np.arange(51), 50, 0.9)
    assert lower.shape == upper.shape == (51,)
    assert (lower[7], upper[7]) == clopper_pearson(7, 50, 0.9)
    assert (np.diff(lower) > 0).all()
    assert (np.diff(upper) > 0).all()


@pytest.mark.parametrize("count", [(-1, 10), (11, 10), (0, 0), (math.nan, 10)])
def test_impossible_counts_are_refused(count: tuple[int, int]):
    with pytest.raises(ValueError, match="successes"):
        clopper_pearson(*count, 0.95)


def most_capital(values: list[float], mean: float, confidence: float, side: int) -> float:
    """What one who bets that the mean is larger (`side` 1) or smaller (-1) than `mean` owned at best, bet by bet."""
    capital = most = 1.0
    total, squares = 0.5, 0.25
    for before, value in enumerate(values, 1):
        wanted = math.sqrt(2 * math.log(2 / (1 - confidence)) / (len(values) * squares / before))
        capital *= 1 + side * min(wanted, 0.75 / (mean if side == 1 else 1 - mean)) * (value - mean)
        most = max(most, capital)
        total += value
        squares += (value - total / (before + 1)) ** 2
    return most


@given(outcomes, confidences)
@settings(max_examples=300)
def test_betting_refutes_what_lies_outside_and_nothing_inside(values: list[float], confidence: float):
    lower, upper = betting(values, confidence)
    mean, enough = np.mean(values), 2 / (1 - confidence)
    assert 0 <= lower <= mean <= upper <= 1
    # Outside of it every mean is refuted, up to rounding; inside none is, but for those that the mean's own place adds.
    for end, side in ((lower, 1), (upper, -1)):
        if 0 < end < 1:
            assert most_capital(values, end, confidence, side) >= enough * (1 - 1e-9)
        inside = end + side * 1e-6
        if end != mean and 0 < inside < 1:
            assert most_capital(values, inside, confidence, side) < enough


@pytest.mark.parametrize("samples", [4, 5, 6, 10])
def test_betting_on_few_ones(samples: int):
    # Every bet is capped, so the capital against m is (1 + .75 (1/m - 1))^N, and 2/α = 40 of it is enough.
    expected = 0.75 / (40 ** (1 / samples) - 0.25)
    assert betting(np.ones(samples), 0.95) == pytest.approx((expected, 1), abs=1e-7)
    assert betting(np.zeros(samples), 0.95) == pytest.approx((0, 1 - expected), abs=1e-7)


def test_betting_on_values_that_do_not_vary():
    lower, upper = betting(np.full(738, 0.3), 0.95)
    assert 0.295 < lower < 0.3 < upper < 0.305
    assert betting(np.ones(738), 0.95)[1] == 1
    assert betting(np.zeros(738), 0.95)[0] == 0


@given(outcomes, confidences)
def test_betting_is_symmetric(values: list[float], confidence: float):
    lower, upper = betting(values, confidence)
    assert betting(1 - np.array(values), confidence) == pytest.approx((1 - upper, 1 - lower), abs=2e-7)


@given(outcomes, confidences, ranges)
def test_betting_in_any_range(values: list[float], confidence: float, limits: tuple[float, float]):
    low, high = limits
    shifted = np.clip(low + (high - low) * np.array(values), low, high)
    expected = low + (high - low) * np.array(betting(values, confidence))
    found = betting(shifted, confidence, low, high)
    assert found == pytest.approx(expected, abs=2e-7 * (high - low))
    assert low <= found[0] <= shifted.mean() + 1e-12
    assert shifted.mean() - 1e-12 <= found[1] <= high


@pytest.mark.parametrize("name", BOUNDED)
def test_a_surer_betting_interval_holds_the_other(name: str):
    values = BOUNDED[name][0](np.random.default_rng(7), (50, SAMPLES))
    ends = [betting(values, confidence) for confidence in (0.5, 0.8, 0.95, 0.999, 1 - 1e-6)]
    for inner, outer in itertools.pairwise(ends):
        assert (outer[0] <= inner[0]).all()
        assert (outer[1] >= inner[1]).all()
        assert (np.subtract(*outer) < np.subtract(*inner)).mean() > 0.9  # not where both reach an end of the range


def test_rounding_leads_nowhere_outside_the_range():
    # In float64 -.7 + (.9 - -.7) is more than .9.
    assert betting(np.full(10, 0.9), 0.95, -0.7, 0.9)[1] == 0.9
    # The mean of ten .3 is less than .3.
    assert betting(np.full(10, 0.3), 0.95, 0.3, 0.9)[0] == 0.3


def test_betting_of_rows_is_that_of_each():
    values = np.random.default_rng(8).beta(0.3, 0.6, (2, ROWS_AT_ONCE, 30))
    lower, upper = betting(values, 0.9)
    assert lower.shape == upper.shape == (2, ROWS_AT_ONCE)
    for place in ((0, 0), (0, ROWS_AT_ONCE - 1), (1, 0), (1, 7)):
        assert (lower[place], upper[place]) == betting(values[place], 0.9)


def test_betting_on_single_precision_is_that_on_the_same_numbers():
    # Values that do not vary: in single precision their rounding would add up.
    values = np.repeat(np.random.default_rng(9).random((50, 1)).astype(np.float32), 200, 1)
    np.testing.assert_array_equal(betting(values, 0.95, -1, 2), betting(values.astype(np.float64), 0.95, -1, 2))


def test_betting_on_a_stream_that_drifts_holds_its_mean():
    # The ones refute every mean below .98, the zeros after them many above: no mean is left.
    values = np.repeat([1.0, 0.0], [300, 438])
    lower, upper = betting(values, 0.95)
    assert lower == values.mean() < upper


@pytest.mark.parametrize("name", BOUNDED)
def test_betting_is_narrower_than_hoeffding_and_empirical_bernstein(name: str):
    values = BOUNDED[name][0](np.random.default_rng(10), (100, 738))
    lower, upper = betting(values, 0.95)
    widths = upper - lower
    # Maurer & Pontil (2009), Theorem 4, each end at α/2.
    log = math.log(2 / (ALPHA / 2))
    bernstein = 2 * (values.std(1, ddof=1) * math.sqrt(2 * log / 738) + 7 * log / (3 * 737))
    assert (widths < bernstein).all()
    assert (widths < 2 * 0.05).all()


@pytest.mark.parametrize("values", [[], 0.5])
def test_no_values_are_refused(values: object):
    with pytest.raises(ValueError, match="at least one"):
        betting(values, 0.95)


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_values_outside_the_range_are_refused(value: float):
    with pytest.raises(ValueError, match="lie in"):
        betting([0.5, value], 0.95)


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match="range"):
        betting([1.0], 0.95, 1, 1)


@pytest.mark.parametrize("confidence", [0, 1, -1, math.nan])
def test_confidence_lies_strictly_between_0_and_1(confidence: float):
    with pytest.raises(ValueError, match="confidence"):
        betting([0.5], confidence)
    with pytest.raises(ValueError, match="confidence"):
        clopper_pearson(1, 2, confidence)


def sampled(capsys: pytest.CaptureFixture, options: str) -> dict[str, list[str]]:
    """What `deltaball samples` prints: the numbers of each row, by the words before them."""
    assert main(["samples", *options.split()]) == 0
    rows = [line.strip().split("  ") for line in capsys.readouterr().out.splitlines()]
    return {label: [cell.strip() for cell in cells if cell.strip()] for label, *cells in rows}


def test_the_numbers_of_the_papers_example(capsys: pytest.CaptureFixture):
    rows = sampled(capsys, "--epsilon 0.05 --confidence 0.95 --networks 14913")
    assert rows["Hoeffding, Chernoff: what a study draws"] == ["738", "2,660"]  # ln(2 · 14,913 / .05) / .005 = 2659.8
    assert rows["Dvoretzky-Kiefer-Wolfowitz: for every γ at once"] == ["738", "2,660"]
    assert rows["Chebyshev"] == ["2,000", "29,826,000"]  # 1 / (4 · .0025 · .05), times 14,913
    assert rows["normal approximation, standard deviation 0.5"][0] == "385"  # (1.95996 / .1)² = 384.1
    assert rows["Clopper-Pearson, R alone"] == ["402", "2,169"]
    assert rows["each estimate"] == ["all 14,913 at once"]


def test_one_estimate_has_one_column(capsys: pytest.CaptureFixture):
    rows = sampled(capsys, "--epsilon 0.1 --confidence 0.95")
    assert rows["Hoeffding, Chernoff: what a study draws"] == ["185"]
    assert rows["each estimate"] == []
    assert max(len(cells) for cells in rows.values()) == 1


def test_a_range_scales_epsilon_and_has_no_shares(capsys: pytest.CaptureFixture):
    rows = sampled(capsys, "--epsilon 0.1 --confidence 0.95 --low -1 --high 1")
    assert rows["Hoeffding, Chernoff: what a study draws"] == ["738"]
    assert rows["normal approximation, standard deviation 1"] == ["385"]
    assert "betting, standard deviation 0.5 (simulated)" in rows
    assert not [label for label in rows if label.startswith("Clopper-Pearson")]


def test_what_cannot_be_simulated_in_time_is_not(capsys: pytest.CaptureFixture):
    rows = sampled(capsys, "--epsilon 0.0001 --confidence 0.95")
    assert rows["betting, standard deviation 0.25 (simulated)"] == ["too large"]
    assert rows["Hoeffding, Chernoff: what a study draws"] == ["184,443,973"]


@pytest.mark.parametrize(("epsilon", "confidence", "networks"), [(0.05, 0.95, 1), (0.1, 0.8, 1), (0.05, 0.95, 14913)])
def test_clopper_pearsons_samples_do_whatever_the_outcomes(epsilon: float, confidence: float, networks: int):
    samples = sample_sizes.clopper_pearson(sample_sizes.Asked(epsilon, confidence, networks), 0.5)
    confidence = 1 - (1 - confidence) / networks
    for enough in (samples, samples + 1):
        assert np.ptp(clopper_pearson(np.arange(enough + 1), enough, confidence), 0).max() <= 2 * epsilon
    assert np.ptp(clopper_pearson((samples - 1) / 2, samples - 1, confidence), 0) > 2 * epsilon
    # Scipy on whole numbers: N at 1/2, and the next smaller one that has a half.
    for whole, narrow in ((samples + samples % 2, True), (samples - 2 + samples % 2, False)):
        exact = binomtest(whole // 2, whole).proportion_ci(confidence, "exact")
        assert (exact.high - exact.low <= 2 * epsilon) == narrow


@pytest.mark.parametrize(("share", "unit"), [(0.9, 10), (0.99, 100)])
def test_clopper_pearsons_samples_at_a_share(share: float, unit: int):
    samples = sample_sizes.clopper_pearson(sample_sizes.Asked(0.01, 0.95), share)
    enough, too_few = math.ceil(samples / unit) * unit, math.ceil(samples / unit - 1) * unit
    for whole, narrow in ((enough, True), (too_few, False)):
        exact = binomtest(round(share * whole), whole).proportion_ci(0.95, "exact")
        assert (exact.high - exact.low <= 0.02) == narrow


@pytest.mark.parametrize("networks", [1, 14913])
@pytest.mark.parametrize("deviation", sample_sizes.DEVIATIONS)
def test_bettings_samples_give_the_half_width(deviation: float, networks: int):
    samples = sample_sizes.betting(sample_sizes.Asked(0.05, 0.95, networks), deviation)
    shape = (1 / (4 * deviation**2) - 1) / 2
    for factor, narrow in ((1.1, True), (0.85, False)):
        draws = np.random.default_rng(11).beta(shape, shape, (300, round(factor * samples)))
        assert draws.std() == pytest.approx(deviation, rel=0.02)
        assert (np.median(np.diff(betting(draws, 1 - 0.05 / networks), axis=0)) <= 0.1) == narrow


@pytest.mark.parametrize("asked", [sample_sizes.Asked(0.05, 0.95), sample_sizes.Asked(0.02, 0.9, 1000)])
def test_chebyshev_and_the_normal_approximation_are_solved_for_samples(asked: sample_sizes.Asked):
    for samples, enough in ((sample_sizes.chebyshev(asked), True), (sample_sizes.chebyshev(asked) - 1, False)):
        assert (1 / (4 * samples * asked.epsilon**2) <= asked.alpha) == enough
    for samples, enough in ((sample_sizes.normal(asked), True), (sample_sizes.normal(asked) - 1, False)):
        assert (math.erfc(asked.epsilon * math.sqrt(2 * samples)) <= asked.alpha) == enough


@pytest.mark.parametrize(
    "options",
    [
        "--epsilon 0 --confidence 0.95",
        "--epsilon -0.1 --confidence 0.95",
        "--epsilon nan --confidence 0.95",
        "--epsilon 1 --confidence 0.95",
        "--epsilon 1e-9 --confidence 0.95",
        "--confidence 0 --epsilon 0.05",
        "--confidence 1 --epsilon 0.05",
        "--confidence 0.9999999999999 --epsilon 0.05",
        "--networks 0 --epsilon 0.05 --confidence 0.95",
        f"--networks {10**400} --epsilon 0.05 --confidence 0.95",
        "--low 1 --epsilon 0.05 --confidence 0.95",
        "--low nan --epsilon 0.05 --confidence 0.95",
        "--low 0 --high inf --epsilon 0.05 --confidence 0.95",
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(options: str, capsys: pytest.CaptureFixture):
    assert main(["samples", *options.split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"deltaball: {options.split()[0]} ")
    assert said.err.count("\n") == 1


def test_samples_takes_no_study():
    with pytest.raises(SystemExit):
        main(["samples", "--epsilon", "0.05", "--confidence", "0.95", "--study", "config.yaml"])


def test_the_union_bound_asks_for_no_more_than_float64_tells():
    sample_sizes.Asked(0.05, 0.95, networks=10**10)
    with pytest.raises(InputError, match="too close to 1 for"):
        sample_sizes.Asked(0.05, 0.95, networks=10**11)


@pytest.mark.parametrize(
    ("estimate", "expected"), [(0.5, (0.4, 0.6)), (0.0, (0.0, 0.1)), (0.97, (0.87, 1.0)), (1.0, (0.9, 1.0))]
)
def test_an_interval_is_epsilon_on_both_sides_within_the_range(estimate: float, expected: tuple[float, float]):
    assert hoeffding(estimate, 0.1) == pytest.approx(expected)


def test_an_interval_of_another_range():
    assert hoeffding(-0.95, 0.2, -1, 1) == pytest.approx((-1, -0.75))
