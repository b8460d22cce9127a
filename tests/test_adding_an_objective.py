"""docs/adding-an-objective.md, executed: what it says to write is read from it, and what it promises is looked for."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from builders import grid, study
from test_adding_an_axis import apply

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/adding-an-objective.md").read_text(encoding="utf-8")
(DIFF,) = re.findall(r"```diff\n(.*?)```", PAGE, re.S)
FILE = re.search(r"`src/(\S+)`:\n\n```python\n(.*?)```", PAGE, re.S)
SMOOTHED = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.S)[1])
PLAIN = grid(dataset="few", name="plain", width=16, learning_rate=0.5, epochs=40, batch_size=16, seed=[0, 1])
# What the page's class does to a pack, alone and together, in a process of its own: it is another deltaball.
PROBED = """
import json, sys
from pathlib import Path
import torch
from deltaball.networks.packs import Pack
from deltaball.plan import loading
from deltaball.run.libraries import prepare_torch
from deltaball.store.store import Store
from deltaball.training import sgd
from deltaball.training.objectives.cross_entropy import CrossEntropy
from deltaball.training.objectives.label_smoothing import LabelSmoothing
from deltaball.training.objectives.objective import Batch

prepare_torch("cpu")
plan = loading.planned(Path("config.yaml"))
store = Store(plan.study.store)
dataset = store.load_dataset(plan.facts["few"])
images = torch.from_numpy(dataset.x_train)
confidence = {}
for network in plan.networks:
    checkpoint = store.load(network.trajectory_id, network.checkpoint)
    softmax = Pack.of(plan.layers(network), [checkpoint.weights])(images).softmax(2)
    confidence[network.id] = softmax.amax(2).mean().item()
packs = [pack for shard in plan.shards.values() for pack in shard.packs]
(together,) = [pack for pack in packs if pack[0].axes["objective"] == "label_smoothing"]
same = []
for one in together:
    sgd.train([one], plan.layers(one), dataset, alone := Store(Path("alone")), "cpu")
    pairs = zip(*(place.load(one.id, one.checkpoints[-1]).weights for place in (alone, store)), strict=True)
    same.append(all((mine == other).all() for mine, other in pairs))
pack = Pack.of(plan.layers(together[0]), [store.load(one.id, one.checkpoints[-1]).weights for one in together])
labels = torch.from_numpy(dataset.y_train).long().expand(len(pack), -1)
batch = Batch(images.expand(len(pack), *images.shape), labels, {"smoothing": torch.zeros(len(pack))})
print(json.dumps({
    "confidence": confidence,
    "together": len(together),
    "same": [bool(one) for one in same],
    "without": LabelSmoothing()(pack, batch).tolist(),
    "cross entropy": CrossEntropy()(pack, batch).tolist(),
}))
"""


def run(package: Path, folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def tables(package: Path, folder: Path, data: Path, *grids: dict[str, Any]) -> pd.DataFrame:
    """networks.parquet of a study of some grids, trained and measured by the deltaball in `package`."""
    folder.mkdir()
    guarantee = {"epsilon": 0.25, "confidence": 0.95}
    whole = study(*grids, data=str(data), results="results", guarantee=guarantee)
    (folder / "config.yaml").write_text(yaml.safe_dump(whole))
    run(package, folder, "-m", "deltaball", "run")
    return pd.read_parquet(folder / "results/test/networks.parquet")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package in which the page's class and entry are written."""
    package = tmp_path_factory.mktemp("package") / "src"
    shutil.copytree(ROOT / "src/deltaball", package / "deltaball", ignore=shutil.ignore_patterns("__pycache__"))
    path = package / FILE[1]
    assert not path.exists()
    path.write_text(FILE[2])
    apply(DIFF, package)
    return package


def test_one_class_and_one_entry_add_an_objective(package: Path, data_folder: Path, tmp_path: Path) -> None:
    before = tables(ROOT / "src", tmp_path / "before", data_folder, PLAIN)
    after = tables(package, tmp_path / "after", data_folder, PLAIN, {**PLAIN, "name": "smoothed", **SMOOTHED})
    assert "smoothing" not in before
    plain, smoothed = after[after["grid"] == "plain"], after[after["grid"] == "smoothed"]
    # What was there is there, under the same ids, and came out the same.
    assert plain["network_id"].tolist() == before["network_id"].tolist()
    assert plain["test_loss"].tolist() == before["test_loss"].tolist()
    assert set(plain["objective"]) == {"cross_entropy"}
    assert plain["smoothing"].isna().all()
    assert set(smoothed["objective"]) == {"label_smoothing"}
    assert sorted(smoothed["smoothing"]) == [0, 0, 0.5, 0.5]
    assert (smoothed["status"] == "trained").all()
    found = json.loads(run(package, tmp_path / "after", "-c", PROBED).splitlines()[-1])
    # Values of `smoothing` train in one pack, in which each is what it is alone.
    assert found["together"] == 4
    assert all(found["same"])
    np.testing.assert_allclose(found["without"], found["cross entropy"], rtol=1e-5)
    confidence = smoothed.assign(confidence=smoothed["network_id"].map(found["confidence"]))
    means = confidence.groupby("smoothing")["confidence"].mean()
    # Where it is least, a label is predicted with 1 - smoothing + smoothing / classes: 1 and .55.
    assert means[0.0] > 0.9
    assert means[0.5] == pytest.approx(0.55, abs=0.08)


def test_a_method_that_cannot_minimise_it_says_so(package: Path, tmp_path: Path) -> None:
    content = study({**grid("fcn", "hmc"), **SMOOTHED}, results="results")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [sys.executable, "-m", "deltaball", "plan"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "deltaball: config.yaml: grids[0]: method 'hmc' does not go with objective 'label_smoothing'; "
        "possible: cross_entropy\n"
    )


def test_the_entry_enters_the_schema(package: Path, tmp_path: Path) -> None:
    schema = json.loads(run(package, tmp_path, "-m", "deltaball", "schema"))
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(study(grid(), {**grid(name="smoothed"), **SMOOTHED}))
    assert not validator.is_valid(study({**grid(), "smoothing": 0.5}))
    assert not validator.is_valid(study({**grid("fcn", "hmc"), **SMOOTHED}))
