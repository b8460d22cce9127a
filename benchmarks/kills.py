"""Is a study killed at random moments the same as one left alone? SIGKILL to Snakemake and its jobs, again and again.

    .venv/bin/python benchmarks/kills.py [KILLS] [SEED]

Runs a small study once to its tables, then KILLS (20) times: starts it in an empty folder, kills everything after a
random part of the time it takes, and lets `snakemake` with the slurm profile's settings for reruns finish it. Prints,
for each, when it was killed and how many networks were finished by then; fails unless all tables are equal, bit for
bit, no training began for what was finished, and no half-written file has a name.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
FCN = {"dataset": "mnist5k", "architecture": "fcn", "depth": 1, "activation": "relu", "learning_rate": [0.05, 0.2]}
STUDY = {
    "study": "killed",
    "compute": {"shard_minutes": 0.02},
    "guarantee": {"epsilon": 0.15, "confidence": 0.95},
    "measures": [{"notion": "class_change", "delta": 0.1}, {"notion": "softmax_variation", "delta": 0.1}],
    "grids": [
        {**FCN, "name": "dense", "method": "sgd", "width": [32, 64], "epochs": [1, 4, 8]},
        {**FCN, "name": "pruned", "method": "imp", "width": 32, "proportion": 0.75, "iterations": 2, "epochs": 4},
    ],
}
AGAIN = ["--rerun-incomplete", "--keep-incomplete", "--nolock"]


def start(folder: Path) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(STUDY))
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--cores", "2", *AGAIN]
    with (folder / "said").open("a") as said:
        targets = ["networks", "measures"]
        return subprocess.Popen([*command, *targets], cwd=folder, stdout=said, stderr=said, start_new_session=True)


def finish(folder: Path) -> float:
    """Run to the end; returns the seconds it took."""
    began = time.monotonic()
    if start(folder).wait():
        sys.exit((folder / "said").read_text())
    return time.monotonic() - began


def tables(folder: Path) -> list[pd.DataFrame]:
    found = [pd.read_parquet(folder / f"results/killed/{name}.parquet") for name in ("networks", "robustness")]
    outcomes = pd.read_parquet(folder / "results/killed/outcomes.parquet")
    outcomes["values"] = outcomes["values"].map(tuple)
    return [*found, outcomes.sort_values(["network_id", "measure"], ignore_index=True)]


def trained_twice(folder: Path) -> int:
    """Of the store's log, how many trainings began although their last checkpoint was there."""
    lines = [line.split() for log in (folder / "results/store/log").glob("*.log") for line in log.open()]
    done, twice = set(), 0
    for _, event, trajectory, step in sorted(lines, key=lambda line: int(line[0])):
        if event == "kept":
            done.add((trajectory, step))
        else:
            twice += (trajectory, step) in done
    return twice


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        alone = Path(scratch) / "alone"
        whole = finish(alone)
        expected = tables(alone)
        print(f"left alone: {len(expected[0])} networks in {whole:.1f} s")
        for number in range(1, kills + 1):
            folder = Path(scratch) / "killed"
            moment = moments.uniform(0.1, 1) * whole
            process = start(folder)
            time.sleep(moment)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            found = len(list((folder / "results/store/trajectories").glob("*/*/[0-9]*.safetensors")))
            seconds = finish(folder)
            for table, twin in zip(tables(folder), expected, strict=True):
                pd.testing.assert_frame_equal(table, twin, check_exact=True)
            if trained_twice(folder):
                sys.exit(f"kill {number}: something finished was trained again")
            print(f"kill {number} after {moment:.1f} s, {found} checkpoints: finished in {seconds:.1f} s, tables equal")
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
