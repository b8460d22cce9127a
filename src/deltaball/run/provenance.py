"""Where a study's tables come from: code, hardware, data, time, and what is missing. Written beside them."""

from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd

from deltaball.base.files import written_checked
from deltaball.base.statuses import MEASURABLE, PLANNED, STATUSES
from deltaball.base.wording import duration
from deltaball.plan.plan import Plan
from deltaball.run import completeness, pieces
from deltaball.tables import frames
from deltaball.workflow import jobs, stages

FILE = "PROVENANCE.md"
NAMED = 20  # missing networks of one grid and one reason that are named one by one


def write(plan: Plan, study: Path) -> Path:
    """Write PROVENANCE.md in the study's folder. Returns its path. Raises InputError when a table is missing."""
    path = plan.study.folder / FILE
    page = "\n".join(lines(plan, study)) + "\n"
    with written_checked(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def lines(plan: Plan, study: Path) -> Iterator[str]:
    """The page, in Markdown. The same tables and records always give the same page."""
    piece = pieces.of_folder(plan.study.folder)
    networks, robustness = frames.load(plan)
    runs = frames.jobs(jobs.records(plan))
    yield f"# Where the tables of the study {plan.study.study} come from"
    yield ""
    yield f"Written by `deltaball provenance --study {study}` from the tables and from the records that every job left."
    yield ""
    yield from _table(["what", "which"], _facts(study, networks, runs))
    yield ""
    yield "## Data"
    yield ""
    yield from _table(["data set", "training images", "test images", "sha256 of the arrays"], _data(plan, networks))
    yield ""
    yield "## Rows and time per grid"
    yield ""
    yield (
        "Device time is processor time on a CPU, and the time that the device was held on a GPU. What grids share is "
        "trained in the first. Runs that failed or were stopped are counted; of killed ones no time is known."
    )
    yield ""
    counts = {name: piece.tables[name].groupby("network_id").size() for name in ("outcomes", "curves", "convergence")}
    heads = ["grid", "networks", *STATUSES, "estimates", *counts, "jobs"]
    heads += [f"{stage}: {kind}" for stage in ("training", "measuring") for kind in ("wall", "device")]
    yield from _table(heads, _grids(plan, networks, robustness, counts, runs))
    yield ""
    yield "## Missing"
    yield ""
    yield from _missing(plan, networks, robustness)


def _facts(study: Path, networks: pd.DataFrame, runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
    yield "study file", f"{study}, sha256 {stages.file_digest(study)}…"
    for column, name in (
        ("code", "git commit"),
        ("processor", "processor"),
        ("device", "device"),
        ("software", "software"),
    ):
        for value, members in runs[runs["status"] != jobs.RUNNING].groupby(column, dropna=False):
            yield name, f"{'not recorded' if pd.isna(value) or not value else value} ({len(members)} runs of jobs)"
    for device, members in networks.dropna(subset="device").groupby(["device", "software"]):
        yield "networks trained on", f"{device[0]} with {device[1]} ({len(members)} networks)"
    if len(runs):
        yield "jobs began", f"{runs['started'].min()} to {runs['started'].max()}"


def _data(plan: Plan, networks: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    for name, facts in plan.facts.items():
        found = networks["data_sha256"][networks["dataset"] == name].dropna().unique()
        yield name, f"{facts.train:,}", f"{facts.test:,}", ", ".join(sorted(found)) or "no network is trained"


def _grids(
    plan: Plan, networks: pd.DataFrame, robustness: pd.DataFrame, counts: dict[str, pd.Series], runs: pd.DataFrame
) -> Iterator[tuple[str, ...]]:
    estimates = robustness.groupby("network_id").size()
    names = [grid.name for grid in plan.study.grids]
    # Records of another cut of the study may name the grid of a study that is merged here.
    others = sorted(set(runs["grid"]) - set(names))
    whole = [(name, networks[networks["grid"] == name], runs[runs["grid"] == name]) for name in [*names, *others]]
    for name, members, took in [*whole, ("all", networks, runs)]:
        ids = members["network_id"]
        statuses = members["status"].value_counts()
        yield (
            name,
            f"{len(members):,}",
            *(f"{statuses.get(status, 0):,}" for status in STATUSES),
            f"{estimates.reindex(ids).sum():,.0f}",
            *(f"{count.reindex(ids).sum():,.0f}" for count in counts.values()),
            f"{len(took):,}",
            *(
                duration(took[column][took["stage"] == stage].sum())
                for stage in jobs.STAGES
                for column in ("wall_seconds", "device_seconds")
            ),
        )


def _missing(plan: Plan, networks: pd.DataFrame, robustness: pd.DataFrame) -> Iterator[str]:
    absent = networks[~networks["network_id"].isin(robustness["network_id"])]
    without_any = set(absent["network_id"])
    lacking = [
        (network, measure)
        for network, measure in completeness.absent_estimates(plan, networks, robustness)
        if network.id not in without_any
    ]
    if absent.empty and not lacking:
        yield "No network is missing: each is trained and measured."
        return
    trained = absent["status"].isin(MEASURABLE)
    why = absent["status"].where(~trained, "not measured").replace(PLANNED, "not trained yet")
    why = why.where(absent["reason"].isna(), why + ": " + absent["reason"].fillna(""))
    rows = []
    for (grid, reason), members in absent.groupby(["grid", why], sort=False):
        rows.append((grid, f"{len(members):,}", reason, _named(members["network_id"])))
    for grid, measure, ids in completeness.by_measure(lacking):
        rows.append((grid, f"{len(ids):,}", f"{measure} was not measured", _named(ids)))
    yield from _table(["grid", "networks", "why", "which"], rows)


def _named(ids: Collection[str]) -> str:
    return ", ".join(ids) if len(ids) <= NAMED else "see networks.parquet"


def _table(heads: list[str], rows: object) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in row)} |"
