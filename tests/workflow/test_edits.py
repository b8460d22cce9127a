"""A finished study that is changed: only what is new is made."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from tiny_study import (
    CNN,
    FCN,
    IMP,
    NETWORKS,
    TABLES,
    TINY,
    assert_equal_tables,
    command,
    deltaball,
    jobs,
    networks_trained,
    snakemake,
    tables,
    write_study,
)

from deltaball.analysis.pruning import in_range, pruning_effects
from deltaball.tables import frames
from deltaball.workflow.claims import claim

DELTA_ADDED = [{"notion": "class_change", "delta": [0.02, 0.05, 0.1]}, TINY["measures"][1]]


@pytest.fixture(scope="module")
def extended(untouched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished study with a seed added to one grid, a proportion to another and a δ to all; and run again."""
    folder = Path(shutil.copytree(untouched, tmp_path_factory.mktemp("extended") / "copy"))
    grids = [{**FCN, "seed": [0, 1]}, CNN, {**IMP, "proportion": [0.5, 0.75, 0.9]}]
    write_study(folder, {**TINY, "grids": grids, "measures": DELTA_ADDED})
    shutil.rmtree(folder / "results/tiny/logs")
    snakemake(folder, *TABLES)
    return folder


def test_a_seed_or_a_proportion_added_trains_only_the_new_networks(extended: Path) -> None:
    assert networks_trained(extended, grid="fcn") == 36
    assert networks_trained(extended, grid="imp") == 2 * 3  # per width: .9 at once, and its two rounds
    assert networks_trained(extended) == 36 + 6
    networks = tables(extended)["networks"]
    assert len(networks) == NETWORKS + 36 + 4
    assert set(networks["status"]) == {"trained"}


def test_a_delta_added_measures_only_that_delta_of_the_old_networks(extended: Path) -> None:
    logs = [log.read_text() for log in (extended / "results/tiny/logs/measure").glob("*.log")]
    computed = sum(int(re.search(r"computed ([\d,]+) outcomes", log)[1].replace(",", "")) for log in logs)
    assert computed == (NETWORKS * 1 + (36 + 4) * 5) * 82


def test_what_is_added_changes_no_row_that_was_there(untouched: Path, extended: Path) -> None:
    after = tables(extended)
    for name, table in tables(untouched).items():
        kept = after[name][after[name]["network_id"].isin(table["network_id"])]
        if "measure" in table:
            kept = kept[kept["measure"].isin(table["measure"])]
        pd.testing.assert_frame_equal(kept.reset_index(drop=True), table, check_exact=True)


def test_a_delta_added_trains_nothing(copied: Path) -> None:
    write_study(copied, {**TINY, "measures": DELTA_ADDED})
    planned = jobs(snakemake(copied, "-n", *TABLES))
    assert planned["measure"] == 3
    assert "train" not in planned


def test_a_network_added_on_checkpoints_that_are_there_reaches_the_tables(copied: Path) -> None:
    # Nothing is to be trained: at proportion 0 a network is its trunk, which the FCN grid trains.
    write_study(copied, {**TINY, "grids": [FCN, CNN, {**IMP, "proportion": [0, 0.5, 0.75]}]})
    shutil.rmtree(copied / "results/tiny/logs")
    snakemake(copied, *TABLES)
    assert networks_trained(copied) == 0
    found = tables(copied)
    assert set(found["networks"]["status"]) == {"trained"}
    assert set(found["robustness"]["network_id"]) == set(found["networks"]["network_id"])
    effects = pruning_effects(in_range(frames.measured(found["networks"], found["robustness"])), 0.05)
    assert set(effects["proportion"]) == {"all", 0.5, 0.75}
    assert set(effects["pairs"]) == {4, 8}


def test_a_grid_taken_out_leaves_no_row_behind(copied: Path) -> None:
    write_study(copied, {**TINY, "grids": [FCN, IMP]})
    snakemake(copied, *TABLES)
    for table in tables(copied).values():
        assert table["network_id"].nunique() == NETWORKS - 4


@pytest.fixture(scope="module")
def remade(untouched: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The finished study with results deleted and another margin, run again; and what Snakemake said."""
    folder = Path(shutil.copytree(untouched, tmp_path_factory.mktemp("remade") / "copy"))
    results = folder / "results/tiny"
    figures = sorted((results / "figures").glob("*.svg"))
    for path in (
        results / "networks.parquet",
        results / "outcomes.parquet",
        results / "tables/pruning.csv",
        figures[0],
    ):
        path.unlink()
    write_study(folder, {**TINY, "analysis": {"equivalence_margin": 0.31}})
    return folder, snakemake(folder)


def test_results_that_were_deleted_are_made_again(untouched: Path, remade: tuple[Path, str]) -> None:
    folder, output = remade
    assert "rule train:" not in output
    assert_equal_tables(tables(folder), tables(untouched))
    there, before = ({path.name for path in one.glob("results/tiny/figures/*")} for one in (folder, untouched))
    assert there == before


def test_a_margin_changed_changes_the_verdicts(remade: tuple[Path, str]) -> None:
    folder, output = remade
    assert "rule measure:" not in output
    assert set(pd.read_csv(folder / "results/tiny/tables/pruning.csv")["margin"]) == {0.31}
    assert "0.31" in (folder / "results/tiny/report.html").read_text()


def test_an_emptied_store_does_not_stop_the_next_edit(copied: Path) -> None:
    shutil.rmtree(copied / "results/store")
    write_study(copied, {**TINY, "grids": [FCN, {**CNN, "epochs": [2, 4, 5]}, IMP]})
    snakemake(copied, *TABLES)
    found = tables(copied)["networks"]
    assert len(found) == NETWORKS + 2
    assert set(found["status"]) == {"trained"}


def test_a_job_refuses_a_study_that_was_edited_meanwhile(copied: Path) -> None:
    shard = next((copied / "results/tiny/shards").glob("*.measured.parquet")).name.removesuffix(".measured.parquet")
    done = deltaball(copied, "measure", shard, "--expect", "000000000000")
    assert done.returncode == 2
    assert done.stderr == "deltaball: config.yaml was edited while it was run; run it again\n"


def test_two_runs_do_not_share_a_folder(copied: Path) -> None:
    with claim(copied):
        done = subprocess.run(command(), cwd=copied, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "another run is under way" in done.stderr
        assert "another run is under way" in deltaball(copied, "study").stderr
    snakemake(copied, *TABLES)


def test_a_study_in_a_path_with_spaces_runs(finished: Path, tmp_path: Path) -> None:
    write_study(tmp_path, {**TINY, "results": "my results", "grids": [CNN]}, "my study.yaml")
    snakemake(tmp_path, "networks", "--configfile", "my study.yaml")
    assert len(pd.read_parquet(tmp_path / "my results/tiny/networks.parquet")) == 4


def test_figures_and_report_come_from_the_tables_alone(copied: Path) -> None:
    results = copied / "results"
    shutil.rmtree(results / "store")
    for entry in (results / "tiny").iterdir():
        if entry.name not in ("networks.parquet", "robustness.parquet", "curves.parquet", "convergence.parquet"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    write_study(copied, {**TINY, "grids": [{**FCN, "seed": [0, 1]}, CNN, IMP]})
    done = deltaball(copied, "redraw")
    assert done.returncode == 0, done.stderr
    page = (results / "tiny/report.html").read_text()
    assert f"{NETWORKS} of {NETWORKS + 36}" in page
    assert "36 networks are missing" in page
    assert not (results / "store").exists()
