"""Networks that fail, shards that fail, disks full or read-only, kills at any moment: what a user then sees."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from tiny_study import (
    FCN,
    ROOT,
    TABLES,
    TINY,
    assert_equal_tables,
    checkpoints,
    command,
    deltaball,
    jobs,
    tables,
    write_study,
)

from deltaball.cli import main
from deltaball.plan import loading
from deltaball.store.store import Store
from deltaball.workflow.jobs import records

STUDY = {
    **TINY,
    "grids": [
        {**FCN, "width": 8, "activation": ["relu", "tanh"], "epochs": [1, 2]},
        {**FCN, "name": "second", "width": 16, "activation": "relu", "epochs": [1, 2]},
    ],
}
# Read by every Python of a run before anything else: training one trajectory and measuring another then always fail.
FAULT = """
import os, sys
stage = (sys.orig_argv[2:3] or [""])[0]
victim = os.environ.get("FAULTY_" + stage.upper())
if victim:
    os.environ.update(OMP_NUM_THREADS="1", MKL_CBWR="AUTO")
    from deltaball.estimation import measuring
    from deltaball.training import sgd

    def faulty(whole):
        def call(pack, *rest):
            if victim in [one[0] if isinstance(one, tuple) else one.id for one in pack]:
                raise RuntimeError(f"a fault on purpose: {stage}")
            return whole(pack, *rest)
        return call

    if stage == "train":
        sgd.train = faulty(sgd.train)
    else:
        measuring.measure = faulty(measuring.measure)
"""


def run(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(
        command(*arguments), cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def said(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("deltaball:")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the study ran to its tables."""
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder, STUDY)
    status, output = run(folder, *TABLES)
    assert status == 0, output
    return folder


@pytest.fixture(scope="module")
def healthy(finished: Path) -> dict[str, pd.DataFrame]:
    return tables(finished)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_networks_that_fail_are_rows_and_the_others_go_on(
    tmp_path: Path, healthy: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cannot be trained, and one of another shard cannot be measured."""
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path, STUDY)
    (tmp_path / "sitecustomize.py").write_text(FAULT)
    networks = healthy["networks"]
    stages = {"train": "fcn", "measure": "second"}
    victims = {stage: networks.query("grid == @grid").iloc[0]["trajectory_id"] for stage, grid in stages.items()}
    untrained, unmeasured = (networks["trajectory_id"] == victims[stage] for stage in stages)
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    fault = {"PYTHONPATH": paths, **{f"FAULTY_{stage.upper()}": one for stage, one in victims.items()}}
    status, output = run(tmp_path, *TABLES, "--retries", "1", environment=fault)
    assert status == 0, output
    # Each tried twice; then its shard's other networks go on without it.
    assert output.count("Trying to restart") == 2
    lines = said(output)
    assert len(lines) == 2
    for stage, grid in stages.items():
        failure = rf"{stage} of shard {grid}-\w+: 1 trajectories failed: RuntimeError: a fault on purpose: {stage}"
        (line,) = (line for line in lines if re.search(failure, line))
        assert "results/tiny/logs/" in line
    found = tables(tmp_path)
    failed = found["networks"]["status"] == "failed"
    assert (failed == untrained).all()
    assert set(found["networks"]["reason"][failed]) == {"RuntimeError: a fault on purpose: train"}
    measured = networks["network_id"][~untrained & ~unmeasured]
    assert set(found["robustness"]["network_id"]) == set(measured)
    plan = loading.planned(Path("config.yaml"))
    for stage in stages:
        ends = [one["status"] for one in records(plan) if one["stage"] == stage]
        assert sorted(ends) == ["done", "failed", "partial"]
    # The tables are there, and are not all that was asked for.
    done = deltaball(tmp_path, "complete")
    assert done.returncode == 2
    assert "2 networks are missing" in done.stderr
    assert "8 estimates are missing" in done.stderr
    # What failed is tried again, in every run; what did not is left alone.
    planned = jobs(run(tmp_path, *TABLES, "-n")[1])
    assert planned["train"] == 1
    assert planned["measure"] == 2  # of what is trained now, and of what was trained before
    status, output = run(tmp_path, *TABLES)
    assert (status, said(output)) == (0, [])
    assert_equal_tables(tables(tmp_path), healthy)
    assert "Nothing to be done" in run(tmp_path, *TABLES)[1]


def test_a_shard_that_fails_leaves_a_study_that_says_what_is_missing(
    tmp_path: Path, healthy: dict[str, pd.DataFrame]
) -> None:
    write_study(tmp_path, STUDY)
    victim = healthy["networks"].query("grid == 'second'").iloc[0]["trajectory_id"]
    # A file where the store needs a folder: nothing can be kept of this trajectory.
    obstacle = tmp_path / "results/store/trajectories" / victim[:2] / victim
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()
    status, output = run(tmp_path, "--keep-going")
    assert status != 0
    lines = said(output)
    assert re.search(
        rf"train of shard second-\w+ failed: .*{victim}: File exists .*logs/train/second-\w+\.log", lines[0]
    )
    assert lines[1:] == [
        "deltaball: 1 jobs were not tried, because they need what failed or the run stopped before",
        "deltaball: the tables and the report are made of what is there; the same command goes on from here",
    ]
    found = tables(tmp_path)["networks"]
    assert dict(found.groupby("grid")["status"].unique().map(list)) == {"fcn": ["trained"], "second": ["failed"]}
    assert found["reason"][found["grid"] == "second"].str.contains("its shard failed: .*File exists").all()
    assert (
        f"{(found['grid'] == 'second').sum()} networks are missing"
        in (tmp_path / "results/tiny/report.html").read_text()
    )
    assert pd.read_csv(tmp_path / "results/tiny/tables/jobs.csv")["status"].value_counts()["failed"] == 1
    obstacle.unlink()
    assert run(tmp_path, *TABLES)[0] == 0
    assert_equal_tables(tables(tmp_path), healthy)


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_disk_that_fills_up_loses_nothing(finished: Path, tmp_path: Path, healthy: dict[str, pd.DataFrame]) -> None:
    write_study(tmp_path, STUDY)
    (data,) = (finished / "results/store/datasets").iterdir()
    # Room for the data and some networks.
    with small_disk(tmp_path / "results", f"size={data.stat().st_size + 250_000}") as results:
        status, output = run(tmp_path, *TABLES)
        assert status != 0
        assert "No space left on device" in output
        assert "Traceback" not in "".join(log.read_text() for log in (results / "tiny/logs").rglob("*.log"))
        kept = checkpoints(tmp_path)
        assert 0 < len(kept) < len(checkpoints(finished))
        store = Store(results / "store")
        for path in (results / "store/trajectories").glob("*/*/[0-9]*.safetensors"):
            store.load(path.parent.name, int(path.stem))  # raises for a file that is not whole
        assert not [path for path in results.rglob(".*") if path.is_file()]
        remount(results, "size=100m")
        assert run(tmp_path, *TABLES)[0] == 0
        assert {name: checkpoints(tmp_path)[name] for name in kept} == kept
        assert_equal_tables(tables(tmp_path), healthy)


@pytest.mark.parametrize(
    ("options", "reason"), [("size=4k", "No space left on device"), ("ro", "Read-only file system")]
)
def test_where_nothing_can_be_written_one_line_says_so(tmp_path: Path, options: str, reason: str) -> None:
    write_study(tmp_path, STUDY)
    for name in ("Snakefile", "rules", "envs", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    with small_disk(tmp_path / "results", options) as results:
        status, output = run(tmp_path)
        assert status != 0
        (line,) = said(output)
        assert f"results/tiny: {reason}" in line
        assert "Traceback" not in output
        assert not [path for path in results.rglob("*") if path.is_file()]
        shard = next(iter(loading.planned(tmp_path / "config.yaml").shards))
        done = subprocess.run(
            [sys.executable, "-m", "deltaball", "train", shard], cwd=tmp_path, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert reason in done.stderr


def test_a_part_that_is_not_there_stops_the_tables(copied: Path) -> None:
    # As while a job that another Snakemake left behind makes it anew.
    before = (copied / "results/tiny/networks.parquet").read_bytes()
    next((copied / "results/tiny/shards").glob("second-*.trained.parquet")).unlink()
    done = subprocess.run(
        [sys.executable, "-m", "deltaball", "networks"], cwd=copied, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert re.search(r"second-\w+\.trained\.parquet is not there, nor 0 more; run again", done.stderr)
    assert (copied / "results/tiny/networks.parquet").read_bytes() == before


def test_damaged_weights_are_named_and_trained_again(copied: Path, healthy: dict[str, pd.DataFrame]) -> None:
    trajectories = sorted((copied / "results/store/trajectories").glob("*/*"))
    truncated, flipped, swapped, other = (min(one.glob("[0-9]*.safetensors")) for one in trajectories[:4])
    content = bytearray(truncated.read_bytes())
    truncated.write_bytes(content[: len(content) // 2])
    content = bytearray(flipped.read_bytes())
    content[-100] ^= 4
    flipped.write_bytes(content)
    shutil.copy(other, swapped)
    results = copied / "results/tiny"
    for name in ("shards", "logs"):
        shutil.rmtree(results / name)
    for table in results.glob("*.parquet"):
        table.unlink()
    assert run(copied, *TABLES)[0] == 0
    logs = "".join(log.read_text() for log in (results / "logs/train").glob("*.log"))
    for path in (truncated, flipped, swapped):
        assert f"store: {path.relative_to(copied)}" in logs
    assert sum(int(count) for count in re.findall(r"trained (\d+) networks", logs)) == 3
    assert_equal_tables(tables(copied), healthy)


def test_two_jobs_of_one_shard_at_once_leave_one_result(
    tmp_path: Path, healthy: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path, {**STUDY, "grids": STUDY["grids"][1:]})
    (shard,) = loading.planned(Path("config.yaml")).shards
    for stage in ("train", "measure"):
        job = [sys.executable, "-m", "deltaball", stage, shard]
        twins = [subprocess.Popen(job, stdout=subprocess.DEVNULL) for _ in range(2)]
        assert [one.wait() for one in twins] == [0, 0]
    for name in ("networks", "robustness"):
        assert main.main([name]) == 0
    mine = set(healthy["networks"].query("grid == 'second'")["network_id"])
    alone = {name: table[table["network_id"].isin(mine)].reset_index(drop=True) for name, table in healthy.items()}
    assert_equal_tables(tables(tmp_path), alone)


def test_a_study_killed_at_random_moments_is_the_same_as_one_left_alone() -> None:
    kills = [sys.executable, str(ROOT / "benchmarks/kills.py"), "2"]
    done = subprocess.run(kills, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("tables equal") == 2
