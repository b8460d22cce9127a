"""The mean of outcomes and its intervals, where outcomes are shares, variations and distances."""

import numpy as np
import pytest
from builders import grid, planned
from scipy import stats

from deltaball.estimation.intervals import betting
from deltaball.estimation.statistics import Mean
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
