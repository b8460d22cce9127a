"""The whole study through Snakemake: its tables, its report, and what is left to do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tiny_study import NETWORKS, ROOT, command, deltaball, jobs, snakemake, tables

from deltaball.plan import loading
from deltaball.workflow import resources, stages


def test_every_planned_network_is_trained_and_measured(finished: Path) -> None:
    found = tables(finished)
    assert len(found["networks"]) == NETWORKS
    assert set(found["networks"]["status"]) == {"trained"}
    assert found["networks"]["network_id"].is_unique
    robustness = found["robustness"]
    assert len(robustness) == NETWORKS * 4
    assert set(robustness["samples"]) == {82}  # ⌈ln(2/.05) / (2 × .15²)⌉
    assert (robustness["upper"] - robustness["lower"] <= 0.3 + 1e-12).all()
    all_there = f"results/tiny: all {NETWORKS} networks and {NETWORKS * 4} estimates are there\n"
    assert (finished / "results/tiny/complete.txt").read_text() == all_there
    means = found["outcomes"].set_index(["network_id", "measure"])["values"].map(lambda values: sum(values) / 82)
    joined = robustness.set_index(["network_id", "measure"])["estimate"]
    # Outcomes of variations are kept in 16 bits.
    assert (joined - means).abs().max() < 1 / (2**16 - 1)


def test_jobs_are_recorded_and_took_less_memory_than_they_asked_for(finished: Path) -> None:
    plan = loading.planned(finished / "config.yaml")
    records = pd.read_csv(finished / "results/tiny/tables/jobs.csv")
    for stage, estimate in (("train", resources.training), ("measure", resources.measuring)):
        runs = records[records["stage"] == stage].set_index("shard")
        assert set(runs.index) == set(plan.shards)
        assert set(runs["status"]) == {"done"}
        for shard, took in runs["memory_mb"].items():
            assert took < estimate(plan, plan.shards[shard]).mem_mb() < 3 * took
    assert (records["device_seconds"] <= records["wall_seconds"] + 0.5).all()
    assert records["host"][0] in (finished / "results/tiny/report.html").read_text()


def test_robustness_falls_and_variation_rises_on_average_with_delta(finished: Path) -> None:
    means = tables(finished)["robustness"].groupby("measure")["estimate"].mean()
    assert means["class_change_linf_0.02_fgsm"] > means["class_change_linf_0.1_fgsm"]
    assert means["softmax_variation_linf_0.02_fgsm"] < means["softmax_variation_linf_0.1_fgsm"]


def test_a_second_run_does_nothing(finished: Path) -> None:
    assert "Nothing to be done" in snakemake(finished)


def test_pruned_networks_stand_beside_their_trunks(finished: Path) -> None:
    found = tables(finished)
    networks = found["networks"].set_index("network_id")
    pruned = networks[networks["method"] == "imp"]
    dense = networks[(networks["method"] == "sgd") & (networks["epochs"] == 2)].reset_index().set_index("trajectory_id")
    assert (pruned["trunk_accuracy"] == dense.loc[pruned["trunk_id"], "test_accuracy"].to_numpy()).all()
    assert (pruned["sparsity"] - pruned["proportion"]).abs().max() < 1e-3
    estimates = found["robustness"].set_index(["network_id", "measure"])
    for identity, row in pruned.iterrows():
        trunk = dense.loc[row["trunk_id"], "network_id"]
        for measure in estimates.loc[identity].index:
            expected = estimates.loc[(trunk, measure), "estimate"]
            assert estimates.loc[(identity, measure), "trunk_estimate"] == expected


def test_a_touched_figure_redraws_and_retrains_nothing(finished: Path, tmp_path: Path) -> None:
    # A copy of the code, because the test changes its timestamps.
    for name in ("Snakefile", "rules", "envs", "src"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    shutil.copytree(finished / "results", tmp_path / "results")
    shutil.copy(finished / "config.yaml", tmp_path)
    run = [sys.executable, "-m", "snakemake", "--cores", "2"]
    subprocess.run([*run, "--touch"], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "src/deltaball/figures/deltaball.mplstyle").touch()
    output = subprocess.run([*run, "-n"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert jobs(output.stdout + output.stderr) == {"figures": 1, "report": 1, "all": 1}


def test_the_report_is_self_contained(finished: Path) -> None:
    page = (finished / "results/tiny/report.html").read_text()
    assert page.count("data:image/webp;base64,") == len(stages.figures(loading.planned(finished / "config.yaml")))
    # Of the page itself; the library inside it has its words in strings.
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", markup)
    assert "@import" not in markup
    assert "url(" not in markup
    networks = tables(finished)["networks"]
    assert networks["data_sha256"].iloc[0] in page
    assert f"{NETWORKS} of {NETWORKS}" in page
    assert "No network is missing" in page


def test_an_exported_network_predicts_as_the_study_says(copied: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    from deltaball.data.datasets import load

    row = tables(copied)["networks"].query("architecture == 'cnn'").iloc[0]
    done = deltaball(copied, "export", row["network_id"], "--output", "one.keras")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"one\.keras: .*KERAS_BACKEND.* images \[28, 28, 1\] in \[0, 1\] and returns 10 logits", done.stdout
    )
    model = keras.models.load_model(copied / "one.keras")
    data = load("mnist5k", Path("no-such-folder"))
    predicted = model.predict(data.x_test, verbose=0).argmax(1)
    assert (predicted == data.y_test).mean() == pytest.approx(row["test_accuracy"], abs=1e-12)


def test_the_papers_figures_are_targets(finished: Path) -> None:
    """Each of them alone; a study that has no such figure says what it lacks."""
    assert "figure2" in snakemake(finished, "-n", "--forcerun", "figures", "--", "figure2")
    lacking = subprocess.run(command("-n", "figure1"), cwd=finished, capture_output=True, text=True, check=False)
    assert lacking.returncode
    assert "figure1: the study 'tiny' has no `convergence:` experiment" in lacking.stdout + lacking.stderr


def test_snakemakes_own_report_needs_no_network_and_has_captions(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    said = snakemake(finished, "--report", str(tmp_path / "run.html"))
    assert "ownload" not in said
    page = (tmp_path / "run.html").read_text()
    for part in ("figure2.png", "correlations.csv", "report.html", "Drawn from the tables of the study alone"):
        assert part in page
