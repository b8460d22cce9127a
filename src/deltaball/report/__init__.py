"""From tables, statistics and pictures to one page that opens anywhere."""

import base64
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

import deltaball
from deltaball import stages, tables
from deltaball.analysis.completeness import STATUSES
from deltaball.errors import InputError
from deltaball.guarantees import spoken
from deltaball.plan import Plan
from deltaball.store import written_whole
from deltaball.study import all_axes

DRAWN_WITH = ("numpy", "pandas", "scipy", "statsmodels", "matplotlib", "seaborn")
MISSING_SHOWN = 200


def write(plan: Plan, study_path: Path) -> Path:
    """Write ``report.html``: everything inlined, nothing fetched. Returns its path.

    Raises InputError when a table or figure it shows is missing.
    """
    folder = plan.study.folder
    networks, robustness = tables.load(plan)
    found = {name: _csv(folder / "tables" / f"{name}.csv") for name in stages.TABLES}
    regressions = found["regressions"]
    accuracy = regressions["term"] == "test_accuracy"
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deltaball", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "p_value": _p_value, "share": _share, "confidence": spoken}
    page = environment.get_template("report.html.jinja").render(
        study=plan.study,
        guarantee=_guarantee(robustness),
        completeness=_records(found["completeness"]),
        correlations=_side_by_side(found["correlations"]),
        accuracy_from=dict(found["correlations"].groupby("dataset")["accuracy_from"].max()),
        on_accuracy=_records(regressions[accuracy & (regressions["networks_of"] == "all")]),
        on_axes=_records(regressions[~accuracy & (regressions["networks_of"] == "all")]),
        regressions=len(regressions),
        monotonicity=_records(found["monotonicity"]),
        pruning=_records(found["pruning"]),
        pruning_tests=_records(found["pruning_tests"]),
        figures=[(name, _inlined(folder / "figures" / f"{name}.png")) for name in stages.figures(plan)],
        source=study_path.read_text(encoding="utf-8"),
        source_name=study_path.name,
        data=_data(plan, networks),
        software=sorted(networks["software"].dropna().unique()),
        devices=sorted(networks["device"].dropna().unique()),
        drawn=[f"deltaball {deltaball.__version__}", f"Python {platform.python_version()}"]
        + [f"{name} {version(name)}" for name in DRAWN_WITH],
        missing=_missing(networks, robustness),
        jobs=_jobs(found["jobs"]),
        unfinished=_records(found["jobs"][found["jobs"]["status"].isin(["partial", "failed"])]),
        networks=len(networks),
        trained=int((networks["status"] == "trained").sum()),
        measured=robustness["network_id"].nunique(),
        statuses=STATUSES,
        shown=MISSING_SHOWN,
    )
    path = folder / "report.html"
    with written_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _csv(path: Path) -> pd.DataFrame:
    # A grid may be called 01 or NA; only an empty cell is null.
    text = dict.fromkeys(("grid", "dataset", "measure", "notion", "term", "proportion"), str)
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=text)
    except FileNotFoundError:
        raise InputError(f"{path} is not there; `deltaball analyse` makes it") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty; `deltaball analyse` makes it again") from None
    if "dataset" not in table or ("regressions" in path.name and "term" not in table):
        raise InputError(f"{path} is damaged; `deltaball analyse` makes it again")
    return table


def _inlined(path: Path) -> str:
    if not path.exists():
        raise InputError(f"{path} is not there; `deltaball figures` makes it")
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")


def _guarantee(robustness: pd.DataFrame) -> dict[str, Any] | None:
    """What the rows themselves promise; None when there are none."""
    if robustness.empty:
        return None
    return robustness[["samples", "epsilon", "confidence", "inequality", "attack"]].iloc[0].to_dict()


def _side_by_side(correlations: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per group with the columns of all networks and, as `learned`, those of the networks that learned."""
    keys = ["dataset", "method", "architecture", "measure"]
    learned = correlations[correlations["networks_of"] == "learned"].set_index(keys).to_dict("index")
    every = correlations[correlations["networks_of"] == "all"]
    return [{**row, "learned": learned[tuple(row[key] for key in keys)]} for row in _records(every)]


def _data(plan: Plan, networks: pd.DataFrame) -> list[dict[str, Any]]:
    """Per data set, the hashes of the arrays that its networks were trained on (one, unless something is wrong)."""
    hashes = networks.dropna(subset="data_sha256").groupby("dataset")["data_sha256"].unique()
    return [
        {"name": name, "train": facts.train, "test": facts.test, "sha256": sorted(hashes.get(name, []))}
        for name, facts in plan.facts.items()
    ]


def _missing(networks: pd.DataFrame, robustness: pd.DataFrame) -> list[dict[str, Any]]:
    """Every network without a measure: its id, grid, hyper-parameters and why."""
    absent = networks[~networks["network_id"].isin(robustness["network_id"])]
    rows = []
    for row in _records(absent):
        axes = ", ".join(f"{axis} {row[axis]}" for axis in all_axes() if not pd.isna(row[axis]))
        why = "not measured" if row["status"] == "trained" else row["status"]
        if not pd.isna(row["reason"]):
            why += f": {row['reason']}"
        rows.append({"id": row["network_id"], "grid": row["grid"], "axes": axes, "why": why})
    return rows


def _jobs(jobs: pd.DataFrame) -> list[dict[str, Any]]:
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


def _number(value: float, digits: int = 2) -> str:
    return "–" if pd.isna(value) else f"{value:.{digits}f}".replace("-", "−")


def _p_value(value: float) -> str:
    if pd.isna(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _share(value: float) -> str:
    return "–" if value is None or np.isnan(value) else f"{100 * value:.1f} %"
