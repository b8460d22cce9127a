"""Tables and page of what is there, where an unfinished study left something out."""

import os
from pathlib import Path

from deltaball.analysis import writing
from deltaball.figures import drawing
from deltaball.plan.plan import Plan
from deltaball.report import page
from deltaball.run import provenance, rows


def collect(plan: Plan, study: Path) -> None:
    """Write all tables, figures and the page from the shards that have parts; prints what it wrote."""
    print(rows.collect_networks(plan, whole=False))
    print(rows.collect_robustness(plan, whole=False))
    print(provenance.write(plan, study))
    redraw(plan, study)
    # Tables older than their parts: Snakemake makes them again, and for that what is missing.
    for name in ("networks", "robustness", "outcomes"):
        os.utime(plan.study.folder / f"{name}.parquet", (0, 0))


def redraw(plan: Plan, study: Path) -> None:
    """Write statistics, figures and the page from the tables alone; prints the page's path."""
    writing.write_tables(plan)
    drawing.draw(plan)
    print(page.write(plan, study))
