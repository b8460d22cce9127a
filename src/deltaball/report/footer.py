"""The page's footer: where the numbers come from, what they cost, and what is missing."""

import platform
from importlib.metadata import version
from typing import Any

import pandas as pd

import deltaball
from deltaball.base.statuses import TRAINED
from deltaball.plan.plan import Plan
from deltaball.report.reading import records
from deltaball.study.grids import all_axes

DRAWN_WITH = ("numpy", "pandas", "scipy", "statsmodels", "matplotlib", "seaborn", "bokeh")


def drawn_with() -> list[str]:
    """The software that made statistics, figures and page, with versions."""
    libraries = [f"{name} {version(name)}" for name in DRAWN_WITH]
    return [f"deltaball {deltaball.__version__}", f"Python {platform.python_version()}", *libraries]


def data(plan: Plan, networks: pd.DataFrame) -> list[dict[str, Any]]:
    """Per data set, the hashes of the arrays that its networks were trained on (one, unless something is wrong)."""
    hashes = networks.dropna(subset="data_sha256").groupby("dataset")["data_sha256"].unique()
    return [
        {"name": name, "train": facts.train, "test": facts.test, "sha256": sorted(hashes.get(name, []))}
        for name, facts in plan.facts.items()
    ]


def missing(networks: pd.DataFrame, robustness: pd.DataFrame) -> list[dict[str, Any]]:
    """Every network without a measure: its id, grid, hyper-parameters and why."""
    absent = networks[~networks["network_id"].isin(robustness["network_id"])]
    rows = []
    for row in records(absent):
        axes = ", ".join(f"{axis} {row[axis]}" for axis in all_axes() if not pd.isna(row[axis]))
        why = "not measured" if row["status"] == TRAINED else row["status"]
        if not pd.isna(row["reason"]):
            why += f": {row['reason']}"
        rows.append({"id": row["network_id"], "grid": row["grid"], "axes": axes, "why": why})
    return rows


def jobs(jobs: pd.DataFrame) -> list[dict[str, Any]]:
    """Per stage × host × device: how many runs of jobs, what they took in all, and the largest memory of one."""
    rows = []
    for key, runs in jobs[jobs["status"] != "running"].groupby(["stage", "host", "device"], dropna=False):
        hours = {"wall": runs["wall_seconds"].sum() / 3600, "device_hours": runs["device_seconds"].sum() / 3600}
        rows.append(
            {
                **dict(zip(("stage", "host", "device"), key, strict=True)),
                "runs": len(runs),
                "failed": int((runs["status"] == "failed").sum()),
                **hours,
                "memory": runs["memory_mb"].max(),
                "device_memory": runs["device_memory_mb"].max(),
            }
        )
    return rows
