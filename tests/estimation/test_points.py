"""Which test points are drawn."""

import numpy as np
import pytest

from deltaball.data.catalogue import CATALOGUE
from deltaball.estimation.points import draw_points


def test_a_larger_sample_only_adds_points():
    facts = CATALOGUE["mnist5k"]
    large = draw_points(facts, 738, 0)
    for samples in (1, 100, 737):
        np.testing.assert_array_equal(draw_points(facts, samples, 0), large[:samples])


def test_no_point_is_drawn_twice():
    facts = CATALOGUE["mnist5k"]
    assert sorted(draw_points(facts, facts.test, 0)) == list(range(facts.test))


def test_points_are_the_same_for_everybody_but_differ_by_seed_and_data():
    facts = CATALOGUE["mnist5k"]
    draws = [draw_points(facts, 100, 0), draw_points(facts, 100, 1), draw_points(CATALOGUE["mnist"], 100, 0)]
    np.testing.assert_array_equal(draw_points(facts, 100, 0), draws[0])
    assert len({tuple(draw) for draw in draws}) == 3
    # Golden: outcomes in stores belong to these points.
    assert draws[0][:5].tolist() == [797, 98, 399, 386, 129]


def test_points_are_drawn_evenly():
    facts = CATALOGUE["mnist5k"]
    means = [draw_points(facts, 100, seed).mean() for seed in range(200)]
    # Standard error of the mean of 100 of 0…999 without replacement: 288.7 √(0.9 / 100) = 27.4; of 200 such: 1.94.
    assert abs(np.mean(means) - 499.5) < 4 * 1.94
    assert 20 < np.std(means) < 35


def test_more_points_than_there_are_cannot_be_drawn():
    with pytest.raises(ValueError, match="1001 points asked of a test split of 1000"):
        draw_points(CATALOGUE["mnist5k"], 1001, 0)
