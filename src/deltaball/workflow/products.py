"""What a study's folder holds beside the parts of its shards, and whether it is still what was written. Light."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from deltaball.base.errors import InputError
from deltaball.base.files import changed, remove
from deltaball.plan.plan import Plan
from deltaball.workflow import seals, stages

TABLES = ("networks", *stages.MEASURED, "examples")
DERIVED = ("tables/*", "figures/*", "data/*", "claims/*", "README.md", "report.html", "PROVENANCE.md", "complete.txt")
# How files are called, and no folder of a study: of a grid's shard a name ends in its digest.
SUFFIXES = {".parquet", ".csv", ".json", ".jsonl", ".png", ".svg", ".html", ".md", ".txt", ".log", ".tsv", ".yaml"}


def known(plan: Plan) -> Path:
    """Where a run finds the tables as they were when it began: Snakemake removes what is to be made before it is."""
    return plan.study.folder / ".known"


def keep_known(plan: Plan) -> None:
    """Keep the tables that are there for the run that begins; they take no room as long as they stay what they are."""
    remove(known(plan))
    for name in TABLES:
        path = plan.study.folder / f"{name}.parquet"
        if path.exists():
            known(plan).mkdir(exist_ok=True)
            try:
                (known(plan) / path.name).hardlink_to(path)
            except OSError:  # some disks know no links
                shutil.copy2(path, known(plan) / path.name)


def damage(path: Path, name: str) -> str | None:
    """Why a file is not the table of this name that was written; None where it is, or is not there."""
    if damaged := seals.damage(path):
        return damaged
    said = seals.identity(path) if path.exists() else None
    return None if said is None or said.get("table") == name else f"{path} holds another table"


def remove_damaged(plan: Plan) -> Iterator[str]:
    """Remove what is not what was written, so that it is made again; says of each why. Tables are put aside.

    Raises InputError for a table that nothing here can make again but training.
    """
    folder = plan.study.folder
    for path in [path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_dir()]:
        if path.exists() and "shards" not in path.parts[-2:-1]:
            remove(path)
            yield f"{path} is a folder; it is removed"
    for name in TABLES:
        path = folder / f"{name}.parquet"
        if said := damage(path, name):
            if name != "examples" and not any((folder / "shards").glob("*.parquet")):
                raise InputError(f"{said}; bring a copy of it back, or delete it to train and measure what it held")
            path.replace(path.with_suffix(".damaged"))
            yield f"{said}; it is kept as {path.stem}.damaged, and made again"
    for pattern in DERIVED:
        for path in folder.glob(pattern):
            if path.is_file() and (said := changed(path)):
                remove(path)
                yield f"{said}; it is made again"
