"""What `make gpu` does, on a CPU and tiny: every part of it runs, and what it writes is what is promised."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = {"tests", "training", "hmc", "measure", "certify", "study", "calibrate"}
MOST_FILES = 8


def gpu(root: Path, out: Path, **environment: str) -> subprocess.CompletedProcess:
    tiny = {"DEVICE": "cpu", "BUDGET": "tiny", "OUT": str(out), "WHEELS": str(out / "none"), "SITE": str(out / "none")}
    command = [sys.executable, str(root / "benchmarks/gpu.py")]
    path = os.pathsep.join([str(root / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path, **tiny, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def rehearsed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of results of a rehearsal that has time enough on a busy machine."""
    out = tmp_path_factory.mktemp("gpu")
    done = gpu(root, out, SECONDS="3000")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return out


def test_every_part_is_done(rehearsed: Path) -> None:
    assert json.loads((rehearsed / "statuses.json").read_text()) == dict.fromkeys(PARTS, "done")
    rows = [json.loads(line) for line in (rehearsed / "results.jsonl").read_text().splitlines()]
    assert {row["part"] for row in rows} == PARTS
    assert all(row["hardware"].startswith("a CPU, torch ") and row["tiny"] for row in rows)


def test_the_results_are_few_files_and_a_table_of_the_goals(rehearsed: Path) -> None:
    assert len([*rehearsed.iterdir()]) <= MOST_FILES
    page = (rehearsed / "summary.md").read_text()
    for goal in ("FCN 256×2", "FCN 64×1", "CNN 20 k5 ×2", "VGG 48 k3 ×2", "HMC 512×2", "B.1–B.4"):
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {goal} |")]
        assert "not measured" not in line
    assert "the numbers mean nothing" in page
    assert "| PGD-40 beside a loop of foolbox | ≥ 20 × |" in page


def test_a_part_that_is_run_again_replaces_its_own_results_alone(root: Path, rehearsed: Path) -> None:
    before = (rehearsed / "results.jsonl").read_text().splitlines()
    assert gpu(root, rehearsed, PART="certify", SECONDS="600").returncode == 0
    after = (rehearsed / "results.jsonl").read_text().splitlines()
    others = [[line for line in lines if '"certify"' not in line] for lines in (before, after)]
    assert others[0] == others[1]
    assert len(after) == len(before)


def test_a_part_that_takes_too_long_is_stopped_and_the_next_one_begins(root: Path, tmp_path: Path) -> None:
    assert gpu(root, tmp_path, PART="hmc certify", SECONDS="16").returncode == 0
    assert json.loads((tmp_path / "statuses.json").read_text()) == {"hmc": "out of time", "certify": "out of time"}
    assert "| HMC 512×2 | ≥ 40 TFLOP/s | not measured |" in (tmp_path / "summary.md").read_text()


def test_a_part_that_there_is_not_is_refused(root: Path, tmp_path: Path) -> None:
    done = gpu(root, tmp_path, PART="trainig")
    assert done.returncode == 1
    assert "PART=trainig: no such part; possible: tests, training" in done.stderr
