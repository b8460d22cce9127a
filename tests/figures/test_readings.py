"""One sentence per figure: it says what the intervals allow, whichever way the measure runs."""

import numpy as np
import pandas as pd
import pytest

from deltaball.figures import readings
from deltaball.figures.trends import fitted


def networks(
    slope: float, notion: str = "class_change", noise: float = 0.01, count: int = 40, **fixed: object
) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    accuracy = generator.uniform(0.5, 1, count)
    return pd.DataFrame(
        {
            "test_accuracy": accuracy,
            "estimate": 0.5 + slope * (accuracy - 0.75) + generator.normal(0, noise, count),
            "cluster": [str(place // 2) for place in range(count)],
            "method": "sgd",
            "architecture": "fcn",
            "notion": notion,
            "delta": 0.1,
        }
    ).assign(**fixed)


@pytest.mark.parametrize(
    ("slope", "notion", "verdict"),
    [(0.5, "class_change", "rises"), (-0.5, "class_change", "falls"), (0.5, "softmax_variation", "falls")],
)
def test_the_direction_is_that_of_robustness(slope: float, notion: str, verdict: str) -> None:
    said = readings.trends([networks(slope, notion)] * 2)
    assert f"{verdict} in 2 of 2 fits" in said


def test_a_single_line_is_told_by_its_interval() -> None:
    panel = networks(-0.5)
    lower, upper = (0.1 * end for end in fitted(panel).slope())
    assert lower < -0.05 < upper
    assert f"{lower:+.3f} to {upper:+.3f}".replace("-", "−") in readings.trends([panel])


def test_a_slope_whose_interval_holds_zero_is_given_no_direction() -> None:
    said = readings.trends([networks(0.0, noise=0.2)] * 3)
    assert "is undecided in 3 of 3 fits" in said
    assert "rises in" not in said
    assert "falls in" not in said


def test_networks_that_are_alike_have_no_line() -> None:
    assert "No line can be fitted" in readings.trends([networks(0.0, noise=0.0)])
    assert "No line can be fitted" in readings.trends([networks(0.5, cluster="one")])


@pytest.mark.parametrize(("notion", "sign"), [("class_change", 1), ("softmax_variation", -1)])
def test_pruning_is_told_by_what_all_panels_leave_possible(notion: str, sign: int) -> None:
    pruned = networks(0.0, notion, count=20, method="imp", proportion=0.9)
    panel = pruned.assign(trunk_estimate=pruned["estimate"] - 0.1 - 0.01 * (np.arange(20) // 2 % 2))
    low, high = sorted((0.105 - 0.004 * sign, 0.105 + 0.004 * sign))
    said = readings.pruning([panel, panel])
    ends = [float(one.replace("−", "-")) for one in said.split("by ")[1].split(" (")[0].split(" to ")]
    assert ends[0] < sign * 0.105 < ends[1]
    assert np.abs(ends) == pytest.approx([low, high], abs=0.002) or np.abs(ends)[::-1] == pytest.approx(
        [low, high], abs=0.002
    )
    assert "too few dense trunks" in readings.pruning([panel.head(4)]).lower()


def test_lines_stop_where_the_measure_does() -> None:
    fit = fitted(networks(4.0))
    low, high = fit.inside(0.0, 1.0)
    assert fit.low < low < high < fit.high
    assert fit.band(np.array([low, high]))[0] == pytest.approx([0, 1])
    assert fitted(networks(0.4)).inside(0, 1) == pytest.approx((fit.low, fit.high))
    assert fit.inside(5.0, 6.0) is None
