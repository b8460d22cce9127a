"""Does a study heal whatever happens to a file of its results? Each file damaged in each way, and the study run again.

    .venv/bin/python benchmarks/damage.py [SHARE] [SEED]

Runs a study of seconds (`deltaball run`, in this process), then damages one file under results/ at a time: cut,
emptied, a bit flipped, swapped with another, replaced by a folder, deleted. After each the same command must end well
in one go, with equal tables. SHARE (1) draws a part of the pairs of file and damage. Prints every pair that fails, and
how many.
"""

import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")
os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pandas as pd
import yaml

from deltaball.cli import main as command_line

GRID = {
    "dataset": "small",
    "architecture": "fcn",
    "depth": 1,
    "activation": "relu",
    "learning_rate": 0.1,
    "epochs": [1, 2],
}
GRID |= {"batch_size": 16}
STUDY = {
    "study": "damaged",
    "guarantee": {"epsilon": 0.3, "confidence": 0.95},
    "measures": [{"notion": "class_change", "delta": 0.1, "attack": "fgsm", "certificate": "ibp"}],
    "convergence": [
        {"measure": {"notion": "class_change", "delta": 0.1, "only": {"epochs": 1, "grid": "dense"}}, "epsilon": 0.4}
    ],
    "grids": [
        {**GRID, "name": "dense", "method": "sgd", "width": 6},
        {**GRID, "name": "pruned", "method": "imp", "width": 6, "proportion": 0.5, "iterations": 1, "epochs": 1},
    ],
}
TABLES = ("networks", "robustness", "outcomes", "curves", "convergence")


def cut(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path, _: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


def swapped(path: Path, other: Path) -> None:
    if other.is_file():
        mine = path.read_bytes()
        shutil.copy(other, path)
        other.write_bytes(mine)


def a_folder(path: Path, _: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").touch()


def deleted(path: Path, _: Path) -> None:
    path.unlink()


DAMAGES: list[Callable[[Path, Path], None]] = [cut, emptied, flipped, swapped, a_folder, deleted]


def begun(folder: Path) -> dict[str, pd.DataFrame]:
    """The study, run to its end in this folder."""
    draws = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 48), ("test", 40)):
        labels = np.arange(count) % 3
        arrays[f"y_{split}"] = labels
        arrays[f"x_{split}"] = (draws.random((count, 4, 4)) * 80 + labels[:, None, None] * 80).astype(np.uint8)
    (folder / "data").mkdir(parents=True)
    np.savez(folder / "data/small.npz", **arrays)
    (folder / "config.yaml").write_text(yaml.safe_dump(STUDY))
    said = run(folder)
    if said:
        sys.exit(f"the study does not run: {said}")
    return tables(folder)


def run(folder: Path) -> str:
    """Why the study does not end well; nothing where it does."""
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = command_line.main(["run"])
        except Exception as problem:
            return f"{type(problem).__name__}: {problem}"
    return out.getvalue().strip().splitlines()[-1] if status else ""


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    found = {name: pd.read_parquet(folder / f"results/damaged/{name}.parquet") for name in TABLES}
    found["outcomes"]["values"] = found["outcomes"]["values"].map(tuple)
    return found


def healed(whole: Path, expected: dict[str, pd.DataFrame], name: Path, other: Path, damage: Callable) -> str:
    """Why the study did not heal from a damage; nothing where it did."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(whole, Path(temporary) / "copy"))
        damage(folder / name, folder / other)
        if said := run(folder):
            return said
        for table, found in tables(folder).items():
            if not found.equals(expected[table]):
                return f"{table}.parquet differs"
    return ""


def main() -> None:
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    draws = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        expected = begun(whole)
        files = sorted(path.relative_to(whole) for path in (whole / "results").rglob("*") if path.is_file())
        pairs = [(name, damage) for name in files for damage in DAMAGES if draws.random() < share]
        began, failed = time.monotonic(), 0
        for name, damage in pairs:
            alike = [one for one in files if one.suffix == name.suffix and one != name] or [
                one for one in files if one != name
            ]
            if said := healed(whole, expected, name, draws.choice(alike), damage):
                failed += 1
                print(f"{name} {damage.__name__}: {said}", flush=True)
        print(f"{len(files)} files, {len(pairs)} damages, {failed} not healed, {time.monotonic() - began:.0f} s")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
