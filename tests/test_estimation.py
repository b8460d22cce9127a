"""From checkpoints in the store to outcomes, and from outcomes to R and D with their guarantees."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builders import grid, planned_few
from scipy import stats

from deltaball.base.guarantees import samples_needed
from deltaball.data.catalogue import CATALOGUE
from deltaball.data.datasets import Dataset
from deltaball.estimation.estimates import estimates
from deltaball.estimation.intervals import hoeffding
from deltaball.estimation.outcomes import measure, outcome_key, outcomes
from deltaball.estimation.points import draw_points
from deltaball.networks.packs import Pack
from deltaball.plan.measures import Measure
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Checkpoint, Store
from deltaball.tables import columns
from deltaball.training.sgd import train

SEED = 0
GRID = grid(width=16, learning_rate=[0.1, 0.05], seed=[0, 1], batch_size=32, epochs=[1, 4])
MEASURES = [
    {"notion": "class_change", "delta": [0.02, 0.1]},
    {"notion": "softmax_variation", "delta": [0.02, 0.1]},
    {"notion": "variation_above", "gamma": [0.05, 0.1], "delta": 0.1},
]


@pytest.fixture(scope="module")
def plan(data_folder: Path) -> Plan:
    return planned_few(data_folder, GRID, measures=MEASURES)


@pytest.fixture(scope="module")
def pack(plan: Plan) -> list[Trajectory]:
    return list(plan.trajectories.values())


@pytest.fixture(scope="module")
def trained(plan: Plan, pack: list[Trajectory], few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("trained"))
    train(pack, plan.layers(pack[0]), few, store, "cpu")
    return store


@pytest.fixture
def store(trained: Store, pack: list[Trajectory], tmp_path: Path) -> Store:
    """The trained networks, nothing measured yet."""
    fresh = Store(tmp_path)
    for one in pack:
        for step in one.checkpoints:
            fresh.save(one.id, step, trained.load(one.id, step))
    return fresh


@pytest.fixture(scope="module")
def points(plan: Plan, few: Dataset) -> np.ndarray:
    return few.x_test[draw_points(few.facts, plan.measures[0].samples, SEED)]


def measured(
    plan: Plan, pack: Sequence[Trajectory], images: np.ndarray, measures: Sequence[Measure], store: Store
) -> int:
    return measure(asked(pack, measures, len(images)), plan.layers(pack[0]), images, SEED, store, "cpu")


def asked(pack: Sequence[Trajectory], measures: Sequence[Measure], samples: int) -> dict:
    """All measures on the first `samples` points, of every checkpoint."""
    return {(one.id, step): dict.fromkeys(measures, samples) for one in pack for step in one.checkpoints}


def assert_same_outcomes(store: Store, reference: Store, pack: Sequence[Trajectory]) -> None:
    for one in pack:
        found, expected = store.find_outcomes(one.id), reference.find_outcomes(one.id)
        assert found.keys() == expected.keys()
        for key in found:
            # Points measured in other batches may differ in rounding, which moves no point across a border here.
            np.testing.assert_allclose(found[key], expected[key], atol=1e-6, err_msg=key)


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


def test_a_network_is_measured_by_every_measure_on_every_point(
    plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store
):
    assert plan.measures[0].samples == len(points) == samples_needed(0.25, 0.95) == 30
    assert measured(plan, pack, points, plan.measures, store) == 8 * 6 * 30
    for one in pack:
        found = store.find_outcomes(one.id)
        assert found.keys() == {
            outcome_key(step, kind, SEED) + end
            for step in (1, 4)
            for kind in plan.measures
            for end in ("", "/no_gradient")
        }
        for step in (1, 4):
            alone = Pack.of(plan.layers(one), [store.load(one.id, step).weights])
            for kind, expected in outcomes(alone, points, plan.measures, "cpu")[0].items():
                np.testing.assert_allclose(found[outcome_key(step, kind, SEED)], expected[0], atol=1e-6)


def test_outcomes_are_neither_all_robust_nor_all_violated(
    plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store
):
    # Else the comparisons of this file would compare constants.
    measured(plan, pack, points, plan.measures, store)
    for kind in plan.measures:
        means = [store.find_outcomes(one.id)[outcome_key(4, kind, SEED)].mean() for one in pack]
        assert 0.005 < np.mean(means) < 0.995, kind.name


def test_nothing_is_measured_twice(plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store):
    measured(plan, pack, points, plan.measures, store)
    files = {path: path.stat().st_mtime_ns for path in store.folder.rglob("outcomes-*.safetensors")}
    assert measured(plan, pack, points, plan.measures, store) == 0
    assert {path: path.stat().st_mtime_ns for path in store.folder.rglob("outcomes-*.safetensors")} == files
    # Nor is anything lost when fewer points are asked of it.
    assert measured(plan, pack, points[:10], plan.measures, store) == 0
    assert all(len(values) == 30 for one in pack for values in store.find_outcomes(one.id).values())


@pytest.fixture
def reference(plan: Plan, pack: list[Trajectory], points: np.ndarray, trained: Store, tmp_path: Path) -> Store:
    """Everything measured at once."""
    fresh = Store(tmp_path / "reference")
    for one in pack:
        for step in one.checkpoints:
            fresh.save(one.id, step, trained.load(one.id, step))
    measured(plan, pack, points, plan.measures, fresh)
    return fresh


def test_more_points_cost_only_the_points_added(
    plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store, reference: Store
):
    assert measured(plan, pack, points[:10], plan.measures, store) == 8 * 6 * 10
    assert measured(plan, pack, points, plan.measures, store) == 8 * 6 * 20
    assert_same_outcomes(store, reference, pack)


def test_a_measure_added_costs_only_itself(
    plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store, reference: Store
):
    assert measured(plan, pack, points, plan.measures[:4], store) == 8 * 4 * 30
    assert measured(plan, pack, points, plan.measures, store) == 8 * 2 * 30
    assert_same_outcomes(store, reference, pack)


def test_points_and_measures_added_at_once(
    plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store, reference: Store
):
    assert measured(plan, pack, points[:10], plan.measures[1:], store) == 8 * 5 * 10
    assert measured(plan, pack, points, plan.measures, store) == 8 * 5 * 20 + 8 * 30
    assert_same_outcomes(store, reference, pack)


def test_checkpoints_and_networks_added_cost_only_themselves(
    plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store, reference: Store, data_folder: Path
):
    shorter = list(planned_few(data_folder, {**GRID, "epochs": 1}).trajectories.values())
    assert [one.id for one in shorter] == [one.id for one in pack]
    assert measured(plan, shorter[:3], points, plan.measures, store) == 3 * 6 * 30
    assert measured(plan, pack, points, plan.measures, store) == 5 * 6 * 30
    assert_same_outcomes(store, reference, pack)


def test_other_points_are_measured_beside_the_old_ones(
    plan: Plan, pack: list[Trajectory], few: Dataset, points: np.ndarray, store: Store
):
    measured(plan, pack, points, plan.measures, store)
    before = store.find_outcomes(pack[0].id)
    images = few.x_test[draw_points(few.facts, plan.measures[0].samples, 1)]
    wanted = asked(pack, plan.measures, 30)
    assert measure(wanted, plan.layers(pack[0]), images, 1, store, "cpu") == 8 * 6 * 30
    after = store.find_outcomes(pack[0].id)
    assert len(after) == 2 * len(before)
    for key, values in before.items():
        np.testing.assert_array_equal(after[key], values)


def test_measures_of_nearly_equal_radii_do_not_mix(
    plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store, data_folder: Path
):
    def variation(delta: float) -> list[Measure]:
        asked = [{"notion": "softmax_variation", "delta": delta}]
        return planned_few(data_folder, GRID, measures=asked).measures

    measured(plan, pack, points, variation(0.1), store)
    assert measured(plan, pack, points, variation(0.1000001), store) == 8 * 30


def test_a_diverged_network_is_not_measured(plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store):
    store.save(pack[1].id, 4, Checkpoint((), {}, {"status": "diverged"}))
    for step in (1, 4):
        store.save(pack[2].id, step, Checkpoint((), {}, {"status": "diverged"}))
    assert measured(plan, pack, points, plan.measures, store) == 5 * 6 * 30
    assert {key.split("/")[0] for key in store.find_outcomes(pack[1].id)} == {"1"}
    assert store.find_outcomes(pack[2].id) == {}
    rows, lists = estimates(plan, pack, store)
    assert len(rows) == len(lists) == 5 * 6
    gone = {one.id for one in plan.networks if (one.trajectory_id, one.checkpoint) == (pack[1].id, 4)}
    gone |= {one.id for one in plan.networks if one.trajectory_id == pack[2].id}
    assert len(gone) == 3
    assert not gone & set(rows["network_id"])


def test_a_pack_larger_than_a_batch_is_measured_in_parts(
    plan: Plan, few: Dataset, trained: Store, pack: list[Trajectory]
):
    # 1,024 images at once: 40 networks see 25 points each time, of 40.
    weights = [trained.load(one.id, step).weights for one in pack for step in (1, 4)] * 5
    together = outcomes(Pack.of(plan.layers(pack[0]), weights), few.x_test, plan.measures, "cpu")[0]
    alone = outcomes(Pack.of(plan.layers(pack[0]), weights[2:3]), few.x_test, plan.measures, "cpu")[0]
    for kind, values in together.items():
        assert values.shape == (40, 40)
        np.testing.assert_allclose(values[2], alone[kind][0], atol=1e-6)
        np.testing.assert_allclose(values[:8], values[32:], atol=1e-6)


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
        values = store.find_outcomes(network.trajectory_id)[outcome_key(network.checkpoint, kind, SEED)]
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
    values = store.find_outcomes(pack[0].id)[outcome_key(1, plan.measures[0], SEED)]
    assert table["estimate"][0] == pytest.approx(values[:30].mean(), abs=1e-7)


def test_too_few_points_make_no_estimate(plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store):
    # A row says `samples` points and ε: with fewer measured (the job was killed, N was raised) it would be false.
    measured(plan, pack, points[:10], plan.measures, store)
    table, lists = estimates(plan, pack, store)
    assert len(table) == len(lists) == 0


def test_nothing_measured_gives_empty_tables(plan: Plan, pack: list[Trajectory], store: Store):
    table, lists = estimates(plan, pack, store)
    assert list(table.columns) == list(columns.ROBUSTNESS)
    assert list(lists.columns) == ["network_id", "measure", "values"]
    assert len(table) == len(lists) == 0


@pytest.mark.parametrize(
    ("estimate", "expected"), [(0.5, (0.4, 0.6)), (0.0, (0.0, 0.1)), (0.97, (0.87, 1.0)), (1.0, (0.9, 1.0))]
)
def test_an_interval_is_epsilon_on_both_sides_within_the_range(estimate: float, expected: tuple[float, float]):
    assert hoeffding(estimate, 0.1) == pytest.approx(expected)


def test_an_interval_of_another_range():
    assert hoeffding(-0.95, 0.2, -1, 1) == pytest.approx((-1, -0.75))


BOTH_SIDES = [
    {"notion": "class_change", "delta": [0.02, 0.1], "attack": ["fgsm", "pgd"], "certificate": ["ibp", "crown"]},
    {"notion": "softmax_variation", "delta": [0.02, 0.1], "attack": "pgd", "certificate": "crown"},
    {"notion": "variation_above", "gamma": 0.1, "delta": 0.1, "attack": "pgd", "certificate": "crown"},
    {"notion": "class_change", "delta": [0.02, 0.1], "certificate": "exact", "seconds": 10.0},
    {"notion": "margin", "delta": 0.2, "attack": "fmn", "certificate": "crown"},
]


@pytest.fixture(scope="module")
def both(data_folder: Path) -> Plan:
    return planned_few(data_folder, GRID, measures=BOTH_SIDES)


@pytest.fixture(scope="module")
def enclosed(both: Plan, pack: list[Trajectory], points: np.ndarray, trained: Store, tmp_path_factory: Any) -> Any:
    """Everything measured from both sides: the store, and the tables of estimates and outcomes."""
    store = Store(tmp_path_factory.mktemp("enclosed"))
    for one in pack:
        for step in one.checkpoints:
            store.save(one.id, step, trained.load(one.id, step))
    measured(both, pack, points, both.measures, store)
    return store, *estimates(both, pack, store)


def by_name(lists: Any) -> dict[str, np.ndarray]:
    """Outcomes [networks, points] by measure."""
    return {name: np.stack(members) for name, members in lists.groupby("measure")["values"]}


def test_every_point_is_enclosed(enclosed: Any):
    values = by_name(enclosed[2])
    for delta in ("0.02", "0.1"):
        ibp, crown, exact, pgd, fgsm = (
            values[f"class_change_linf_{delta}_{name}"] for name in ("ibp", "crown", "exact-10", "pgd", "fgsm")
        )
        assert not np.isnan(exact).any()
        for low, high in ((ibp, crown), (crown, exact), (exact, pgd), (pgd, fgsm)):
            assert (low <= high).all()
        assert 0 < exact.mean() < 1
        variation = [values[f"softmax_variation_linf_{delta}_{name}"] for name in ("pgd", "crown")]
        assert (variation[0] <= variation[1]).all()
    assert (crown < pgd).any()
    assert (values["variation_above_0.1_linf_0.1_crown"] <= values["variation_above_0.1_linf_0.1_pgd"]).all()


def test_distances_agree_with_exact_answers(enclosed: Any):
    values = by_name(enclosed[2])
    distance, exact = values["margin_linf_0.2_fmn"], values["class_change_linf_0.1_exact-10"]
    assert (distance[exact == 1] > 0.1).all()
    assert (distance[values["margin_linf_0.2_crown"] > 0] == np.float32(0.2)).all()
    assert ((distance > 0) & (distance < 0.2)).any()


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


def test_what_is_settled_beforehand_changes_no_certificate(
    both: Plan, pack: list[Trajectory], points: np.ndarray, enclosed: Any, store: Store
):
    proofs = [one for one in both.measures if one.certificate]
    measured(both, pack, points, proofs, store)
    for one in pack:
        alone, together = store.find_outcomes(one.id), enclosed[0].find_outcomes(one.id)
        for key, values in alone.items():
            # CROWN's float64 may round differently with other points beside.
            np.testing.assert_allclose(values, together[key], atol=1e-6, err_msg=key)


def test_points_left_open_are_robust_for_nobody(
    both: Plan, pack: list[Trajectory], points: np.ndarray, store: Store, monkeypatch: pytest.MonkeyPatch
):
    from deltaball.estimation import outcomes as computing

    exact = [one for one in both.measures if one.by == "exact"][1]

    def give_up(network: Pack, x: Any, ball: Any, seconds: float) -> Any:
        return SimpleNamespace(outcome=np.full(len(x), np.nan, np.float32))

    monkeypatch.setattr(computing.exact, "decide", give_up)
    measured(both, pack, points, [exact], store)
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
