"""A study with fine-tuned networks, from its file to its tables."""

from pathlib import Path

import pandas as pd
import pytest
from few_study import STUDY, written

from deltaball.cli import main
from deltaball.plan import loading
from deltaball.run import collecting, preview
from deltaball.store.store import Store
from deltaball.tables import frames

PARENTS = STUDY["grids"][0]
TUNED = {
    **PARENTS,
    "name": "tuned",
    "method": "finetune",
    "epochs": 2,
    "rounds": [0, 1],
    "adversary": ["pgd", "fmn"],
    "cap": "26/255",
    "lead": 0.1,
    "examples": 64,
    "tuning_epochs": 1,
}


@pytest.fixture
def tables(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[pd.DataFrame, pd.DataFrame]:
    written(tmp_path, data_folder, grids=[PARENTS, TUNED])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collecting, "redraw", lambda *_: None)
    assert main.main(["run"]) == 0
    return frames.load(loading.planned(Path("config.yaml")))


def test_a_tuned_network_stands_beside_what_it_was_and_counts_with_it(tables: tuple[pd.DataFrame, pd.DataFrame]):
    networks, robustness = tables
    dense = networks[networks["method"] == "sgd"].set_index("epochs").loc[2]
    tuned = networks[networks["rounds"] == 1]
    assert len(tuned) == 2
    assert (tuned["trunk_id"] == dense["trajectory_id"]).all()
    assert (tuned["trunk_accuracy"] == dense["test_accuracy"]).all()
    assert (tuned["examples_sought"] == 64).all()
    assert tuned["examples_found"].between(1, 64).all()
    assert (tuned["examples_learned"] == tuned["examples_found"]).all()
    assert networks.loc[networks["method"] == "sgd", "examples_sought"].isna().all()
    before = robustness[robustness["network_id"] == dense["network_id"]].set_index("measure")["estimate"]
    after = robustness[robustness["network_id"].isin(tuned["network_id"])]
    assert (after["trunk_estimate"] == after["measure"].map(before)).all()
    assert frames.measured(networks, robustness)["cluster"].nunique() == 1
    # No round changes nothing, whatever its adversary would have been.
    assert len(networks) == 2 + 4
    assert len(frames.distinct(networks, robustness)) == 2 + 3


def test_the_plan_says_what_is_sought(data_folder: Path, tmp_path: Path):
    written(tmp_path, data_folder, grids=[PARENTS, {**TUNED, "rounds": [1, 2], "examples": 100}], results=str(tmp_path))
    plan = loading.planned(tmp_path / "config.yaml")
    (line,) = (one for one in preview.lines(plan, Store(tmp_path)) if one.startswith("fine-tuning"))
    # Of two adversaries against one trunk, and then against a network of each.
    assert line.startswith("fine-tuning: 4 trainings of rounds and 1 networks of SGD serve 4 networks; ")
    assert line.endswith("adversarial examples of 400 images are sought")
