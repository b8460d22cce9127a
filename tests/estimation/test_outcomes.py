"""From checkpoints in the store to outcomes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import planned_few
from estimation_cases import GRID, SEED, asked, measured

from deltaball.base.guarantees import samples_needed
from deltaball.data.datasets import Dataset
from deltaball.estimation.estimates import estimates
from deltaball.estimation.measuring import measure
from deltaball.estimation.outcomes import outcomes
from deltaball.estimation.points import draw_points
from deltaball.estimation.stored import Judged, StoredOutcomes
from deltaball.networks.packs import Pack
from deltaball.plan.measures import Measure
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Checkpoint, Store
from deltaball.study.judges import JUDGES


def assert_same_outcomes(store: Store, reference: Store, pack: Sequence[Trajectory]) -> None:
    for one in pack:
        found, expected = store.find_outcomes(one.id), reference.find_outcomes(one.id)
        assert found.keys() == expected.keys()
        for key in found:
            # Points measured in other batches may differ in rounding, which moves no point across a border here.
            np.testing.assert_allclose(found[key], expected[key], atol=1e-6, err_msg=key)


def test_a_network_is_measured_by_every_measure_on_every_point(
    plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store
):
    assert plan.measures[0].samples == len(points) == samples_needed(0.25, 0.95) == 30
    assert measured(plan, pack, points, plan.measures, store) == 8 * 6 * 30
    for one in pack:
        found = store.find_outcomes(one.id)
        assert found.keys() == {
            f"{step}/{kind.name}/{SEED}{end}"  # as stores have had them from the first
            for step in (1, 4)
            for kind in plan.measures
            for end in ("", "/no_gradient")
        }
        for step in (1, 4):
            alone = Pack.of(plan.layers(one), [store.load(one.id, step).weights])
            for kind, expected in outcomes(alone, points, plan.measures, "cpu").items():
                kept = StoredOutcomes(store, SEED).of((one.id, step), kind)
                np.testing.assert_allclose(kept.outcomes, expected.outcomes[0], atol=1e-6)
                np.testing.assert_array_equal(kept.no_gradient, expected.no_gradient[0])


def test_outcomes_are_neither_all_robust_nor_all_violated(
    plan: Plan, pack: list[Trajectory], points: np.ndarray, store: Store
):
    # Else the comparisons of this file would compare constants.
    measured(plan, pack, points, plan.measures, store)
    for kind in plan.measures:
        means = [StoredOutcomes(store, SEED).of((one.id, 4), kind).outcomes.mean() for one in pack]
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
    together = outcomes(Pack.of(plan.layers(pack[0]), weights), few.x_test, plan.measures, "cpu")
    alone = outcomes(Pack.of(plan.layers(pack[0]), weights[2:3]), few.x_test, plan.measures, "cpu")
    for kind, judged in together.items():
        values = judged.outcomes
        assert values.shape == (40, 40)
        np.testing.assert_allclose(values[2], alone[kind].outcomes[0], atol=1e-6)
        np.testing.assert_allclose(values[:8], values[32:], atol=1e-6)


def test_a_search_of_one_network_after_the_other_keeps_them_apart(
    plan: Plan, few: Dataset, trained: Store, pack: list[Trajectory]
):
    weights = [trained.load(one.id, 4).weights for one in pack[:3]]
    kind = Measure("margin", "linf", 0.5, "ensemble", settings=(("steps", 3), ("radii", 3)))
    together = outcomes(Pack.of(plan.layers(pack[0]), weights), few.x_test, [kind], "cpu")[kind]
    assert together.outcomes.shape == together.found_by.shape == together.no_gradient.shape == (3, len(few.x_test))
    for k, own in enumerate(weights):
        alone = outcomes(Pack.of(plan.layers(pack[0]), [own]), few.x_test, [kind], "cpu")[kind]
        for field in ("outcomes", "found_by", "no_gradient"):
            np.testing.assert_array_equal(getattr(together, field)[k], getattr(alone, field)[0])
    assert not np.array_equal(together.outcomes[0], together.outcomes[1])


def test_outcomes_by_other_rules_are_not_mistaken_for_those_of_today(
    plan: Plan, pack: list[Trajectory], store: Store, monkeypatch: pytest.MonkeyPatch
):
    kind = Measure("margin", "linf", 0.5, "ensemble", settings=(("steps", 3), ("radii", 3)))
    judged = Judged(np.float32([0.25]), np.array([False]), np.int8([2]))
    StoredOutcomes(store, SEED).add((pack[0].id, 4), {kind: judged})
    assert StoredOutcomes(store, SEED).has((pack[0].id, 4), kind, 1)
    monkeypatch.setitem(JUDGES, "ensemble", replace(JUDGES["ensemble"], version=99))
    assert not StoredOutcomes(store, SEED).has((pack[0].id, 4), kind, 1)
    monkeypatch.setitem(JUDGES, "ensemble", replace(JUDGES["ensemble"], version=1))
    assert kind.kept_as == kind.name


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
