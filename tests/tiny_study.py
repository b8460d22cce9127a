"""A study of a minute, and Snakemake on it as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

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


def networks_trained(folder: Path, study: str = "tiny", grid: str = "*") -> int:
    logs = (folder / "results" / study / "logs/train").glob(f"{grid}-*.log")
    return sum(int(re.search(r"trained (\d+) networks", log.read_text())[1]) for log in logs)


def jobs(output: str) -> dict[str, int]:
    """The job counts of a dry run, by rule."""
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", output, re.M) if rule != "total"}


def checkpoints(folder: Path) -> dict[str, int]:
    """Every finished checkpoint and when it was written."""
    found = (folder / "results/store/trajectories").glob("*/*/[0-9]*.safetensors")
    return {path.parent.name + path.name: path.stat().st_mtime_ns for path in found}
