"""The whole study through Snakemake, as a user runs it: once whole, changed, killed, and from its tables alone."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from deltaball.cli import main
from deltaball.plan import loading
from deltaball.workflow import resources, stages
from deltaball.workflow.launch import claim

ROOT = Path(__file__).parents[1]
TINY = {
    "study": "tiny",
    "compute": {"shard_minutes": 0.02},
    "guarantee": {"epsilon": 0.15, "confidence": 0.95},
    "measures": [
        {"notion": "class_change", "delta": [0.02, 0.1]},
        {"notion": "softmax_variation", "delta": [0.02, 0.1]},
    ],
    "grids": [
        {
            "name": "fcn",
            "dataset": "mnist5k",
            "method": "sgd",
            "architecture": "fcn",
            "depth": 1,
            "width": [8, 64],
            "activation": ["relu", "tanh", "sigmoid"],
            "learning_rate": [0.05, 0.2],
            "epochs": [1, 2, 3],
        },
        {
            "name": "cnn",
            "dataset": "mnist5k",
            "method": "sgd",
            "architecture": "cnn",
            "fc_depth": 1,
            "fc_width": 8,
            "activation": "relu",
            "filters": 2,
            "kernel": 3,
            "conv_depth": 2,
            "learning_rate": [0.05, 0.2],
            "epochs": [2, 4],
        },
        {
            "name": "imp",
            "dataset": "mnist5k",
            "method": "imp",
            "architecture": "fcn",
            "depth": 1,
            "width": [8, 64],
            "activation": "tanh",
            "proportion": [0.5, 0.75],
            "iterations": [1, 2],
            "learning_rate": 0.2,
            "epochs": 2,
        },
    ],
}
FCN, CNN, IMP = TINY["grids"]
NETWORKS = 36 + 4 + 8
ROUNDS = 2 * 5  # per width: .5; .5 and .75 of two; .7 and .5 of two; .25


TABLES = ("networks", "measures")  # targets before the statistics, the figures and the page


def write_study(folder: Path, study: dict, name: str = "config.yaml") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(study))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--cores", "2", *arguments]


def snakemake(folder: Path, *arguments: str) -> str:
    done = subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def deltaball(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deltaball", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def tables(folder: Path, study: str = "tiny") -> dict[str, pd.DataFrame]:
    results = folder / "results" / study
    found = {name: pd.read_parquet(results / f"{name}.parquet") for name in ("networks", "robustness", "outcomes")}
    found["outcomes"]["values"] = found["outcomes"]["values"].map(tuple)
    found["outcomes"] = found["outcomes"].sort_values(["network_id", "measure"], ignore_index=True)
    return found


def assert_equal_tables(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    for name in one:
        pd.testing.assert_frame_equal(one[name], other[name], check_exact=True)


def networks_trained(folder: Path, study: str = "tiny") -> int:
    logs = (folder / "results" / study / "logs/train").glob("*.log")
    return sum(int(re.search(r"trained (\d+) networks", log.read_text())[1]) for log in logs)


def jobs(output: str) -> dict[str, int]:
    """The job counts of a dry run, by rule."""
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", output, re.M) if rule != "total"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny study ran to its end."""
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder, TINY)
    snakemake(folder)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """Another folder just like the finished one, timestamps and Snakemake's records included."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_every_planned_network_is_trained_and_measured(finished: Path) -> None:
    found = tables(finished)
    assert len(found["networks"]) == NETWORKS
    assert set(found["networks"]["status"]) == {"trained"}
    assert found["networks"]["network_id"].is_unique
    robustness = found["robustness"]
    assert len(robustness) == NETWORKS * 4
    assert set(robustness["samples"]) == {82}  # ⌈ln(2/.05) / (2 × .15²)⌉
    assert (robustness["upper"] - robustness["lower"] <= 0.3 + 1e-12).all()
    means = found["outcomes"].set_index(["network_id", "measure"])["values"].map(lambda values: sum(values) / 82)
    joined = robustness.set_index(["network_id", "measure"])["estimate"]
    assert (joined - means).abs().max() < 1e-6


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


def test_a_study_given_on_the_command_line_replaces_the_default_whole(tmp_path: Path) -> None:
    write_study(tmp_path, TINY)
    write_study(tmp_path, {**TINY, "study": "other", "grids": [CNN]}, "other.yaml")
    output = snakemake(tmp_path, "-n", "--configfile", "other.yaml")
    assert jobs(output)["train"] == 1
    assert "results/tiny" not in output


def test_a_study_given_by_a_profile_replaces_the_default_whole(tmp_path: Path) -> None:
    write_study(tmp_path, TINY)
    write_study(tmp_path, {**TINY, "study": "other", "grids": [CNN]}, "other.yaml")
    (tmp_path / "here").mkdir()
    (tmp_path / "here/config.yaml").write_text("configfile: other.yaml\n")
    output = snakemake(tmp_path, "-n", "--profile", "here")
    assert jobs(output)["train"] == 1
    assert "results/tiny" not in output


def asked(output: str) -> dict[str, list[str]]:
    """The resources that the jobs of each rule ask for in a dry run."""
    found: dict[str, list[str]] = {}
    for rule, block in re.findall(r"^(?:local)?rule (\w+):\n((?: .*\n)*)", output, re.M):
        found.setdefault(rule, []).extend(re.findall(r"^ +resources: (.*)$", block, re.M))
    return found


def test_the_slurm_profile_plans_the_papers_study_and_a_gpu_for_each_heavy_job(tmp_path: Path) -> None:
    for name in ("slurm", "studies"):
        (tmp_path / name).symlink_to(ROOT / name)
    output = snakemake(tmp_path, "-n", "--profile", "slurm", "--default-resources", "slurm_partition=fast")
    counts = jobs(output)
    assert counts["train"] == counts["measure"]
    assert 20 <= sum(counts.values()) <= 60
    for rule, requests in asked(output).items():
        assert all(("gpu=1" in one) == (rule in ("train", "measure")) for one in requests)
        assert rule == "all" or all("slurm_partition=fast" in one for one in requests)
    assert len(asked(output)["train"]) == counts["train"]
    # The command line wins over the profile.
    write_study(tmp_path, {**TINY, "study": "other", "grids": [CNN]}, "other.yaml")
    output = snakemake(tmp_path, "-n", "--profile", "slurm", "--configfile", "other.yaml")
    assert jobs(output)["train"] == 1
    assert "results/other" in output
    assert all("gpu=0" in one and "cpus_per_task=1" in one for one in asked(output)["train"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--configfile", "a.yaml", "b.yaml"], "one study at a time"),
        (["--config", "study=x"], "--config study"),
        (["--configfile", "b.yaml"], "b.yaml: grids[0].dpeth: unknown key 'dpeth'"),
    ],
)
def test_snakemake_refuses_in_one_line_and_starts_no_job(tmp_path: Path, arguments: list[str], expected: str) -> None:
    write_study(tmp_path, TINY)
    write_study(tmp_path, TINY, "a.yaml")
    write_study(tmp_path, {**TINY, "grids": [{**FCN, "dpeth": 1}]}, "b.yaml")
    done = subprocess.run(command(*arguments), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("deltaball:")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert not (tmp_path / "results").exists()


def kill_everything(process: subprocess.Popen) -> None:
    """SIGKILL to a session: Snakemake, its shells and their jobs, all at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def checkpoints(folder: Path) -> dict[str, int]:
    """Every finished checkpoint and when it was written."""
    found = (folder / "results/store/trajectories").glob("*/*/[0-9]*.safetensors")
    return {path.parent.name + path.name: path.stat().st_mtime_ns for path in found}


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_killed_while_training_it_loses_nothing_that_was_finished(finished: Path, tmp_path: Path, share: float) -> None:
    write_study(tmp_path, TINY)
    with subprocess.Popen(
        command(), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while len(checkpoints(tmp_path)) < share * NETWORKS:
            assert process.poll() is None, "the study ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        kill_everything(process)
    kept = checkpoints(tmp_path)
    assert 0 < len(kept) < NETWORKS
    for name in ("Snakefile", "rules", "envs", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = deltaball(tmp_path, "study")
    assert done.returncode == 0, done.stdout + done.stderr
    again = checkpoints(tmp_path)
    assert {name: again[name] for name in kept} == kept
    assert_equal_tables(tables(tmp_path), tables(finished))


def test_the_plan_of_the_paper_is_printed_per_grid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["plan", "--study", str(ROOT / "studies/paper.yaml")]) == 0
    said = capsys.readouterr().out
    grids = dict(re.findall(r"^(B\.\d|all) +([\d,]+)", said, re.M))
    expected = ["720", "2,880", "405", "2,160", "4,860", "1,296", "864", "1,296", "432", "14,913"]
    assert list(grids.values()) == expected


def test_an_exported_network_predicts_as_the_study_says(copied: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    from deltaball.data.datasets import load

    row = tables(copied)["networks"].query("architecture == 'cnn'").iloc[0]
    done = deltaball(copied, "export", row["network_id"], "--output", "one.keras")
    assert done.returncode == 0, done.stderr
    model = keras.models.load_model(copied / "one.keras")
    data = load("mnist5k", Path("no-such-folder"))
    predicted = model.predict(data.x_test, verbose=0).argmax(1)
    assert (predicted == data.y_test).mean() == pytest.approx(row["test_accuracy"], abs=1e-12)


def test_the_planning_benchmark_measures_both_and_imports_nothing_heavy() -> None:
    script = [sys.executable, str(ROOT / "benchmarks/planning.py"), "config.yaml"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert "imported by parsing: none" in done.stdout
    assert len(re.findall(r"median \d+\.\d\d s", done.stdout)) == 2


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
