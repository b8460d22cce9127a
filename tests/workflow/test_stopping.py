"""A run that is asked to stop ends with all that it started, in one line; the next command goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_study import FCN, ROOT, TINY, deltaball, write_study

# Trains for minutes.
STUDY = {**TINY, "grids": [{**FCN, "width": 64, "activation": "relu", "learning_rate": 0.05, "epochs": [1000]}]}


@pytest.mark.parametrize(("command", "number"), [("study", signal.SIGTERM), ("run", signal.SIGINT)])
def test_a_signal_ends_a_run_and_all_that_it_started(tmp_path: Path, command: str, number: int) -> None:
    write_study(tmp_path, STUDY)
    for name in ("Snakefile", "rules", "envs", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    started = [sys.executable, "-m", "deltaball", command]
    # A shell in the background would have it ignore SIGINT.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    with subprocess.Popen(started, cwd=tmp_path, stdout=-1, stderr=-1, text=True, **heeding) as run:
        while not list((tmp_path / "results/tiny/jobs").rglob("*.running.json")):
            assert run.poll() is None
            time.sleep(0.1)
        refused = deltaball(tmp_path, "run").stderr
        assert f"`deltaball {command}`" in refused
        assert f"process {run.pid}" in refused
        processes = json.loads((tmp_path / ".snakemake/deltaball.lock").read_text())["processes"]
        asked = time.monotonic()
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
        assert time.monotonic() - asked < 20
    assert run.returncode == 128 + number
    assert said.startswith("stopped; the same command goes on")
    assert said.count("\n") == 1
    for process in processes[1:]:
        with pytest.raises(ProcessLookupError):
            os.killpg(process, 0)
    (record,) = (tmp_path / "results/tiny/jobs").rglob("*.json")
    assert ".failed." in record.name
