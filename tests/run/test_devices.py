"""One GPU per job, with a pretended nvidia-smi."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from deltaball.run import devices

JOB = """
import os, sys, time
from deltaball.run import devices
with devices.held():
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), time.time(), flush=True)
    time.sleep(float(sys.argv[1]))
    print(time.time(), flush=True)
"""


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with two GPUs and a folder for temporary files of its own."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho GPU-a\necho GPU-b\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    rest = {name: value for name, value in os.environ.items() if name != devices.VISIBLE}
    return {**rest, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}


def job(environment: dict[str, str], seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", JOB, str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def spans(jobs: Sequence[subprocess.Popen]) -> list[tuple[str, float, float]]:
    """Which device each job saw, from when to when."""
    found = []
    for one in jobs:
        lines = [line for line in one.communicate()[0].splitlines() if not line.startswith("waiting")]
        device, began = lines[0].rsplit(" ", 1)
        found.append((device, float(began), float(lines[1])))
        assert one.returncode == 0
    return found


def test_more_jobs_than_gpus_never_share_one(machine: dict[str, str]) -> None:
    found = spans([job(machine, 0.3) for _ in range(5)])
    assert {device for device, _, _ in found} == {"GPU-a", "GPU-b"}
    for device in ("GPU-a", "GPU-b"):
        mine = sorted((began, ended) for name, began, ended in found if name == device)
        assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(mine))


def test_what_a_scheduler_chose_is_left_alone(machine: dict[str, str]) -> None:
    # Under Slurm every job may see its own device as 0: two such jobs must not wait for each other.
    begun = time.monotonic()
    found = spans([job({**machine, devices.VISIBLE: "0"}, 1) for _ in range(2)])
    assert [device for device, _, _ in found] == ["0", "0"]
    assert found[0][1] < found[1][2]
    assert found[1][1] < found[0][2]
    assert time.monotonic() - begun < 30


def test_of_several_that_are_allowed_one_is_taken(machine: dict[str, str]) -> None:
    found = spans([job({**machine, devices.VISIBLE: "2,3"}, 0.5) for _ in range(2)])
    assert {device for device, _, _ in found} == {"2", "3"}


def test_a_killed_job_gives_its_gpu_back(machine: dict[str, str]) -> None:
    holders = [job(machine, 100) for _ in range(2)]
    for holder in holders:
        holder.stdout.readline()
        holder.kill()
        holder.communicate()
    assert spans([job(machine, 0)])[0][0] == "GPU-a"


def test_without_a_gpu_there_is_nothing_to_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with devices.held():
        assert devices.VISIBLE not in os.environ


def test_the_environment_is_given_back(monkeypatch: pytest.MonkeyPatch, machine: dict[str, str]) -> None:
    monkeypatch.setenv("PATH", machine["PATH"])
    for before in (None, "4,5"):
        if before:
            monkeypatch.setenv(devices.VISIBLE, before)
        else:
            monkeypatch.delenv(devices.VISIBLE, raising=False)
        with devices.held():
            assert os.environ[devices.VISIBLE] in ("GPU-a", "GPU-b", "4", "5")
        assert os.environ.get(devices.VISIBLE) == before
