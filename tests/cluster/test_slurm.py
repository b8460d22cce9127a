"""The user's own command on a real Slurm, and what clusters do to it: jobs cancelled, Snakemake killed, a node lost."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from slurm_node import Slurm
from tiny_study import FCN, ROOT, TABLES, TINY, assert_equal_tables, snakemake, tables, write_study

# Two shards of some ten seconds, each with networks that are finished early and networks that are not.
SLOW = {
    **TINY,
    "study": "slow",
    "grids": [
        {**FCN, "name": "narrow", "width": 64, "activation": "relu", "epochs": [1, 150]},
        {**FCN, "name": "wide", "width": 128, "activation": "relu", "epochs": [1, 100]},
    ],
}
# The first look at a job after four seconds instead of ten; everything else as the profile has it.
POLLED = ["--slurm-init-seconds-before-status-checks", "4"]
PATIENCE = 600  # a busy machine


def command(*arguments: str) -> list[str]:
    """`snakemake --cores all --profile slurm` in a clone, on a study of the test's own."""
    run = [sys.executable, "-m", "snakemake", "--cores", "all", "--profile", "slurm", "--configfile", "study.yaml"]
    return [*run, *POLLED, *arguments]


def clone(folder: Path, study: dict) -> Path:
    """What Snakemake finds in a clone of the repository, and a study beside it."""
    folder.mkdir(parents=True)
    for name in ("Snakefile", "rules", "envs", "src", "slurm", "studies"):
        (folder / name).symlink_to(ROOT / name)
    write_study(folder, study, "study.yaml")
    return folder


def started(folder: Path, *arguments: str) -> subprocess.Popen:
    with (folder / "said").open("a") as said:
        return subprocess.Popen(command(*arguments), cwd=folder, stdout=said, stderr=said, start_new_session=True)


def finished(process: subprocess.Popen, folder: Path) -> None:
    assert process.wait(PATIENCE) == 0, (folder / "said").read_text()[-5000:]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def kept(folder: Path) -> list[Path]:
    return [*(folder / "results/store/trajectories").glob("*/*/[0-9]*.safetensors")]


def trained_after_they_were_finished(folder: Path) -> list[str]:
    """Of the store's log, the trajectories whose training began although its last checkpoint was there."""
    lines = [line.split() for log in (folder / "results/store/log").glob("*.log") for line in log.open()]
    done, twice = set(), []
    for _, event, trajectory, step in sorted(lines, key=lambda line: int(line[0])):
        if event == "kept":
            done.add((trajectory, step))
        elif (trajectory, step) in done:
            twice.append(trajectory)
    assert done
    return twice


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], dict[str, pd.DataFrame]]]:
    """The tables of SLOW as a run without a cluster makes them, in the background of the first test."""
    folder = tmp_path_factory.mktemp("local")
    write_study(folder, SLOW)
    thread = threading.Thread(target=snakemake, args=(folder, *TABLES))
    thread.start()

    def found() -> dict[str, pd.DataFrame]:
        thread.join()
        return tables(folder, "slow")

    yield found
    thread.join()


def test_the_users_own_command_runs_a_study_to_its_report(slurm: Slurm, tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone", {**TINY, "study": "small", "grids": [{**FCN, "width": 8}]})
    asked = ["train:gpu=1", "measure:gpu=1", "train:slurm_partition=gpu"]
    begun = time.monotonic()
    process = started(folder, "--set-resources", *asked)
    finished(process, folder)
    seconds = time.monotonic() - begun
    assert (folder / "results/small/report.html").exists()
    assert set(tables(folder, "small")["networks"]["status"]) == {"trained"}
    (train,) = slurm.jobs("--states=all", rule="train")
    assert train["partition"] == "gpu"
    assert "TresPerJob=gres:gpu:1" in slurm.say("scontrol", "show", "job", train["id"])
    assert int(train["memory"].removesuffix("M")) < 1000
    (light,) = slurm.jobs("--states=all", rule="tables")
    assert light["partition"] == "light"
    assert "gpu" not in slurm.say("scontrol", "show", "job", light["id"]).replace("partition=gpu", "")
    jobs = pd.read_csv(folder / "results/small/tables/jobs.csv")
    assert list(jobs["stage"]) == ["train", "measure"]
    assert set(jobs["status"]) == {"done"}
    print(f"{seconds:.0f} s")


@pytest.fixture(scope="module")
def disturbed(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two studies, run at the same time: of one a job was cancelled; of the other Snakemake was killed, and run again.

    Two, because most of the time is spent waiting for the next look at a job.
    """
    folders = {name: clone(tmp_path_factory.mktemp(name) / "clone", SLOW) for name in ("cancelled", "killed")}
    runs = {name: started(folder, *TABLES) for name, folder in folders.items()}
    wait_until(lambda: all(kept(folder) for folder in folders.values()))

    runs["killed"].send_signal(signal.SIGKILL)
    runs["killed"].wait()
    alive = slurm.jobs("--states=RUNNING", rule="train", folder=folders["killed"])
    assert alive
    # The same command, nothing unlocked: two jobs of a shard are under way at once.
    runs["killed"] = started(folders["killed"], *TABLES)

    slurm.say("scancel", slurm.jobs("--states=RUNNING", rule="train", folder=folders["cancelled"])[0]["id"])
    for name, process in runs.items():
        finished(process, folders[name])
    assert len(slurm.jobs("--states=all", rule="train", folder=folders["killed"])) > len(alive)
    return folders


def test_a_job_that_is_cancelled_is_tried_again_and_goes_on_where_it_was(
    disturbed: dict[str, Path], local: Callable[[], dict[str, pd.DataFrame]]
) -> None:
    assert "Trying to restart" in (disturbed["cancelled"] / "said").read_text()
    assert trained_after_they_were_finished(disturbed["cancelled"]) == []
    assert_equal_tables(tables(disturbed["cancelled"], "slow"), local())


def test_snakemake_killed_and_run_again_while_its_jobs_live(
    disturbed: dict[str, Path], local: Callable[[], dict[str, pd.DataFrame]]
) -> None:
    assert trained_after_they_were_finished(disturbed["killed"]) == []
    assert_equal_tables(tables(disturbed["killed"], "slow"), local())


def test_a_node_that_is_lost_and_comes_back(
    slurm: Slurm, tmp_path: Path, local: Callable[[], dict[str, pd.DataFrame]]
) -> None:
    folder = clone(tmp_path / "clone", SLOW)
    process = started(folder, *TABLES)
    wait_until(lambda: kept(folder))
    slurm.say("scontrol", "update", "nodename=n1", "state=down", "reason=test")
    time.sleep(2)
    slurm.say("scontrol", "update", "nodename=n1", "state=resume")
    finished(process, folder)
    assert re.search(r"node failure|NODE_FAIL", (folder / "said").read_text())
    assert trained_after_they_were_finished(folder) == []
    assert_equal_tables(tables(folder, "slow"), local())
