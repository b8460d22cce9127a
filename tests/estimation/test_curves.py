"""R(δ) and D(δ) from both sides, and the convergence of draws, from outcomes made by hand."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import grid, planned
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from deltaball.base.errors import InputError
from deltaball.estimation.convergence import convergence
from deltaball.estimation.curves import MARGIN_STEPS, curves
from deltaball.plan.plan import Plan
from deltaball.tables import columns

LOOSE = {"epsilon": 0.4, "confidence": 0.95}  # 12 points


def table_of(plan: Plan, values: Mapping[str, Any]) -> pd.DataFrame:
    """Outcomes of the plan's first network, by measure."""
    rows = [{"network_id": plan.networks[0].id, "measure": name, "values": each} for name, each in values.items()]
    return pd.DataFrame(rows, columns=["network_id", "measure", "values"])


def one_network(*measures: dict, **changed: Any) -> Plan:
    return planned(grid(epochs=5), measures=list(measures), guarantee=LOOSE, **changed)


def named(plan: Plan, *values: Any) -> pd.DataFrame:
    """Outcomes for the plan's measures in their order."""
    return table_of(plan, dict(zip([one.name for one in plan.measures], values, strict=True)))


def rows(plan: Plan, *values: Any) -> pd.DataFrame:
    return curves(plan, named(plan, *values)).set_index("delta")


def test_a_violation_holds_in_larger_balls_and_a_proof_in_smaller_ones():
    plan = one_network(
        {"notion": "class_change", "delta": [0.2, 0.1], "attack": "pgd"},
        {"notion": "class_change", "delta": [0.1, 0.2, 0.05], "certificate": "crown"},
    )
    attacked_2, attacked_1 = np.ones(12), np.ones(12)
    attacked_1[:4] = 0  # which the attack at 0.2 missed, but for the first
    attacked_2[:1] = 0
    proven = np.zeros(12)
    proven[6:] = 1  # at 0.2, and not at 0.05
    table = rows(plan, attacked_2, attacked_1, np.zeros(12), proven, np.zeros(12))
    assert table.index.tolist() == [0.05, 0.1, 0.2]
    assert np.isnan(table.loc[0.05, "attacked"])
    assert table["attacked"].tolist()[1:] == [8 / 12, 8 / 12]
    assert table["certified"].tolist() == [0.5, 0.5, 0.5]
    assert table["open"].tolist()[1:] == pytest.approx([2 / 12, 2 / 12])
    assert set(table["samples"]) == {12}


def test_the_sandwich_takes_each_end_from_its_side():
    plan = one_network(
        {"notion": "class_change", "delta": 0.1, "attack": ["fgsm", "pgd"], "certificate": ["ibp", "crown"]}
    )
    steps = np.arange(12)
    table = rows(plan, steps > 0, steps > 2, steps > 8, steps > 5)
    (row,) = table.itertuples()
    assert (row.attacked, row.certified) == (9 / 12, 6 / 12)
    below, above = (stats.binomtest(count, 12).proportion_ci(0.95, "exact") for count in (6, 9))
    assert (row.lower, row.upper) == pytest.approx((below.low, above.high))


def test_a_variation_is_enclosed_the_other_way_round():
    plan = one_network({"notion": "softmax_variation", "delta": [0.1, 0.2], "attack": "pgd", "certificate": "crown"})
    found = rows(plan, np.full(12, 0.3), np.full(12, 0.2), np.full(12, 0.9), np.full(12, 0.6))
    assert found["attacked"].tolist() == pytest.approx([0.3, 0.3])
    assert found["certified"].tolist() == pytest.approx([0.6, 0.6])
    assert (found["lower"] < 0.3).all()
    assert (found["upper"] > 0.6).all()
    assert found["open"].isna().all()


def test_exact_answers_speak_for_both_sides_and_open_points_for_none():
    plan = one_network({"notion": "class_change", "delta": [0.1, 0.2], "certificate": "exact"})
    small, large = np.ones(12), np.ones(12)
    small[0], small[1] = 0, np.nan
    large[:4], large[4] = 0, np.nan
    found = rows(plan, small, large)
    assert found["attacked"].tolist() == [11 / 12, 8 / 12]
    assert found["certified"].tolist() == [10 / 12, 7 / 12]
    assert found["open"].tolist() == pytest.approx([1 / 12, 1 / 12])


def test_distances_make_a_curve_of_their_own():
    plan = one_network(
        {"notion": "margin", "delta": 0.3},
        {"notion": "class_change", "delta": 0.1, "attack": "fgsm"},
        {"notion": "margin", "delta": 0.3, "certificate": "crown"},
    )
    distances = np.float32([0.05] * 3 + [0.15] * 3 + [0.3] * 6)  # the last six were never changed
    fgsm = np.ones(12)
    fgsm[3] = 0  # closer than the distance found
    proven = np.float32([0] * 6 + [0.3] * 6)
    found = rows(plan, distances, fgsm, proven)
    assert len(found) == MARGIN_STEPS
    assert found.loc[0.03, "attacked"] == 1
    assert found.loc[0.06, "attacked"] == 9 / 12
    assert found.loc[found.index > 0.09].iloc[0]["attacked"] == 8 / 12
    assert found["attacked"].iloc[-1] == 6 / 12
    assert (found["certified"] == 0.5).all()
    assert found["open"].tolist() == pytest.approx((found["attacked"] - 0.5).tolist())


def test_a_cap_that_float32_rounds_down_is_still_reached():
    cap = 0.7
    assert float(np.float32(cap)) < cap
    plan = one_network({"notion": "margin", "delta": cap, "attack": "fmn", "certificate": "crown"})
    found = rows(plan, np.full(12, cap, np.float32), np.full(12, cap, np.float32))
    assert (found[["attacked", "certified"]] == 1).all(axis=None)


def test_a_proof_beside_a_violation_stops_everything():
    plan = one_network({"notion": "class_change", "delta": 0.1, "attack": "fgsm", "certificate": "crown"})
    steps = np.arange(12)
    with pytest.raises(InputError, match=rf"network {plan.networks[0].id}.*proven and violated at test point 3"):
        curves(plan, named(plan, steps > 3, steps > 2))


def test_a_variation_found_above_the_one_proven_stops_everything():
    plan = one_network({"notion": "softmax_variation", "delta": 0.1, "attack": "pgd", "certificate": "crown"})
    with pytest.raises(InputError, match="proven and violated"):
        curves(plan, named(plan, np.full(12, 0.4), np.full(12, 0.3)))


def test_families_do_not_mix():
    plan = one_network(
        {"notion": "class_change", "delta": 0.1, "norm": ["linf", "l2"], "attack": "pgd"},
        {"notion": "variation_above", "gamma": [0.2, 0.5], "delta": 0.1, "certificate": "crown"},
    )
    found = curves(plan, named(plan, np.ones(12), np.zeros(12), np.zeros(12), np.ones(12)))
    keys = found[["notion", "norm", "gamma"]].itertuples(index=False)
    assert [tuple(key)[:2] for key in keys] == [("class_change", "linf"), ("class_change", "l2")] + [
        ("variation_above", "linf")
    ] * 2
    assert found["attacked"].tolist()[:2] == [1, 0]
    assert found["certified"].tolist()[2:] == [0, 1]
    assert found["attacked"].isna().tolist() == [False, False, True, True]


def test_a_known_distance_bears_from_both_sides_as_far_as_it_is_known():
    """Of 1.5 %: at 0.1 a violation at 0.1 is one, one at 0.102 is none for sure, and one at 0.101 leaves it open."""
    asked = {"notion": "margin", "delta": 0.2, "certificate": "exact_distance", "tolerance": 0.015}
    values = np.full(12, 0.2, np.float32)
    values[:5] = 0.05, 0.0999, 0.101, 0.102, np.nan
    found = rows(one_network(asked), values)
    at = found.index[np.isclose(found.index, 0.1)][0]
    assert found.loc[at, "attacked"] == pytest.approx(10 / 12)
    assert found.loc[at, "certified"] == pytest.approx(8 / 12)
    assert found.loc[at, "open"] == pytest.approx(2 / 12)
    assert found.iloc[-1][["attacked", "certified"]].tolist() == pytest.approx([8 / 12, 7 / 12])


def test_no_outcomes_make_an_empty_table():
    plan = one_network({"notion": "class_change", "delta": 0.1})
    assert list(curves(plan, table_of(plan, {})).columns) == list(columns.CURVES)


@given(st.integers(0, 10_000))
def test_curves_fall_and_enclose_the_truth(seed: int):
    """Points whose true distance is known, an attack that misses at random, and a certificate that fails at random."""
    random = np.random.default_rng(seed)
    deltas = [0.05, 0.1, 0.2, 0.4]
    plan = one_network({"notion": "class_change", "delta": deltas, "attack": ["fgsm", "pgd"], "certificate": "crown"})
    distance = random.exponential(0.15, 12)
    values = []
    for one in plan.measures:
        robust = distance > one.delta
        if one.attack:
            values.append((robust | (random.random(12) < 0.4)).astype(np.float32))
        else:
            values.append((robust & (random.random(12) < 0.6)).astype(np.float32))
    found = rows(plan, *values)
    truth = np.array([(distance > delta).mean() for delta in deltas])
    for side in ("attacked", "certified"):
        assert (np.diff(found[side]) <= 1e-12).all()
    assert (found["certified"] <= truth + 1e-12).all()
    assert (truth <= found["attacked"] + 1e-12).all()
    assert (found["lower"] <= found["certified"]).all()
    assert (found["attacked"] <= found["upper"]).all()


def experiment(**changed: Any) -> dict:
    measure = {"notion": "class_change", "delta": 0.1, "attack": "fgsm", "certificate": "exact"}
    return {"measure": measure, "epsilon": [0.05, 0.2, 0.1], "draws": 200, **changed}


def test_draws_are_of_the_size_that_epsilon_needs_and_scatter_as_overlapping_draws_do():
    plan = planned(grid(epochs=5), convergence=[experiment()])
    values = (np.random.default_rng(0).random(1000) < 0.7).astype(np.float32)
    undecided = values.copy()
    undecided[:100] = np.nan
    names = [one.name for one in plan.experiments[0].measures]
    found = convergence(plan, table_of(plan, dict(zip(names, (values, undecided), strict=True))))
    assert list(found.columns) == list(columns.CONVERGENCE)
    assert found.groupby(["epsilon", "measure"]).size().tolist() == [200] * 6
    assert dict(found.groupby("epsilon")["samples"].first()) == {0.05: 738, 0.1: 185, 0.2: 47}
    attacked = found[found["attack"] == "fgsm"]
    assert attacked["whole"].iloc[0] == pytest.approx(values.mean())
    assert found[found["certificate"] == "exact"]["whole"].iloc[0] == pytest.approx(np.nan_to_num(undecided).mean())
    for _, draws in attacked.groupby("epsilon"):
        first = draws.iloc[0]
        shrunk = np.sqrt((1000 - first["samples"]) / 999)
        expected = first["deviation"] / np.sqrt(first["samples"]) * shrunk
        # The standard error of a standard deviation of 200 draws is 5 %.
        assert draws["estimate"].std() == pytest.approx(expected, rel=0.2)
        assert draws["estimate"].mean() == pytest.approx(first["whole"], abs=4 * expected / np.sqrt(200))


def test_draws_are_the_same_for_all_measures_and_again():
    plan = planned(grid(epochs=5), convergence=[experiment(draws=3)])
    values = np.random.default_rng(0).random(1000).round().astype(np.float32)
    outcomes = table_of(plan, {one.name: values for one in plan.experiments[0].measures})
    found = convergence(plan, outcomes)
    by_measure = found.pivot(index=["epsilon", "draw"], columns="measure", values="estimate")
    assert (by_measure.iloc[:, 0] == by_measure.iloc[:, 1]).all()
    assert by_measure.iloc[:, 0].nunique() > 3
    pd.testing.assert_frame_equal(found, convergence(plan, outcomes))


def test_a_network_that_is_not_measured_on_every_point_has_no_draws():
    plan = planned(grid(epochs=5), convergence=[experiment()])
    outcomes = table_of(plan, {plan.experiments[0].measures[0].name: np.ones(999, np.float32)})
    assert convergence(plan, outcomes).empty
