"""Adversarial frequency, severity and the curve of distances: worked out by hand, and what proofs leave of them."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deltaball.analysis.distances import COLUMNS, CURVES, STEPS, bracket, cumulative, distances
from deltaball.base.guarantees import epsilon_reached
from deltaball.estimation.intervals import betting

ABOUT = {
    "network_id": "a",
    "dataset": "mnist",
    "grid": "one",
    "method": "sgd",
    "architecture": "fcn",
    "objective": "cross_entropy",
}
ABOUT |= dict.fromkeys(("noise", "against", "constraint", "adversary", "rounds"))
ABOUT |= {"test_accuracy": 0.9, "norm": "linf", "gamma": np.nan, "samples": 8, "epsilon": 0.1, "confidence": 0.95}
NAN, WITHIN = np.nan, 20 / 255


def row(measure: str, notion: str, delta: float, attack: str | None = None, certificate: str | None = None) -> dict:
    epsilon = 0.1 * delta if notion == "margin" else 0.1
    judges = {"attack": attack, "certificate": certificate, "sampling": None}
    return ABOUT | {"measure": measure, "notion": notion, "delta": delta, "epsilon": epsilon} | judges


FMN = row("fmn", "margin", 0.2, "fmn")
#          found at, and not at all within 0.2
NEAREST = [0.01, 0.05, 0.07, 0.1, 0.15, 0.2, 0.2, 0.2]


def judged(*said: tuple[dict, list[float]], within: tuple[float, ...] = (WITHIN,)) -> pd.DataFrame:
    outcomes = [("a", one["measure"], np.float32(values)) for one, values in said]
    table = pd.DataFrame(outcomes, columns=["network_id", "measure", "values"])
    return distances(pd.DataFrame([one for one, _ in said]), table, within).set_index(["measure", "within"])


def test_an_attack_bounds_frequency_from_below_and_severity_not_at_all() -> None:
    found = judged((FMN, NEAREST))
    assert found.index.tolist() == [("fmn", WITHIN), ("fmn", 0.2)]
    at = found.loc[("fmn", WITHIN)]
    assert (at["hits"], at["frequency"]) == (3, 3 / 8)
    assert at["severity"] == pytest.approx(np.mean([0.01, 0.05, 0.07]))
    assert (at["frequency_lower"], at["frequency_upper"]) == pytest.approx((3 / 8 - 0.1, 3 / 8 + 0.1))
    exact = stats.binomtest(3, 8).proportion_ci(0.95, "exact")
    assert (at["frequency_tight_lower"], at["frequency_tight_upper"]) == pytest.approx((exact.low, exact.high))
    ends = betting(np.float32([0.01, 0.05, 0.07]), 0.95, 0, WITHIN)
    assert (at["severity_lower"], at["severity_upper"]) == pytest.approx(ends)
    assert at["frequency_side"] == "lower"
    nothing = ["severity_side", "severity_least", "severity_most", "severity_enclosed_lower", "frequency_most", "open"]
    assert at[nothing].isna().all()
    # Three points at which nothing is found within 0.2 are points, and no hits.
    assert found.loc[("fmn", 0.2), "frequency"] == 5 / 8


def test_no_hit_has_no_severity() -> None:
    at = judged((FMN, [0.2] * 8)).loc[("fmn", WITHIN)]
    assert at["frequency"] == at["frequency_lower"] == 0
    assert at[["severity", "severity_lower", "severity_upper", "severity_least"]].isna().all()


def test_certificates_bound_frequency_from_above_and_bracket_severity() -> None:
    crown = row("crown", "class_change", 0.1, None, "crown")
    near = row("ibp", "class_change", 0.02, None, "ibp")
    found = judged((FMN, NEAREST), (crown, [0, 0, 0, 0, 0, 1, 1, 1]), (near, [0, 1, 1, 1, 1, 1, 0, 0]))
    at = found.loc[("fmn", WITHIN)]
    # Open: the points at 0.1 and 0.15, beyond 0.02. A proof in the larger ball holds in the smaller.
    assert (at["open"], at["frequency_most"]) == (2, 5 / 8)
    ends = (stats.binomtest(count, 8).proportion_ci(0.95, "exact") for count in (3, 5))
    below, above = ends
    assert (at["frequency_enclosed_lower"], at["frequency_enclosed_upper"]) == pytest.approx((below.low, above.high))
    # Nearest: 0, 0.02 and 0.02, and no open point makes that less.
    assert at["severity_least"] == pytest.approx(0.04 / 3)
    assert at["severity_most"] == pytest.approx((0.01 + 0.05 + 0.07 + 2 * WITHIN) / 5)
    assert np.isnan(at["severity_enclosed_lower"])
    assert list(found.index.get_level_values("measure").unique()) == ["fmn"]  # proofs have no row


def test_where_every_point_is_decided_frequency_is_exact_and_severity_has_two_sides() -> None:
    exact = row("exact", "class_change", WITHIN, None, "exact")
    found = judged((FMN, NEAREST), (exact, [0, 0, 0, 1, 1, 1, 1, 1]))
    at = found.loc[("fmn", WITHIN)]
    assert (at["frequency_side"], at["open"], at["frequency_most"]) == ("exact", 0, 3 / 8)
    assert pd.isna(at["severity_side"])
    assert (at["severity_least"], at["severity_most"]) == pytest.approx((0, at["severity"]))
    assert at["severity_enclosed_lower"] == 0
    assert at["severity_enclosed_upper"] == pytest.approx(at["severity_upper"])
    # The exact answer about the ball has a row of its own, and knows of no distance.
    alone = found.loc[("exact", WITHIN)]
    assert (alone["hits"], alone["frequency_side"]) == (3, "exact")
    assert np.isnan(alone["severity"])


def test_exact_distances_are_their_own_bracket_until_one_is_left_open() -> None:
    distance = row("exact", "margin", 0.2, None, "exact")
    at = judged((distance, NEAREST)).loc[("exact", WITHIN)]
    assert (at["frequency_side"], at["severity_side"]) == ("exact", "exact")
    assert (at["severity_least"], at["severity_most"]) == pytest.approx((at["severity"],) * 2, rel=1e-5)
    assert (at["severity_enclosed_lower"], at["severity_enclosed_upper"]) == pytest.approx(
        (at["severity_lower"], at["severity_upper"]), rel=1e-4
    )
    at = judged((distance, [*NEAREST[:-1], NAN])).loc[("exact", WITHIN)]
    assert (at["frequency_side"], at["open"], at["hits"]) == ("lower", 1, 3)
    assert pd.isna(at["severity_side"])


def test_an_attack_on_the_ball_has_a_frequency_at_its_radius_and_no_severity() -> None:
    fgsm = row("fgsm", "class_change", WITHIN, "fgsm")
    elsewhere = row("pgd", "class_change", 0.1, "pgd")
    found = judged((FMN, NEAREST), (fgsm, [0, 1, 1, 1, 1, 1, 1, 1]), (elsewhere, [0] * 8))
    assert found.index.tolist() == [("fmn", WITHIN), ("fmn", 0.2), ("fgsm", WITHIN)]
    assert found.loc[("fgsm", WITHIN), "frequency"] == 1 / 8
    assert np.isnan(found.loc[("fgsm", WITHIN), "severity"])


def test_other_notions_norms_and_networks_bear_on_nothing() -> None:
    other = row("crown", "class_change", 0.2, None, "crown") | {"norm": "l2"}
    variation = row("d", "softmax_variation", 0.2, None, "crown")
    at = judged((FMN, NEAREST), (other, [1] * 8), (variation, [0] * 8)).loc[("fmn", WITHIN)]
    assert pd.isna(at["open"])


def test_the_bracket_is_the_least_and_the_largest_of_all_that_is_possible() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        nearest = random.uniform(0, 1, random.integers(1, 4))
        furthest = random.uniform(nearest, 1)
        left = random.uniform(0, 1, random.integers(0, 5))
        subsets = [subset for size in range(len(left) + 1) for subset in itertools.combinations(left, size)]
        least = min(np.mean([*nearest, *subset]) for subset in subsets)
        most = max(np.mean([*furthest, *[1.0] * len(subset)]) for subset in subsets)
        assert bracket(nearest, furthest, left, 1.0) == pytest.approx((least, most))


def test_what_is_enclosed_covers_the_truth_that_an_attack_and_a_proof_miss() -> None:
    random, missed = np.random.default_rng(0), 0
    for _ in range(50):
        truth = random.uniform(0, 0.4, 60)
        found = np.minimum(truth * random.choice([1.0, 1.0, 1.5], 60), 0.2)
        proven = (truth > 0.1) & (random.uniform(size=60) < 0.9)
        rows = [one | {"samples": 60, "confidence": 0.9} for one in (FMN, row("c", "class_change", 0.1, None, "crown"))]
        table = pd.DataFrame(
            [("a", "fmn", np.float32(found)), ("a", "c", np.float32(proven))],
            columns=["network_id", "measure", "values"],
        )
        at = distances(pd.DataFrame(rows), table, [0.1]).iloc[0]
        within = truth[truth <= 0.1]
        assert at["frequency"] <= len(within) / 60 <= at["frequency_most"]
        assert at["severity_least"] <= within.mean() <= at["severity_most"]
        missed += not at["frequency_enclosed_lower"] <= 0.25 <= at["frequency_enclosed_upper"]
    assert missed <= 8


def test_the_curve_has_a_band_and_rises() -> None:
    outcomes = pd.DataFrame([("a", "fmn", np.float32(NEAREST))], columns=["network_id", "measure", "values"])
    curve = cumulative(pd.DataFrame([FMN]), outcomes, [WITHIN, 0.3])
    assert len(curve) == STEPS + 2
    assert curve.set_index("within").loc[WITHIN, "frequency"] == 3 / 8
    assert set(curve["kind"]) == {"FCN"}
    assert curve["within"].iloc[-1] == 0.2
    assert curve["frequency"].is_monotonic_increasing
    assert curve["frequency"].iloc[-1] == 5 / 8
    half = epsilon_reached(8, 0.95)
    assert curve["upper"].to_list() == pytest.approx((curve["frequency"] + half).clip(upper=1).to_list())


def test_without_outcomes_or_distances_there_are_no_rows() -> None:
    outcomes = pd.DataFrame([("a", "g", np.ones(8))], columns=["network_id", "measure", "values"])
    rows = pd.DataFrame([row("g", "class_change", WITHIN, "fgsm")])
    for found, columns in (
        (distances(rows, outcomes, [WITHIN]), COLUMNS),
        (distances(rows, None, [WITHIN]), COLUMNS),
        (cumulative(rows, outcomes, [WITHIN]), CURVES),
    ):
        assert found.empty
        assert list(found) == columns
