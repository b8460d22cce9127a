"""Tables of what is there: nothing that was known is replaced by nothing."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from few_study import STUDY, written
from tiny_study import assert_equal_tables, tables

from deltaball.cli import main
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.run import collecting
from deltaball.tables import frames, parts
from deltaball.workflow import jobs, products

FIRST = STUDY["grids"][0]


@pytest.fixture
def plan(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Two shards, trained and measured, and their tables; figures are not drawn."""
    written(tmp_path, data_folder, grids=[FIRST, {**FIRST, "name": "two", "width": 16}])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collecting, "redraw", lambda *_: None)
    assert main.main(["run"]) == 0
    return loading.planned(Path("config.yaml"))


def contents(plan: Plan) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in plan.study.folder.glob("*.*") if path.is_file()}


def test_without_a_shard_the_tables_stay_as_they_are(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(plan)
    for path in (plan.study.folder / "shards").iterdir():
        path.unlink()
    assert main.main(["collect"]) == 0
    assert "the tables stay as they are" in capsys.readouterr().out
    assert contents(plan) == before


@pytest.mark.parametrize("kinds", [["trained", "measured", "outcomes"], ["measured", "outcomes"], ["outcomes"], []])
def test_what_a_shard_no_longer_has_is_in_the_tables(plan: Plan, kinds: list[str]) -> None:
    before = tables(Path())
    for kind in kinds:
        jobs.part(plan, next(iter(plan.shards)), kind).unlink()
    assert main.main(["collect"]) == 0
    assert_equal_tables(tables(Path()), before)
    # Once more, of tables that are as old as can be.
    assert main.main(["collect"]) == 0
    assert_equal_tables(tables(Path()), before)


def test_without_tables_they_are_made_of_the_shards(plan: Plan) -> None:
    before = tables(Path())
    for path in plan.study.folder.glob("*.parquet"):
        path.unlink()
    first, second = plan.shards.values()
    for kind in ("trained", "measured", "outcomes"):
        jobs.part(plan, first.id, kind).unlink()
    assert main.main(["collect"]) == 0
    found = tables(Path())
    there = {network.id for network in plan.networks_of(second.trajectories)}
    assert dict(zip(found["networks"]["network_id"], found["networks"]["status"], strict=True)) == {
        network.id: "trained" if network.id in there else "planned" for network in plan.networks
    }
    assert set(found["robustness"]["network_id"]) == there
    kept = before["robustness"][before["robustness"]["network_id"].isin(there)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found["robustness"], kept, check_exact=True)


def test_what_the_shards_left_replaces_what_contradicts_it(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    before = tables(Path())
    first, _ = plan.shards.values()
    table = parts.read(plan, first, "trained")
    parts.write(table.assign(test_accuracy=np.float64(0.5)), plan, first, "trained")
    assert main.main(["collect"]) == 0
    assert "what the shards left is taken" in capsys.readouterr().out
    found = tables(Path())["networks"]
    mine = found["network_id"].isin(table["network_id"])
    assert set(found["test_accuracy"][mine]) == {0.5}
    pd.testing.assert_frame_equal(found[~mine], before["networks"][~mine], check_exact=True)
    assert len(frames.read(plan.study.folder / "robustness.parquet")) == len(before["robustness"])


def test_what_fails_now_and_was_known_before_stays_known(plan: Plan) -> None:
    before = tables(Path())
    first, _ = plan.shards.values()
    failing = parts.read(plan, first, "trained")["network_id"].iloc[:1]
    for kind in ("trained", "measured", "outcomes"):
        table = parts.read(plan, first, kind)
        mine = table["network_id"].isin(failing)
        if kind == "trained":
            table.loc[mine, ["status", "reason", "test_accuracy"]] = ["failed", "no memory", np.nan]
        else:
            table = table[~mine]
        parts.write(table, plan, first, kind)
    # As Snakemake does it.
    products.keep_known(plan)
    for path in plan.study.folder.glob("*.parquet"):
        path.unlink()
    for command in ("networks", "robustness"):
        assert main.main([command]) == 0
    assert_equal_tables(tables(Path()), before)
    # Where nothing was known, it has failed.
    shutil.rmtree(products.known(plan))
    assert main.main(["networks"]) == 0
    found = frames.read(plan.study.folder / "networks.parquet")
    assert found["network_id"][found["status"] == "failed"].tolist() == failing.tolist()
