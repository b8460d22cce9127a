"""The mean of outcomes, frequency, severity and the curve of distances, with their intervals."""

import numpy as np
import pytest
from builders import grid, planned
from scipy import stats

from deltaball.estimation.intervals import betting
from deltaball.estimation.statistics import Cumulative, Frequency, Mean, Severity
from deltaball.study.notions import NOTIONS

UNDECIDED = np.float32([1] * 6 + [0] * 3 + [np.nan])


def test_a_point_left_open_is_violated_below_and_robust_above():
    share = Mean(is_share=True)
    assert share.estimate(UNDECIDED) == pytest.approx(0.6)
    assert share.interval(UNDECIDED, 0.1) == pytest.approx((0.5, 0.8))
    lower, upper = share.tight_interval(UNDECIDED[None], 0.95)
    below, above = (stats.binomtest(count, 10).proportion_ci(0.95, "exact") for count in (6, 7))
    assert (lower[0], upper[0]) == pytest.approx((below.low, above.high))


def test_intervals_stay_in_the_range_and_scale_with_it():
    values = np.random.default_rng(0).uniform(size=(2, 50)).astype(np.float32)
    for highest in (0.03, 1.0):
        mean = Mean(highest)
        scaled = (highest * values).astype(np.float32)
        assert mean.interval(np.full(5, highest, np.float32), highest / 2) == (pytest.approx(highest / 2), highest)
        assert mean.interval(np.zeros(5, np.float32), highest / 2) == (0, pytest.approx(highest / 2))
        for found, expected in zip(mean.tight_interval(scaled, 0.9), betting(values, 0.9), strict=True):
            np.testing.assert_allclose(found / highest, expected, rtol=1e-5)


def test_a_distance_that_float32_rounds_up_is_no_larger_than_the_largest():
    highest = 0.1
    assert float(np.float32(highest)) > highest
    values = np.full((1, 20), highest, np.float32)
    assert Mean(highest).estimate(values[0]) == highest
    assert Mean(highest).tight_interval(values, 0.95)[1][0] == highest


def test_the_notion_says_which_interval_is_taken():
    asked = [
        {"notion": one.family, "delta": 0.1, **one.choices, **({one.threshold: 0.2} if one.threshold else {})}
        for one in NOTIONS.values()
    ]
    for measure in planned(grid(epochs=5), measures=asked).measures:
        tight = "clopper_pearson" if NOTIONS[measure.notion].is_share else "betting"
        assert Mean.of(measure).tight_inequality == tight
        assert Mean.of(measure).highest == NOTIONS[measure.notion].highest(0.1)


def test_frequency_and_severity_by_hand():
    distances = np.float32([0.01, 0.05, 0.02, 0.3, np.nan, np.inf, 0.0, 0.3])
    frequency, severity = Frequency(0.05 + 1e-6), Severity(0.05 + 1e-6)
    assert frequency.estimate(distances) == 0.5  # what was not found, or not decided, is a point and no hit
    assert severity.estimate(distances) == pytest.approx((0.01 + 0.05 + 0.02 + 0) / 4)
    assert frequency.interval(distances, 0.2) == pytest.approx((0.3, 0.7))
    assert frequency.tight_interval(distances, 0.95) == pytest.approx(
        stats.binomtest(4, 8).proportion_ci(0.95, "exact")
    )
    assert severity.error(distances) == pytest.approx(np.std([0.01, 0.05, 0.02, 0], ddof=1) / 2)
    lower, upper = betting(distances[[0, 1, 2, 6]], 0.95, 0, 0.05 + 1e-6)
    assert severity.tight_interval(distances, 0.95) == pytest.approx((lower, upper))


def test_a_search_that_was_cut_at_the_distance_itself_has_no_hit_there():
    cut = np.full(5, 8 / 255, np.float32)
    assert Frequency(8 / 255).estimate(cut) == 0
    assert np.isnan(Severity(8 / 255).estimate(cut))
    assert np.isnan(Severity(8 / 255).tight_interval(cut, 0.95)).all()


def test_the_severity_of_one_hit_is_it_and_says_next_to_nothing():
    lower, upper = Severity(0.1).tight_interval(np.float32([0.03, 1, 1]), 0.95)
    assert Severity(0.1).estimate(np.float32([0.03, 1, 1])) == pytest.approx(0.03)
    assert np.isnan(Severity(0.1).error(np.float32([0.03, 1, 1])))
    assert lower < 0.001
    assert upper == pytest.approx(0.1)


def test_the_band_of_a_curve_is_that_of_dvoretzky_kiefer_and_wolfowitz():
    distances = np.float32([0.1, 0.2, 0.3, 0.4, 1, 1, 1, 1])
    curve = Cumulative((0.05, 0.25, 0.5))
    assert curve.estimate(distances).tolist() == [0, 0.25, 0.5]
    half = np.sqrt(np.log(2 / 0.05) / (2 * 8))
    lower, upper = curve.band(distances, 0.95)
    assert lower == pytest.approx([0, 0, 0.5 - half])
    assert upper == pytest.approx([half, 0.25 + half, 0.5 + half])
    # At the N that Hoeffding asks for ε, it is ε: for the whole curve at once.
    assert Cumulative((2.0,)).band(np.ones(738), 0.95)[0][0] == pytest.approx(1 - 0.05, abs=1e-4)


def test_intervals_of_frequency_and_severity_cover_the_truth_as_often_as_they_say():
    # Distances are uniform in [0, 0.5]; beyond 0.4 nothing is found.
    random, draws, within, confidence = np.random.default_rng(0), 400, 0.1, 0.9
    grid_of_curve = np.linspace(0.01, 0.39, 77)
    missed = {"frequency": 0, "severity": 0, "curve": 0}
    for _ in range(draws):
        distances = random.uniform(0, 0.5, 120)
        distances[distances > 0.4] = np.inf
        lower, upper = Frequency(within).tight_interval(distances, confidence)
        missed["frequency"] += not lower <= 0.2 <= upper
        lower, upper = Severity(within).tight_interval(distances, confidence)
        missed["severity"] += not lower <= 0.05 <= upper
        lower, upper = Cumulative(tuple(grid_of_curve)).band(distances, confidence)
        missed["curve"] += not ((lower <= grid_of_curve / 0.5) & (grid_of_curve / 0.5 <= upper)).all()
    most = draws * 0.1 + 3 * np.sqrt(draws * 0.1 * 0.9)
    assert all(count <= most for count in missed.values()), missed
    # The band is no wider than it must be: over the whole curve it fails about as often as it may.
    assert missed["curve"] > 0.03 * draws
