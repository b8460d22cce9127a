"""A study that is edited between runs: what it asks in another form by now is made anew, and every run ends."""

from pathlib import Path

import pandas as pd
import pytest
from few_study import STUDY, written
from tiny_study import assert_equal_tables, tables

from deltaball.cli import main
from deltaball.tables import frames

EDITS = {
    "a larger ε": {"guarantee": {"epsilon": 0.3, "confidence": 0.95}},
    "a smaller ε": {"guarantee": {"epsilon": 0.24, "confidence": 0.95}},
    "confidence": {"guarantee": {"epsilon": 0.3, "confidence": 0.9}},
    "another seed": {"guarantee": {"epsilon": 0.25, "confidence": 0.95, "seed": 1}},
    "a δ": {"measures": [{"notion": "class_change", "delta": [0.1, 0.15, 0.2]}]},
    "a learning rate": {"grids": [{**STUDY["grids"][0], "learning_rate": 0.2}]},
}


def fresh(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch, **changed: object) -> dict[str, pd.DataFrame]:
    written(folder, data, **changed)
    monkeypatch.chdir(folder)
    assert main.main(["run"]) == 0
    return tables(folder)


@pytest.mark.parametrize("edit", EDITS)
def test_a_run_after_an_edit_ends_with_the_tables_of_a_fresh_one(
    edit: str, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh(tmp_path / "edited", data_folder, monkeypatch)
    again = fresh(tmp_path / "edited", data_folder, monkeypatch, **EDITS[edit])
    assert_equal_tables(again, fresh(tmp_path / "fresh", data_folder, monkeypatch, **EDITS[edit]))
    for name in ("curves", "convergence"):
        pair = [pd.read_parquet(tmp_path / place / f"results/tiny/{name}.parquet") for place in ("edited", "fresh")]
        pd.testing.assert_frame_equal(*pair, check_exact=True)


def test_tables_without_a_seed_are_of_the_default_one(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fresh(tmp_path, data_folder, monkeypatch)["robustness"]
    path = tmp_path / "results/tiny/robustness.parquet"
    frames.write(before.drop(columns="points_seed"), path)
    capsys.readouterr()
    assert main.main(["run"]) == 0
    assert "trained and measured" not in capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_parquet(path), before, check_exact=True)


def test_outcomes_that_an_edit_left_behind_stop_no_run(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fresh(tmp_path, data_folder, monkeypatch)
    path = tmp_path / "results/tiny/outcomes.parquet"
    kept = pd.read_parquet(path)
    frames.write(pd.concat([kept, kept.assign(network_id="0123456789abcdef")], ignore_index=True), path)
    assert main.main(["run"]) == 0
    assert_equal_tables(tables(tmp_path), before)
