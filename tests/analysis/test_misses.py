"""What attacks miss of what exact answers violate: by hand, and how often the interval covers."""

import numpy as np
import pandas as pd
import pytest

from deltaball.analysis.misses import COLUMNS, misses, share

LEVEL = {"dataset": "mnist", "notion": "class_change", "norm": "linf", "gamma": np.nan, "delta": 0.1}


def measured(network: str, measure: str, attack: str | None, certificate: str | None) -> dict:
    row = {**LEVEL, "network_id": network, "measure": measure, "samples": 6}
    return row | {"attack": attack, "certificate": certificate}


def test_violations_are_counted_by_attack_and_open_points_are_told() -> None:
    rows = [
        measured(network, name, *judges)
        for network in ("a", "b")
        for name, judges in {
            "f": ("fgsm", None),
            "p": ("pgd", None),
            "e": (None, "exact-2"),
            "c": (None, "crown"),
        }.items()
    ]
    nan = np.nan
    said = {
        ("a", "e"): [0, 0, 0, 1, nan, 1],
        ("a", "f"): [0, 1, 1, 1, 1, 1],
        ("a", "p"): [0, 0, 1, 1, 1, 1],
        ("b", "e"): [0, 1, 1, 1, 1, nan],
        ("b", "f"): [0, 1, 1, 1, 1, 1],
        ("b", "p"): [0, 1, 1, 1, 1, 1],
        ("a", "c"): [0, 0, 0, 0, 0, 0],
        ("b", "c"): [0, 0, 0, 0, 0, 0],
    }
    outcomes = pd.DataFrame(
        [(*key, values) for key, values in said.items()], columns=["network_id", "measure", "values"]
    )
    found = misses(pd.DataFrame(rows), outcomes, 0.95).set_index("attack")
    assert list(found.index) == ["fgsm", "pgd"]
    assert found[["networks", "violated", "missed", "open"]].to_numpy().tolist() == [[2, 4, 2, 2], [2, 4, 1, 2]]
    assert found["share"].tolist() == [0.5, 0.25]
    assert ((found["lower"] < found["share"]) & (found["share"] < found["upper"])).all()


def test_without_outcomes_or_exact_answers_there_are_no_rows() -> None:
    rows = pd.DataFrame([measured("a", "f", "fgsm", None), measured("a", "c", None, "crown")])
    outcomes = pd.DataFrame({"network_id": ["a", "a"], "measure": ["f", "c"], "values": [[0.0] * 6] * 2})
    for found in (misses(rows, outcomes, 0.95), misses(rows, None, 0.95)):
        assert found.empty
        assert list(found) == COLUMNS


def test_of_one_network_the_interval_is_clopper_and_pearsons() -> None:
    # scipy.stats.binomtest(4, 100).proportion_ci(0.95)
    assert share(np.array([4.0]), np.array([100.0]), 738, 0.95) == pytest.approx((0.04, 0.011004, 0.099257), abs=1e-5)
    assert share(np.array([0.0]), np.array([100.0]), 738, 0.95) == pytest.approx((0, 0, 0.036217), abs=1e-5)
    assert np.isnan(share(np.zeros(3), np.zeros(3), 738, 0.95)).all()


def test_networks_that_miss_all_or_nothing_count_as_one_violation_each() -> None:
    _, lower, upper = share(np.array([50.0, 0, 0, 0]), np.full(4, 50.0), 738, 0.95)
    assert upper - lower > 0.7
    _, lower, upper = share(np.array([12.0, 13, 12, 13]), np.full(4, 50.0), 738, 0.95)
    assert upper - lower < 0.15
    # No more violations than there are points.
    _, lower, upper = share(np.full(40, 12.5), np.full(40, 50.0), 60, 0.95)
    assert upper - lower > 0.2


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_the_interval_covers_the_share(spread: float) -> None:
    random, covered = np.random.default_rng(0), 0
    for _ in range(400):
        shares = np.clip(0.15 + spread * random.standard_normal(20), 0, 1)
        _, lower, upper = share(random.binomial(40, shares).astype(float), np.full(20, 40.0), 738, 0.95)
        covered += lower <= 0.15 + (0.0031 if spread else 0) <= upper  # what clipping adds to the mean
    assert covered >= 0.93 * 400
