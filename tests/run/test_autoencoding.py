"""Auto-encoders of a study, trained and shown before its networks need them."""

from pathlib import Path

import pytest
from builders import grid, planned_few
from PIL import Image

from deltaball.base.errors import InputError
from deltaball.data.datasets import Dataset
from deltaball.estimation.stored import StoredOutcomes
from deltaball.run import autoencoding
from deltaball.run.measurer import Measurer
from deltaball.store.store import Store
from deltaball.training.sgd import train

SMALL = {"dataset": "few", "latent": 2, "filters": 2, "epochs": 2, "batch_size": 20}


def test_each_is_trained_once_and_drawn(data_folder: Path, few: Dataset, tmp_path: Path):
    entries = [{"name": "one", **SMALL}, {"name": "plain", "kind": "plain", **SMALL}, {"name": "again", **SMALL}]
    plan = planned_few(data_folder, grid(), autoencoders=entries, results=str(tmp_path))
    one, plain, again = plan.autoencoders("few")
    assert one.id == again.id != plain.id
    autoencoding.prepare(plan, few)
    store = Store(plan.study.store)
    files = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.safetensors")}
    assert len(files) == 2
    autoencoding.prepare(plan, few)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    for name, words in (("one", "Wasserstein auto-encoder, λ = 10"), ("plain", "plain auto-encoder")):
        with Image.open(plan.study.folder / "autoencoders" / f"{name}.png") as image:
            assert f"{name}: {words} of few, 2 numbers, seed 0" in image.info["Title"]
            assert "reconstructions" in image.info["Description"]
    # They are none of the study's networks.
    assert {network.trajectory_id for network in plan.networks} == {*plan.trajectories}
    assert one.id not in plan.trajectories


def test_what_diverges_is_told(data_folder: Path, few: Dataset, tmp_path: Path):
    entries = [{"name": "wild", **SMALL, "learning_rate": 1e30}]
    plan = planned_few(data_folder, grid(), autoencoders=entries, results=str(tmp_path))
    with pytest.raises(InputError, match=r"autoencoders: auto-encoder 'wild' diverged; try a smaller learning_rate"):
        autoencoding.prepare(plan, few)


def test_networks_are_measured_on_the_manifold(data_folder: Path, few: Dataset, tmp_path: Path):
    entry = {"notion": "class_change", "perturbation": "on_manifold", "sigma": 0.5, "autoencoder": "one", "draws": 5}
    coders = [{"name": "one", **SMALL}, {"name": "unused", **SMALL, "seed": 1}]
    plan = planned_few(
        data_folder, grid(width=4, epochs=1), autoencoders=coders, measures=[entry], results=str(tmp_path)
    )
    (shard,) = plan.shards.values()
    (pack,), store = shard.packs, Store(plan.study.store)
    train(pack, plan.layers(pack[0]), few, store, "cpu")
    measurer = Measurer(plan, shard, few, store)
    one, unused = plan.autoencoders("few")
    assert {*measurer.known.autoencoders} == {one.entry.label}
    assert not store.has(unused.id, 2)
    (measure,) = plan.measures
    assert measurer(pack) == measure.samples
    outcomes = StoredOutcomes(store, 0).of((pack[0].id, 1), measure).outcomes
    assert 0.2 < outcomes.mean() <= 1
    assert {round(float(5 * value), 4) for value in outcomes} <= {0, 1, 2, 3, 4, 5}
    assert measurer(pack) == 0
