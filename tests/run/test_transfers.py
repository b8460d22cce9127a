"""Classifiers behind transfers, from paired auto-encoders to rows of the tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import grid, planned_few
from PIL import Image

from deltaball.base.errors import InputError
from deltaball.data.datasets import Dataset
from deltaball.estimation import measuring
from deltaball.estimation.stored import StoredOutcomes
from deltaball.local.corruptions.corrupted import as_bytes, corrupted
from deltaball.networks.layers import Conv, Flatten, Layers
from deltaball.networks.packs import Pack
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.run import devices, rows, work
from deltaball.run.measurer import Measurer
from deltaball.store.store import Checkpoint, Store
from deltaball.study.corruptions import FIFTEEN
from deltaball.study.transfers import Transfer
from deltaball.tables import parts
from deltaball.training import pairs, sgd
from deltaball.training.index_sets import index_sets
from deltaball.training.progress import Progress, Stopped
from deltaball.workflow import jobs

SMALL = {
    "dataset": "few",
    "latent": 3,
    "filters": 2,
    "units": 6,
    "batch_size": 16,
    "epochs": 3,
    "learning_rate": 0.01,
    "seed": 0,
}
JOINT = {"name": "joint", **SMALL, "corruptions": ["stripe", "fog"], "corrupted_images": 20}
EACH = {**JOINT, "name": "each", "separate": True}
CLEAN = {"name": "clean", **SMALL, "corrupted_images": 0}
BOTH = {"perturbation": ["stripe", "fog"], "draws": 2}
MEASURES = [{"notion": "classification", **BOTH}, {"notion": "class_change", **BOTH}]
CLASSIFIERS = {"width": 16, "epochs": 1, "learning_rate": 0.1, "batch_size": 32}


def planned(folder: Path, results: Path, *transfers: Mapping[str, Any], **changed: Any) -> Plan:
    names = [one["name"] for one in transfers]
    whole = {"transfers": [*transfers], "measures": MEASURES, "results": str(results), **changed}
    return planned_few(folder, grid(transfer=["none", *names], seed=[0, 1], **CLASSIFIERS), **whole)


def done(plan: Plan) -> Store:
    """Every job of a plan, one after another."""
    for stage, do in (("train", work.train), ("measure", work.measure)):
        for shard in plan.shards.values():
            with jobs.recorded(plan, stage, shard) as job, devices.ready(job):
                do(job, tries_left=0)
    return Store(plan.study.store)


def of_method(plan: Plan, method: str) -> list[Trajectory]:
    return [one for one in plan.trajectories.values() if one.method == method]


def outcomes(plan: Plan, store: Store) -> dict[tuple[str, str], np.ndarray]:
    """By network and measure."""
    kept = StoredOutcomes(store, plan.study.guarantee.seed)
    return {
        (network.id, one.name): kept.of((network.trajectory_id, network.checkpoint), one).outcomes
        for network in plan.networks
        for one in plan.measures_of(network)
    }


def arrays(checkpoint: Checkpoint) -> list[np.ndarray]:
    return [*checkpoint.weights, *(checkpoint.state[name] for name in sorted(checkpoint.state))]


# ---- paired auto-encoders ----


@pytest.mark.parametrize(
    "changed", [{}, {"corrupted_images": 65}, {"corrupted_images": 40, "clean_images": 70}, {"clean_images": 50}]
)
def test_no_image_is_seen_clean_and_corrupted(changed: dict[str, Any], few: Dataset):
    entry = Transfer.model_validate({**JOINT, **changed})
    entry.check(few.facts)
    (pair,) = entry.pairs()
    sets = pairs.sets_of(pair, few.facts)
    together = np.concatenate([sets.clean, *sets.corrupted.values()])
    assert set(sets.clean).isdisjoint(np.concatenate([*sets.corrupted.values()]))
    assert len(set(sets.clean)) == len(sets.clean) == pair.split(130).clean
    assert {*together} <= {*range(130)}
    for own in sets.corrupted.values():
        assert len(set(own)) == len(own) == entry.corrupted_images
    if 2 * entry.corrupted_images <= 65:
        # Corruptions take originals of their own, the same as other adaptations to as many images.
        assert len(set(together)) == len(together)
        others = index_sets(few.facts, pair.corruptions, entry.corrupted_images, entry.seed).corrupted
        assert all((sets.corrupted[name] == others[name]).all() for name in pair.corruptions)


def test_one_that_is_killed_goes_on_to_the_same_bits(
    data_folder: Path, few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Killed(Progress):
        def advance(self, sample_steps: float) -> None:
            super().advance(sample_steps)
            if self.taken > 2 * 90 + 20:  # in the second epoch
                raise Stopped

    plan = planned(data_folder, tmp_path, JOINT)
    (one,) = of_method(plan, "pair")
    whole, broken = Store(tmp_path / "whole"), Store(tmp_path / "broken")
    assert pairs.train([one], plan.layers(one), few, whole, "cpu") == 1
    monkeypatch.setattr(pairs, "KEPT_EVERY", 0.0)
    with pytest.raises(Stopped):
        pairs.train([one], plan.layers(one), few, broken, "cpu", Killed(1, 1e9))
    assert broken.steps(one.id) == [1]
    assert pairs.train([one], plan.layers(one), few, broken, "cpu") == 1
    assert pairs.train([one], plan.layers(one), few, broken, "cpu") == 0
    assert broken.steps(one.id) == whole.steps(one.id) == [3]
    left, right = (arrays(store.load(one.id, 3)) for store in (broken, whole))
    assert all((a == b).all() for a, b in zip(left, right, strict=True))
    assert broken.facts(one.id, 3) == whole.facts(one.id, 3)


def test_reconstruction_is_learned(data_folder: Path, few: Dataset, tmp_path: Path):
    plan = planned(data_folder, tmp_path, {**JOINT, "epochs": 30, "filters": 4, "units": 32})
    (one,), store = of_method(plan, "pair"), Store(tmp_path)
    pairs.train([one], plan.layers(one), few, store, "cpu")
    kept = store.load(one.id, 30)
    assert kept.facts["kind"] == "paired auto-encoders"
    for name in ("error", "corrupted_error"):
        assert kept.state[name].shape == (30,)
        assert kept.state[name][-1] < 0.7 * kept.state[name][0]
    transferred = Pack.of(Layers(few.facts.shape, (*plan.layers(one), Flatten())), [kept.weights])
    x = torch.from_numpy(few.x_test)
    error = (transferred(x)[0].reshape(x.shape) - x).square().mean().item()
    assert error == pytest.approx(kept.facts["test_error"], rel=1e-4)
    assert error < (few.x_train.mean(0) - few.x_test).__pow__(2).mean()  # better than the mean image


# ---- classifiers behind them ----


def test_behind_the_identity_a_classifier_has_its_own_numbers(data_folder: Path, few: Dataset, tmp_path: Path):
    plan = planned_few(data_folder, grid(**CLASSIFIERS), measures=MEASURES)
    (one,) = plan.trajectories.values()
    store = Store(tmp_path)
    sgd.train([one], plan.layers(one), few, store, "cpu")
    (classifier,), own = [(one.id, 1)], store.load(one.id, 1)
    nothing = np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    store.save("identity", 5, Checkpoint(nothing, {}, {"status": "trained"}))
    for name, transfers in (("whole", {"": ["identity", 5]}), ("each", {key: ["identity", 5] for key in FIFTEEN})):
        made_of = {"classifier": [*classifier], "transfers": transfers}
        store.save(name, 0, Checkpoint((), {}, {**own.facts, **made_of}))
    asked = dict.fromkeys(plan.measures, 37)
    behind = Layers(few.facts.shape, (Conv(1, 1), *plan.layers(one)))
    known = few.x_test[:37], 0, store, "cpu", lambda measure, count: None, few.y_test[:37]
    assert measuring.measure({classifier: asked}, plan.layers(one), *known) == 4 * 37
    assert measuring.measure({("whole", 0): asked, ("each", 0): asked}, behind, *known) == 2 * 4 * 37
    kept = StoredOutcomes(store, 0)
    for measure in asked:
        expected = kept.of(classifier, measure).outcomes
        assert 0 < expected.mean() < 1
        for name in ("whole", "each"):
            assert (kept.of((name, 0), measure).outcomes == expected).all()
    with pytest.raises(InputError, match="each has a transfer for each corruption: ask for one of brightness"):
        store.weights("each", 0)


def test_a_study_has_rows_of_classifiers_behind_transfers(data_folder: Path, few: Dataset, tmp_path: Path):
    plan = planned(data_folder, tmp_path, JOINT, EACH, CLEAN)
    store = done(plan)
    tables = [parts.read(plan, shard, "trained") for shard in plan.shards.values()]
    rows = {row["network_id"]: row for table in tables for row in table.to_dict("records")}
    assert len(rows) == len(plan.networks) == 2 * 4
    assert {row["status"] for row in rows.values()} == {"trained"}
    found = outcomes(plan, store)
    trajectories = {one.id: one for one in plan.trajectories.values()}
    for network in plan.networks:
        if network.axes["transfer"] == "none":
            continue
        trajectory, row = trajectories[network.trajectory_id], rows[network.id]
        layers, names = plan.layers(trajectory), ["stripe", "fog"]
        each = {name: name if network.axes["transfer"] == "each" else "" for name in names}
        models = {
            name: Pack.of(layers, [store.weights(network.trajectory_id, 0, asked)]) for name, asked in each.items()
        }
        # What clean images meet.
        accuracy = np.mean(
            [(one(torch.from_numpy(few.x_test)).argmax(-1)[0].numpy() == few.y_test).mean() for one in models.values()]
        )
        assert row["test_accuracy"] == pytest.approx(accuracy)
        assert row["trunk_accuracy"] == rows[plan_of(plan, network.axes["seed"])]["test_accuracy"]
        # By hand: corrupted images, through T, through f.
        measurer = Measurer(plan, next(iter(plan.shards.values())), few, store)
        count = len(measurer.images)
        for measure in plan.measures_of(network):
            name, model = measure.kernel.name, models[measure.kernel.name]
            drawn = [
                torch.from_numpy(corrupted(name, as_bytes(measurer.images), keys) / np.float32(255))
                for keys in (range(count), [f"{key} 1" for key in range(count)])
            ]
            reference = torch.from_numpy(measurer.labels)
            if measure.notion == "class_change":
                reference = model(torch.from_numpy(measurer.images)).argmax(-1)[0]
            expected = np.mean([(model(x.float()).argmax(-1)[0] == reference).numpy() for x in drawn], 0)
            assert found[network.id, measure.name] == pytest.approx(expected)
    for name, words in (("joint", "for stripe, fog"), ("each-stripe", "for stripe"), ("clean", "for clean images")):
        with Image.open(plan.study.folder / "autoencoders" / f"{name}.png") as image:
            assert f"{name}: paired auto-encoders of few {words}, seed 0" in image.info["Title"]


def plan_of(plan: Plan, seed: int) -> str:
    """The classifier without a transfer, by its id."""
    return next(one.id for one in plan.networks if one.axes["transfer"] == "none" and one.axes["seed"] == seed)


def test_a_network_alone_has_the_numbers_that_it_has_beside_others(data_folder: Path, tmp_path: Path):
    beside = planned(data_folder, tmp_path / "beside", EACH, JOINT, CLEAN)
    alone = planned(data_folder, tmp_path / "alone", JOINT)
    one, other = outcomes(beside, done(beside)), outcomes(alone, done(alone))
    assert set(other) < set(one)
    assert all((one[key] == values).all() for key, values in other.items())


def test_auto_encoders_may_be_jobs_of_their_own(data_folder: Path, tmp_path: Path):
    plan = planned(data_folder, tmp_path, JOINT, compute={"shard_minutes": 1e-6})
    without = [shard for shard in plan.shards.values() if not plan.networks_of(shard.trajectories)]
    assert [one.method for shard in without for one in shard.trajectories] == ["pair"]
    for shard in plan.shards.values():
        if any(one.method == "transfer" for one in shard.trajectories):
            assert without[0].id in plan.needed_by(shard)
    done(plan)
    assert "4 networks (4 trained)" in rows.collect_networks(plan)
    assert "16 estimates" in rows.collect_robustness(plan)


def test_the_mean_of_fifteen_is_that_of_each_alone(data_folder: Path, tmp_path: Path):
    measures = [
        {"notion": "classification", "perturbation": [*FIFTEEN]},
        {"notion": "classification", "perturbation": "mnist_c"},
    ]
    each = {**EACH, "corruptions": [*FIFTEEN], "corrupted_images": 16, "clean_images": 16, "epochs": 1}
    plan = planned(data_folder, tmp_path, each, measures=measures)
    found = outcomes(plan, done(plan))
    for network in plan.networks:
        own = [found[network.id, one.name] for one in plan.measures_of(network)]
        assert len(own) == 16
        assert own[-1] == pytest.approx(np.mean(own[:-1], 0), abs=1e-6)
        assert own[-1].std() > 0


def test_a_pair_that_was_lost_is_trained_again(data_folder: Path, tmp_path: Path):
    plan = planned(data_folder, tmp_path, JOINT)
    store, (one,) = done(plan), of_method(plan, "pair")
    found, kept = outcomes(plan, store), arrays(store.load(one.id, 3))
    store.forget(one.id, [3])
    for path in store.folder.rglob("*outcomes*"):
        path.unlink()
    assert not all(len(values) for values in outcomes(plan, store).values())
    again = outcomes(plan, done(plan))
    assert all((again[key] == values).all() for key, values in found.items())
    assert all((a == b).all() for a, b in zip(kept, arrays(store.load(one.id, 3)), strict=True))


def test_behind_what_diverged_there_is_nothing(data_folder: Path, tmp_path: Path):
    plan = planned(data_folder, tmp_path, {**JOINT, "learning_rate": 1e30})
    store = done(plan)
    for one in of_method(plan, "transfer"):
        facts = store.facts(one.id, 0)
        assert facts["status"] == "diverged"
        assert "try a smaller learning_rate" in facts["reason"]
    rows = [parts.read(plan, shard, "trained") for shard in plan.shards.values()]
    assert sorted(status for table in rows for status in table["status"]) == ["diverged"] * 2 + ["trained"] * 2


def test_vector_machines_stand_behind_transfers_too(data_folder: Path, few: Dataset, tmp_path: Path):
    both = [grid("rbf_svm", "svm", transfer=["none", "joint"])]
    plan = planned_few(data_folder, *both, transfers=[JOINT], measures=MEASURES, results=str(tmp_path))
    store, (one,) = done(plan), of_method(plan, "transfer")
    machine = store.weights(*one.parents[0])
    assert [array.shape for array in store.weights(one.id, 0)[-3:]] == [array.shape for array in machine]
    x = torch.from_numpy(few.x_test)
    weights, count = store.weights(one.id, 0), len(store.weights(*one.parents[1]))
    transfer = Layers(few.facts.shape, plan.layers(one).sequence[:-2])
    moved = Pack.of(Layers(transfer.shape, (*transfer, Flatten())), [weights[:count]])(x)[0].reshape(x.shape)
    own = plan.layers(next(two for two in plan.trajectories.values() if two.method == "svm"))
    torch.testing.assert_close(Pack.of(plan.layers(one), [weights])(x), Pack.of(own, [machine])(moved))
