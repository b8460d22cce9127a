"""From outcomes to R and D with their guarantees."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders import planned_few
from estimation_cases import GRID, MEASURES, SEED, measured
from scipy import stats

from deltaball.base.errors import InputError
from deltaball.base.guarantees import samples_needed
from deltaball.data.datasets import Dataset
from deltaball.estimation.estimates import check_complete, estimates
from deltaball.estimation.points import draw_points
from deltaball.estimation.stored import StoredOutcomes, checkpoint_of
from deltaball.local import exact
from deltaball.networks.packs import Pack
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Checkpoint, Store
from deltaball.tables import columns


@pytest.fixture
def rows(plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store) -> Any:
    measured(plan, pack, points, plan.measures, store)
    return estimates(plan, pack, store)


def test_an_estimate_is_the_mean_outcome_with_its_interval(plan: Plan, pack: list[Trajectory], store: Store, rows: Any):
    table, lists = rows
    assert list(table.columns) == list(columns.ROBUSTNESS)
    assert list(zip(table["network_id"], table["measure"], strict=True)) == [
        (network.id, one.name) for network in plan.networks for one in plan.measures
    ]
    by_id = {network.id: network for network in plan.networks}
    for row, kept in zip(table.itertuples(), lists.itertuples(), strict=True):
        network = by_id[row.network_id]
        kind = next(one for one in plan.measures if one.name == row.measure)
        values = StoredOutcomes(store, SEED).of(checkpoint_of(network), kind).outcomes
        assert (kept.network_id, kept.measure) == (row.network_id, row.measure)
        np.testing.assert_array_equal(kept.values, values)
        assert row.estimate == pytest.approx(values.astype(np.float64).mean(), abs=1e-12)
        assert row.lower == max(0, row.estimate - 0.25)
        assert row.upper == min(1, row.estimate + 0.25)
        assert (row.notion, row.norm, row.delta, row.attack) == (kind.notion, "linf", kind.delta, "fgsm")
        assert row.gamma == kind.gamma or (kind.gamma is None and np.isnan(row.gamma))
        assert (row.samples, row.epsilon, row.confidence, row.inequality) == (30, 0.25, 0.95, "hoeffding")
        assert (
            row.side == {"class_change": "upper", "softmax_variation": "lower", "variation_above": "upper"}[row.notion]
        )


def test_more_points_are_violated_in_a_larger_ball(rows: Any):
    # FGSM's direction does not depend on δ; on these networks a larger step along it hurts no less on average.
    table, _ = rows
    by_delta = table[table["notion"] == "class_change"].pivot(index="network_id", columns="delta", values="estimate")
    assert (by_delta[0.1] <= by_delta[0.02]).all()
    assert (by_delta[0.1] < by_delta[0.02]).any()


def test_all_estimates_at_once_carry_the_confidence_of_each(
    data_folder: Path, pack: list[Trajectory], few: Dataset, store: Store
):
    guarantee = {"epsilon": 0.35, "confidence": 0.95, "simultaneous": True}
    plan = planned_few(data_folder, GRID, measures=MEASURES, guarantee=guarantee)
    assert plan.measures[0].samples == samples_needed(0.35, 1 - 0.05 / 48) == 31
    measured(plan, pack, few.x_test[draw_points(few.facts, 31, SEED)], plan.measures, store)
    table, _ = estimates(plan, pack, store)
    assert set(table["confidence"]) == {plan.measures[0].confidence}
    assert plan.measures[0].confidence == pytest.approx(1 - 0.05 / 48)
    assert set(table["samples"]) == {31}


def test_an_estimate_uses_the_planned_points_even_if_more_were_measured(
    plan: Plan, pack: list[Trajectory], few: Dataset, store: Store
):
    measured(plan, pack, few.x_test[draw_points(few.facts, 40, SEED)], plan.measures, store)
    table, lists = estimates(plan, pack, store)
    assert set(table["samples"]) == {30}
    assert {len(values) for values in lists["values"]} == {30}
    values = StoredOutcomes(store, SEED).of((pack[0].id, 1), plan.measures[0]).outcomes
    assert table["estimate"][0] == pytest.approx(values[:30].mean(), abs=1e-7)


def test_too_few_points_make_no_estimate(plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store):
    # A row says `samples` points and ε: with fewer measured (the job was killed, N was raised) it would be false.
    measured(plan, pack, points[:10], plan.measures, store)
    table, lists = estimates(plan, pack, store)
    assert len(table) == len(lists) == 0


def test_a_row_that_is_missing_without_a_reason_is_named(
    plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store
):
    measured(plan, pack, points, plan.measures[:-1], store)
    lost = next(one for one in plan.networks if one.trajectory_id == pack[0].id)
    _, lists = estimates(plan, pack, store)
    with pytest.raises(InputError, match=f"network {lost.id}: {plan.measures[-1].name} was not measured"):
        check_complete(plan, pack, store, lists, {})
    # What failed, diverged or was not trained is missing for a reason.
    check_complete(plan, pack, store, lists, {one.id for one in pack})
    for one in pack[:-1]:
        for step in one.checkpoints:
            store.save(one.id, step, Checkpoint((), {}, {"status": "diverged"}))
    check_complete(plan, pack, store, lists, {pack[-1].id: "out of memory"})
    measured(plan, pack, points, plan.measures, store)
    check_complete(plan, pack, store, estimates(plan, pack, store)[1], {})


def test_nothing_measured_gives_empty_tables(plan: Plan, pack: list[Trajectory], store: Store):
    table, lists = estimates(plan, pack, store)
    assert list(table.columns) == list(columns.ROBUSTNESS)
    assert list(lists.columns) == ["network_id", "measure", "values"]
    assert len(table) == len(lists) == 0


def test_sides_say_where_the_truth_lies(enclosed: Any):
    table = enclosed[1].drop_duplicates("measure").set_index("measure")
    assert table["side"].to_dict() == {
        **{f"class_change_linf_{delta}_{name}": side for delta in ("0.02", "0.1") for name, side in SIDES.items()},
        **{f"softmax_variation_linf_{delta}_pgd": "lower" for delta in ("0.02", "0.1")},
        **{f"softmax_variation_linf_{delta}_crown": "upper" for delta in ("0.02", "0.1")},
        "variation_above_0.1_linf_0.1_pgd": "upper",
        "variation_above_0.1_linf_0.1_crown": "lower",
        "margin_linf_0.2_fmn": "upper",
        "margin_linf_0.2_crown": "lower",
    }
    assert table["attack"].isna().equals(table["certificate"].notna())
    assert table.loc["margin_linf_0.2_fmn", "epsilon"] == pytest.approx(0.25 * 0.2)


SIDES = {"fgsm": "upper", "pgd": "upper", "ibp": "lower", "crown": "lower", "exact-10": "exact"}


def test_tight_intervals_stand_beside_the_contract(enclosed: Any):
    table = enclosed[1]
    assert set(table["tight_inequality"]) == {"clopper_pearson", "betting"}
    shares = table[table["tight_inequality"] == "clopper_pearson"]
    for row in shares.itertuples():
        expected = stats.binomtest(round(row.estimate * 30), 30).proportion_ci(0.95, "exact")
        assert (row.tight_lower, row.tight_upper) == pytest.approx((expected.low, expected.high))
    assert ((table["tight_lower"] <= table["estimate"]) & (table["estimate"] <= table["tight_upper"])).all()
    narrower = (table["tight_upper"] - table["tight_lower"]) < 2 * table["epsilon"]
    assert narrower.mean() > 0.5


def test_points_left_open_are_robust_for_nobody(
    both: Plan, pack: list[Trajectory], points: np.ndarray, store: Store, monkeypatch: pytest.MonkeyPatch
):
    decided = [one for one in both.measures if one.judge == "exact"][1]

    def give_up(network: Pack, x: Any, ball: Any, seconds: float, labels: Any) -> Any:
        return SimpleNamespace(outcome=np.full(len(x), np.nan, np.float32), witness=torch.full_like(x, torch.nan))

    monkeypatch.setattr(exact, "decide", give_up)
    measured(both, pack, points, [decided], store)
    table, lists = estimates(both, pack, store)
    left = table[table["undecided"] > 0]
    assert len(left) > 0
    for row, values in zip(table.itertuples(), lists["values"], strict=True):
        assert row.undecided == np.isnan(values).sum()
        assert row.side == ("lower" if row.undecided else "exact")
        assert row.estimate == pytest.approx((values == 1).mean())
        assert row.lower == max(0, row.estimate - 0.25)
        assert row.upper == pytest.approx(min(1, (values != 0).mean() + 0.25))
        above = stats.binomtest(int((values != 0).sum()), 30).proportion_ci(0.95, "exact").high
        assert row.tight_upper == pytest.approx(above)


def test_points_without_a_gradient_are_counted(plan: Plan, points: np.ndarray, store: Store, pack: list[Trajectory]):
    one = pack[0]
    for step, scale in zip(one.checkpoints, (1, 1000), strict=True):
        whole = store.load(one.id, 4)
        weights = (*whole.weights[:-2], scale * whole.weights[-2], scale * whole.weights[-1])
        store.save(one.id, step, Checkpoint(weights, {}, whole.facts))
    measured(plan, [one], points, plan.measures, store)
    table, _ = estimates(plan, [one], store)
    count = table.groupby("network_id", sort=False)["no_gradient"].max().tolist()
    assert count[0] == 0
    assert count[1] > 15
    # A saturated network does not look robust: its class changes where the unscaled one's does.
    of_g = table[table["notion"] == "class_change"].pivot(index="delta", columns="network_id", values="estimate")
    assert np.ptp(of_g.to_numpy(), axis=1).max() <= 0.1


def test_which_attack_of_an_ensemble_found_it_is_kept_and_counted(
    data_folder: Path, pack: list[Trajectory], points: np.ndarray, store: Store
):
    entry = {"notion": "margin", "norm": ["linf", "l2"], "delta": 0.2, "attack": "ensemble", "steps": 4, "radii": 4}
    plan = planned_few(data_folder, GRID, measures=[entry])
    # Points that are added later are kept beside those before.
    measured(plan, pack[:1], points[:10], plan.measures, store)
    measured(plan, pack[:1], points, plan.measures, store)
    table, _ = estimates(plan, pack[:1], store)
    stored = StoredOutcomes(store, SEED)
    assert len(table) == 4
    for network, step in zip(dict.fromkeys(table["network_id"]), pack[0].checkpoints, strict=True):
        for measure in plan.measures:
            kept = stored.of((pack[0].id, step), measure)
            assert kept.found_by.shape == kept.outcomes.shape == (30,)
            assert np.array_equal(kept.found_by >= 0, kept.outcomes < np.float32(0.2))
            counts = [f"{name} {(kept.found_by == k).sum()}" for k, name in enumerate(("fgsm", "bg", "pgd"))]
            (row,) = table[(table["network_id"] == network) & (table["measure"] == measure.name)].itertuples()
            assert row.found_by == ", ".join(counts)
