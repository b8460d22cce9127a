"""A test run that was killed leaves a Slurm; the next one takes it away, and no other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import slurm_node
from slurm_node import SLURM_CONF, remains


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


@pytest.mark.parametrize(
    "written", [SLURM_CONF.format(process=os.getpid(), host="h", folder="/f"), "ClusterName=c\n", ""]
)
def test_neither_a_machines_own_slurm_nor_that_of_running_tests_is_taken_away(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(slurm_node, "CONFIGURATION", tmp_path)
    assert remains() is None
    (tmp_path / "slurm.conf").write_text(written)
    assert remains() is None


def test_what_killed_tests_left_is_taken_away(gone: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slurm_node, "CONFIGURATION", tmp_path)
    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "slurmd.pid").write_text(str(os.getpid()))  # which is another process now
    for name in ("slurm.conf", "gres.conf"):
        (tmp_path / name).write_text(SLURM_CONF.format(process=gone, host="h", folder=folder))
    remains().stop()
    assert not list(tmp_path.glob("*.conf"))
