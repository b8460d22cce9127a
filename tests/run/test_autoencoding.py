"""Auto-encoders of a study, trained and shown before its networks need them."""

from pathlib import Path

import pytest
from builders import grid, planned_few
from PIL import Image

from deltaball.base.errors import InputError
from deltaball.data.datasets import Dataset
from deltaball.run import autoencoding
from deltaball.store.store import Store

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
