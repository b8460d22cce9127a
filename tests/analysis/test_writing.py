"""Every study ends in tables, figures and a report, whatever varies in it and whatever became of its networks."""

from pathlib import Path

import pandas as pd
import pytest
from builders import grid, planned
from drawn_figures import drawn
from synthetic_tables import write_tables

from deltaball.analysis import writing

FEW = {"guarantee": {"epsilon": 0.2, "confidence": 0.95}, "measures": [{"notion": "class_change", "delta": 0.1}]}


@pytest.fixture(autouse=True)
def study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("study: test\n")


def test_a_network_that_several_rows_name_counts_once(tmp_path: Path) -> None:
    ways = {"proportion": [0.0, 0.5], "iterations": [1, 2], "ranking": ["global", "layer"], "seed": [0, 1, 2, 3, 4, 5]}
    plan = planned(grid("fcn", "imp", **ways), results=str(tmp_path), **FEW)
    write_tables(plan)
    writing.write_tables(plan)
    tables = {path.stem: pd.read_csv(path) for path in (plan.study.folder / "tables").glob("*.csv")}
    assert tables["completeness"][["networks", "measured"]].iloc[0].tolist() == [8 * 6, 8 * 6]
    for name in ("correlations", "regressions", "learned", "importances", "mixed", "diagnostics"):
        found = tables[name].query("networks_of == 'all'")
        assert set(found["networks"]) == {5 * 6}, name
    shown, said = drawn(plan, "figure3")
    assert len(shown) == 5 * 6
    assert "30 of 30 planned networks" in said
