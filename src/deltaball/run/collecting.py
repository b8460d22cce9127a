"""Tables and page of what is there, where an unfinished study left something out."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deltaball.analysis import writing
from deltaball.base.errors import InputError
from deltaball.base.wording import estimated
from deltaball.figures import drawing
from deltaball.plan.plan import Plan
from deltaball.report import page, readme
from deltaball.run import provenance, rows
from deltaball.workflow import jobs


def collect(plan: Plan, study: Path) -> None:
    """Write all tables, figures and the page from what the shards left and what the tables had; prints what it wrote.

    Nothing known is lost: where shards left nothing, the tables stay as they are. Raises InputError where a table that
    is there is damaged.
    """
    from deltaball.run import merging, pieces  # they import torch, which redrawing does without

    shards = [piece for shard in plan.shards.values() if (piece := pieces.of_shard(plan, shard))]
    there = (plan.study.folder / "networks.parquet").exists()
    if there and not shards:
        print(f"no shard of {study} has left rows here; the tables stay as they are")
        return
    made = [*shards, pieces.of_failures(jobs.lost(plan))]
    known = [merging.own_piece(plan)] if there else []
    try:
        tables = merging.merged(plan, [*known, *made])
    except InputError as contradiction:
        print(f"{contradiction}: what the shards left is taken")
        tables = merging.merged(plan, [*(pieces.without(piece, pieces.finished(shards)) for piece in known), *made])
    merging.write(plan, tables)
    print(f"{plan.study.folder}: {len(tables['networks'])} networks ({rows.status_counts(tables['networks'])})")
    print(provenance.write(plan, study))
    redraw(plan, study)
    # Tables older than their parts: Snakemake makes them again, and for that what is missing.
    for name in ("networks", "robustness", "outcomes"):
        with contextlib.suppress(FileNotFoundError):
            os.utime(plan.study.folder / f"{name}.parquet", (0, 0))


def redraw(plan: Plan, study: Path) -> None:
    """Write statistics, figures and the page from the tables alone; says what it does, and where the page is."""
    for what, make in (("statistics", writing.write_tables), ("figures", drawing.draw)):
        _said(what, lambda make=make: make(plan))
    _said("the findings", lambda: readme.write(plan))
    print(_said("the report", lambda: page.write(plan, study)))


def _said(what: str, make: Callable[[], Any]) -> Any:
    print(f"making {what}", end="", flush=True)
    began = time.monotonic()
    try:
        made = make()
    except BaseException:
        print()
        raise
    print(f": {estimated(time.monotonic() - began)}")
    return made
