"""One GPU per job, with a pretended nvidia-smi."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deltaball.run import devices

JOB = """
import os, sys, time
from deltaball.run import devices
with devices.held():
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), time.time(), flush=True)
    sys.stdin.read()
    print(time.time(), flush=True)
"""


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with two GPUs and a folder for temporary files of its own."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho GPU-a\necho GPU-b\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    rest = {name: value for name, value in os.environ.items() if name != devices.VISIBLE}
    return {**rest, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}


def job(environment: dict[str, str]) -> subprocess.Popen:
    """A job that holds its device until its input ends."""
    command = [sys.executable, "-c", JOB]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def held(job: subprocess.Popen) -> tuple[str, float]:
    """Which device a job holds, and since when; waits until it holds one."""
    line = job.stdout.readline()
    while line.startswith("waiting"):
        line = job.stdout.readline()
    device, since = line.rsplit(" ", 1)
    return device, float(since)


def until(job: subprocess.Popen) -> float:
    """Let a job end; returns until when it held its device."""
    said, _ = job.communicate()
    assert job.returncode == 0
    return float(said)


def test_more_jobs_than_gpus_never_share_one(machine: dict[str, str]) -> None:
    running = [job(machine) for _ in range(2)]
    since = [held(one) for one in running]
    assert {device for device, _ in since} == {"GPU-a", "GPU-b"}
    waiting = [job(machine) for _ in range(3)]
    for one in waiting:
        assert one.stdout.readline().startswith("waiting")
    free = {device: until(one) for (device, _), one in zip(since, running, strict=True)}
    for one in waiting:
        one.stdin.close()
    spans = [(*held(one), float(one.stdout.readline())) for one in waiting]
    assert [one.wait() for one in waiting] == [0] * 3
    for device, began, ended in sorted(spans, key=lambda span: span[1]):
        assert free[device] <= began
        free[device] = ended


def test_what_a_scheduler_chose_is_left_alone(machine: dict[str, str]) -> None:
    # Under Slurm every job may see its own device as 0: two such jobs must not wait for each other.
    both = [job({**machine, devices.VISIBLE: "0"}) for _ in range(2)]
    assert [one.stdout.readline().split()[0] for one in both] == ["0", "0"]
    for one in both:
        until(one)


def test_of_several_that_are_allowed_one_is_taken(machine: dict[str, str]) -> None:
    both = [job({**machine, devices.VISIBLE: "2,3"}) for _ in range(2)]
    assert {held(one)[0] for one in both} == {"2", "3"}
    for one in both:
        until(one)


def test_a_killed_job_gives_its_gpu_back(machine: dict[str, str]) -> None:
    for holder in [job(machine) for _ in range(2)]:
        held(holder)
        holder.kill()
        holder.communicate()
    last = job(machine)
    assert held(last)[0] == "GPU-a"
    until(last)


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
