"""The tables of a study: how they are made of rows, written and read."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from deltaball.base.errors import InputError
from deltaball.base.files import written_checked, written_whole
from deltaball.base.statuses import FAILED, PLANNED
from deltaball.plan.networks import Network, Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Store
from deltaball.study.grids import all_axes
from deltaball.study.methods import METHODS, TRAININGS
from deltaball.tables import sealing
from deltaball.tables.columns import (
    ABSENT_IN_OLD_TABLES,
    COLUMN_TYPES,
    CONVERGENCE,
    CURVES,
    EXAMPLES,
    JOBS,
    RESULTS,
    ROBUSTNESS,
)
from deltaball.tables.outcomes import OPTIONS
from deltaball.workflow import seals

# What says which of a method's networks are the same: the trajectory, and how far along it.
CHECKPOINT = ["method", "trajectory_id", *sorted({method.along for method in METHODS.values()})]


def trained(
    plan: Plan, trajectories: Iterable[Trajectory], store: Store, failures: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """What training found out about the networks of `trajectories`: network_id and the columns of RESULTS.

    `failures` says of trajectories why they lack checkpoints; their networks are `failed`.
    """
    rows = [_trained_row(plan, network, store, failures or {}) for network in plan.networks_of(trajectories)]
    return _typed(pd.DataFrame(rows), {"network_id": "str", **RESULTS})


def _trained_row(plan: Plan, network: Network, store: Store, failures: Mapping[str, str]) -> dict[str, Any]:
    if network.trajectory_id in failures and not store.has(network.trajectory_id, network.checkpoint):
        return {"network_id": network.id, "status": FAILED, "reason": failures[network.trajectory_id]}
    facts = store.facts(network.trajectory_id, network.checkpoint)
    results = {name: value for name, value in facts.items() if name in RESULTS}
    is_dense = not TRAININGS[plan.trajectories[network.trajectory_id].method].is_pruning
    dense = {"sparsity": 0.0, "sparsity_total": 0.0, "empty_layers": 0} if is_dense else {}
    has_trunk = network.trunk and (network.trunk[0] not in failures or store.has(*network.trunk))
    trunk = {"trunk_accuracy": store.facts(*network.trunk).get("test_accuracy")} if has_trunk else {}
    return {"network_id": network.id, **dense, **results, **trunk}


def networks(plan: Plan, parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """networks.parquet: one row per planned network in the plan's order; `status` is `planned` where none is known.

    Columns: ids and grid, one per axis (null where it does not apply), `parameters`, `trunk_id` (of a pruned network,
    the dense trajectory it was pruned from), then RESULTS.
    """
    axes = all_axes()
    rows = pd.DataFrame(
        {
            "network_id": network.id,
            "trajectory_id": network.trajectory_id,
            "grid": network.grid,
            "dataset": network.dataset,
            "method": network.method,
            "architecture": network.architecture,
            **{name: network.axes.get(name) for name in axes},
            "parameters": plan.trajectories[network.trajectory_id].parameters,
            "trunk_id": network.trunk[0] if network.trunk else None,
        }
        for network in plan.networks
    )
    rows = rows.astype({name: COLUMN_TYPES[kind] for name, kind in axes.items()} | {"trunk_id": "str"})
    found = _joined(parts, {"network_id": "str", **RESULTS})
    found = found[found["network_id"].isin(rows["network_id"])]
    table = rows.merge(found, on="network_id", how="left", validate="one_to_one")
    table["status"] = table["status"].fillna(PLANNED)
    return table


def robustness(plan: Plan, parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """robustness.parquet: one row per network × measure, networks in the plan's order."""
    order = {network.id: index for index, network in enumerate(plan.networks)}
    table = _joined(parts, ROBUSTNESS)
    table = table[table["network_id"].isin(order)]
    return table.sort_values("network_id", key=lambda ids: ids.map(order), kind="stable", ignore_index=True)


def outcomes(plan: Plan, parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """outcomes.parquet: one row per network × measure, networks in the plan's order; `values` lists N outcomes."""
    order = {network.id: index for index, network in enumerate(plan.networks)}
    parts = list(parts)
    columns = ["network_id", "measure", "values"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    table = table[table["network_id"].isin(order)]
    return table.sort_values("network_id", key=lambda ids: ids.map(order), kind="stable", ignore_index=True)


def jobs(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """jobs.csv: one row per run of a job, the oldest first; `failures` counts its trajectories that failed."""
    rows = [{**one, "failures": len(one.get("failures", ()))} for one in records]
    return pd.DataFrame(rows, columns=list(JOBS)).astype(JOBS)


def load(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables on disk, as this plan sees them: its networks (those not in the table `planned`), its measures.

    Raises InputError when a table is missing, damaged or lacks a column.
    """
    folder = plan.study.folder
    found = read(folder / "networks.parquet", ["network_id", *RESULTS])
    measures = [one.name for one in plan.measures]
    estimates = read(folder / "robustness.parquet", ROBUSTNESS)
    return (
        networks(plan, [found[["network_id", *RESULTS]]]),
        robustness(plan, [estimates[estimates["measure"].isin(measures)]]),
    )


def load_curves(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """curves.parquet and convergence.parquet, the plan's networks alone. Raises InputError where `load` would."""
    ids = {network.id for network in plan.networks}
    curves = read(plan.study.folder / "curves.parquet", CURVES)
    convergence = read(plan.study.folder / "convergence.parquet", CONVERGENCE)
    curves, convergence = (table[table["network_id"].isin(ids)] for table in (curves, convergence))
    return curves.reset_index(drop=True), convergence.reset_index(drop=True)


def load_outcomes(plan: Plan) -> pd.DataFrame | None:
    """outcomes.parquet; None where it is not: a copy of a study's tables may come without it, the largest."""
    path = plan.study.folder / "outcomes.parquet"
    return read(path, ["network_id", "measure", "values"]) if path.exists() else None


def distinct(networks: pd.DataFrame, robustness: pd.DataFrame) -> pd.DataFrame:
    """The networks without those that are another one of the same method once more: what statistics count.

    Networks are the same where they stand on one checkpoint of one trajectory: a proportion of 0 prunes nothing,
    whatever the rounds and the ranking. The one that most estimates are of stays, the first where several are.
    """
    estimates = networks["network_id"].map(robustness["network_id"].value_counts()).fillna(0)
    ranked = networks.loc[estimates.sort_values(ascending=False, kind="stable").index]
    repeated = ranked.duplicated(CHECKPOINT)
    return networks[~repeated.sort_index()].reset_index(drop=True)


def load_examples(plan: Plan) -> pd.DataFrame:
    """examples.parquet, the plan's networks alone; no row where a study has no such file, which nothing depends on."""
    path = plan.study.folder / "examples.parquet"
    if not path.exists():
        return pd.DataFrame(columns=list(EXAMPLES)).astype(EXAMPLES)
    examples = read(path, EXAMPLES)
    return examples[examples["network_id"].isin({network.id for network in plan.networks})].reset_index(drop=True)


def measured(networks: pd.DataFrame, robustness: pd.DataFrame) -> pd.DataFrame:
    """One row per estimate of these networks, with everything known about its network beside it.

    `cluster` tells networks apart that are independent of each other: checkpoints of one trajectory are not, nor are
    networks pruned from one trunk.
    """
    clusters = networks.assign(cluster=networks["trunk_id"].fillna(networks["trajectory_id"]))
    return robustness.merge(clusters, on="network_id", how="inner", validate="many_to_one")


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table as parquet, whole or not at all; its seal says its name."""
    with written_whole(path) as temporary:
        to_file(table, temporary, path.stem)


def to_file(table: pd.DataFrame, path: Path, name: str) -> None:
    """Write the table of this name to a file of any name."""
    options = OPTIONS if name == "outcomes" else {}
    sealing.to_file(table, path, {"table": name}, **options)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    with written_checked(path) as temporary:
        table.to_csv(temporary, index=False)


def read(path: Path, columns: Mapping[str, Any] | Iterable[str] = ()) -> pd.DataFrame:
    """A parquet table. Raises InputError when it is missing, damaged, or lacks one of `columns`."""
    if path.is_file() and (damaged := seals.damage(path)):
        raise InputError(f"{damaged}; delete it and run again")
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise InputError(f"{path} is not there; `snakemake --cores all` makes it") from None
    except (OSError, ValueError) as problem:  # pyarrow's errors are ValueErrors
        raise InputError(f"{path} cannot be read ({problem}); delete it and run again") from None
    missing = [name for name in columns if name not in table and name not in ABSENT_IN_OLD_TABLES]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}; delete it and run again")
    wanted = set(columns)
    absent = {name: value for name, value in ABSENT_IN_OLD_TABLES.items() if name in wanted and name not in table}
    return table.assign(**absent)


def _joined(parts: Iterable[pd.DataFrame], columns: Mapping[str, str]) -> pd.DataFrame:
    parts = list(parts)
    return _typed(pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(), columns)


def _typed(table: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """The table with these columns, nulls where it has none, in these types; other columns stay in front."""
    rest = [name for name in table.columns if name not in columns]
    table = table.reindex(columns=[*rest, *columns])
    return table.astype(dict(columns))
