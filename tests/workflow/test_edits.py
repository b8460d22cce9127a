"""A finished study that is changed: only what is new is made."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
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
    networks_trained,
    snakemake,
    tables,
    write_study,
)

from deltaball.workflow.launch import claim


def test_a_seed_added_trains_only_the_new_networks(copied: Path) -> None:
    before = tables(copied)
    write_study(copied, {**TINY, "grids": [{**FCN, "seed": [0, 1]}, CNN, IMP]})
    shutil.rmtree(copied / "results/tiny/logs")
    snakemake(copied, *TABLES)
    assert networks_trained(copied) == 36
    after = tables(copied)
    assert len(after["networks"]) == NETWORKS + 36
    for name, table in before.items():
        kept = after[name][after[name]["network_id"].isin(before["networks"]["network_id"])]
        pd.testing.assert_frame_equal(kept.reset_index(drop=True), table, check_exact=True)


def test_a_proportion_added_trains_only_its_branches(copied: Path) -> None:
    write_study(copied, {**TINY, "grids": [FCN, CNN, {**IMP, "proportion": [0.5, 0.75, 0.9]}]})
    shutil.rmtree(copied / "results/tiny/logs")
    snakemake(copied, *TABLES)
    assert networks_trained(copied) == 2 * 3  # per width: .9 at once, and its two rounds
    assert set(tables(copied)["networks"]["status"]) == {"trained"}


def test_a_network_added_on_checkpoints_that_are_there_reaches_the_tables(copied: Path) -> None:
    # Nothing is to be trained: at proportion 0 a network is its trunk, which the FCN grid trains.
    write_study(copied, {**TINY, "grids": [FCN, CNN, {**IMP, "proportion": [0, 0.5, 0.75]}]})
    shutil.rmtree(copied / "results/tiny/logs")
    snakemake(copied, "results/tiny/tables/pruning.csv", *TABLES)
    assert networks_trained(copied) == 0
    found = tables(copied)
    assert set(found["networks"]["status"]) == {"trained"}
    assert set(found["robustness"]["network_id"]) == set(found["networks"]["network_id"])
    effects = pd.read_csv(copied / "results/tiny/tables/pruning.csv")
    assert set(effects["proportion"]) == {"all", "0.5", "0.75"}
    assert set(effects["pairs"]) == {4, 8}


def test_a_grid_taken_out_leaves_no_row_behind(copied: Path) -> None:
    write_study(copied, {**TINY, "grids": [FCN, IMP]})
    snakemake(copied, *TABLES)
    for table in tables(copied).values():
        assert table["network_id"].nunique() == NETWORKS - 4


def test_results_that_were_deleted_are_made_again(copied: Path) -> None:
    before, results = tables(copied), copied / "results/tiny"
    for name in ("networks.parquet", "outcomes.parquet", "tables/pruning.csv"):
        (results / name).unlink()
    figure = next((results / "figures").glob("*.svg"))
    figure.unlink()
    assert "rule train:" not in snakemake(copied)
    assert_equal_tables(tables(copied), before)
    assert figure.exists()


def test_an_emptied_store_does_not_stop_the_next_edit(copied: Path) -> None:
    shutil.rmtree(copied / "results/store")
    write_study(copied, {**TINY, "grids": [FCN, {**CNN, "epochs": [2, 4, 5]}, IMP]})
    snakemake(copied, *TABLES)
    found = tables(copied)["networks"]
    assert len(found) == NETWORKS + 2
    assert set(found["status"]) == {"trained"}


def test_a_margin_changed_changes_the_verdicts(copied: Path) -> None:
    write_study(copied, {**TINY, "analysis": {"equivalence_margin": 0.31}})
    assert "rule measure:" not in snakemake(copied)
    assert set(pd.read_csv(copied / "results/tiny/tables/pruning.csv")["margin"]) == {0.31}
    assert "0.31" in (copied / "results/tiny/report.html").read_text()


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


def test_a_delta_added_measures_only_that_delta(copied: Path) -> None:
    before = tables(copied)["robustness"]
    changed = {**TINY, "measures": [{"notion": "class_change", "delta": [0.02, 0.05, 0.1]}, TINY["measures"][1]]}
    write_study(copied, changed)
    shutil.rmtree(copied / "results/tiny/logs")
    output = snakemake(copied, *TABLES)
    assert "rule train:" not in output
    logs = [log.read_text() for log in (copied / "results/tiny/logs/measure").glob("*.log")]
    computed = sum(int(re.search(r"computed ([\d,]+) outcomes", log)[1].replace(",", "")) for log in logs)
    assert computed == NETWORKS * 82
    after = tables(copied)["robustness"]
    kept = after[after["delta"] != 0.05].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before, check_exact=True)


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
