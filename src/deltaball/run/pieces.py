"""The tables that one run left, each checked by itself, and that they are of one run."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from deltaball.base.errors import InputError
from deltaball.base.statuses import FAILED, FINISHED, STATUSES
from deltaball.plan.networks import Shard
from deltaball.plan.plan import Plan
from deltaball.tables import columns as contract
from deltaball.tables import frames, parts

COLUMNS: dict[str, Mapping[str, str]] = {
    "networks": {"network_id": "str", **contract.RESULTS},
    "robustness": contract.ROBUSTNESS,
    "outcomes": {"network_id": "str", "measure": "str", "values": "object"},
    "curves": contract.CURVES,
    "convergence": contract.CONVERGENCE,
}
KEYS = {
    "networks": ["network_id"],
    "robustness": ["network_id", "measure"],
    "outcomes": ["network_id", "measure"],
    "curves": ["network_id", "notion", "norm", "gamma", "delta"],
    "convergence": ["network_id", "measure", "epsilon", "draw"],
}


@dataclass(frozen=True)
class Piece:
    """The tables that one run left, by name, and what to call them in a message."""

    source: str
    tables: Mapping[str, pd.DataFrame]


def of_folder(folder: Path, own: bool = False) -> Piece:
    """The tables of a results folder; all but networks.parquet may be missing.

    Raises InputError when a table is damaged or contradicts itself. In the study's `own` folder, rows of networks that
    are not among the trained ones are what an edit of the study left behind, and are left out.
    """
    if not (folder / "networks.parquet").exists():
        raise InputError(
            f"{folder} has no networks.parquet; give the folder of a study's tables, such as results/paper"
        )
    tables = _empty()
    for name, columns in COLUMNS.items():
        path = folder / f"{name}.parquet"
        if path.exists():
            tables[name] = frames.read(path, columns)
    return of_tables(str(folder), _without_strays(tables) if own else tables)


def of_shard(plan: Plan, shard: Shard) -> Piece | None:
    """The parts of tables that a shard's jobs left; None when it is not trained."""
    kinds = {"trained": "networks", "measured": "robustness", "outcomes": "outcomes"}
    tables = _empty()
    for kind, name in kinds.items():
        found = parts.read(plan, shard, kind, COLUMNS[name])
        if found is not None:
            tables[name] = found
        elif kind == "trained":
            return None
    return of_tables(f"shard {shard.id}", tables)


def of_failures(reasons: Mapping[str, str]) -> Piece:
    """Rows of networks that failed, with the reasons, by id."""
    rows = [{"network_id": identity, "status": FAILED, "reason": reason} for identity, reason in reasons.items()]
    return of_tables("this run", {**_empty(), "networks": pd.DataFrame(rows, columns=list(COLUMNS["networks"]))})


def of_tables(source: str, given: Mapping[str, pd.DataFrame]) -> Piece:
    """Tables by name, checked: each by itself, and that they are of one run. Raises InputError where they are not."""
    tables = {name: _typed(name, given[name], source) for name in COLUMNS}
    _check_statuses(tables["networks"], source)
    _check_of_one_run(tables, source)
    empty = tables["robustness"][tables["robustness"]["estimate"].isna()]
    if len(empty):
        raise InputError(f"robustness of {source}: {row_name(empty.iloc[0], KEYS['robustness'])} has no estimate")
    tables["outcomes"] = tables["outcomes"].assign(
        values=[np.asarray(values, np.float32) for values in tables["outcomes"]["values"]]
    )
    return Piece(source, tables)


def finished(given: Iterable[Piece]) -> set[str]:
    """The ids of the networks that are trained in one of the pieces, or diverged."""
    return {identity for piece in given for identity in _finished(piece.tables["networks"])}


def without(piece: Piece, ids: Collection[str]) -> Piece:
    """A piece without everything of these networks."""
    return Piece(piece.source, {name: table[~table["network_id"].isin(ids)] for name, table in piece.tables.items()})


def row_name(row: pd.Series, keys: list[str]) -> str:
    """What a message calls a row: the network and the other keys that it has."""
    first, *others = [str(row[name]) for name in keys if not pd.isna(row[name])]
    return ", ".join([f"network {first}", *others])


def _empty() -> dict[str, pd.DataFrame]:
    return {name: pd.DataFrame(columns=list(columns)) for name, columns in COLUMNS.items()}


def _finished(networks: pd.DataFrame) -> pd.Series:
    return networks["network_id"][networks["status"].isin(FINISHED)]


def _without_strays(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    finished = _finished(tables["networks"])
    kept = {name: table[table["network_id"].isin(finished)] for name, table in tables.items() if name != "networks"}
    return {**tables, **kept}


def _typed(name: str, table: pd.DataFrame, source: str) -> pd.DataFrame:
    """A table with its columns in their types. Raises InputError where a key is missing or there twice."""
    where = f"{name} of {source}"
    types = {column: kind for column, kind in COLUMNS[name].items() if kind != "object"}
    try:
        table = table[list(COLUMNS[name])].astype(types)
    except (TypeError, ValueError) as problem:
        raise InputError(f"{where} cannot be used: {' '.join(str(problem).split())}") from None
    if table["network_id"].isna().any():
        raise InputError(f"{where} cannot be used: a row has no network_id")
    twice = table[table.duplicated(KEYS[name])]
    if len(twice):
        raise InputError(f"{where} cannot be used: {row_name(twice.iloc[0], KEYS[name])} is there twice")
    return table


def _check_statuses(networks: pd.DataFrame, source: str) -> None:
    unknown = networks[~networks["status"].isin(STATUSES)]
    if len(unknown):
        first = unknown.iloc[0]
        raise InputError(f"networks of {source}: network {first['network_id']} has the status {first['status']!r}")


def _check_of_one_run(tables: Mapping[str, pd.DataFrame], source: str) -> None:
    finished = _finished(tables["networks"])
    for name in ("robustness", "outcomes", "curves", "convergence"):
        stray = tables[name][~tables[name]["network_id"].isin(finished)]
        if len(stray):
            raise InputError(
                f"{name} of {source} has rows of network {stray.iloc[0]['network_id']}, which is not among its "
                "trained networks; the tables are not of one run"
            )
