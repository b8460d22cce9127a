"""Results of several runs, machines or subsets of a study as one: the same id has the same numbers, or a line says no.

Numbers of one network that come from the same device and the same software must be equal, bit for bit. On another
device, or with other software, training rounds differently and ends at other weights, so that they agree only about:
within ACCURACY_APART in accuracy, and within the ε of each estimate. Such a network is then taken whole from one of
them, the one that has more estimates (of two with as many, the first by name): tables never mix two sets of weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deltaball.base.errors import InputError
from deltaball.base.files import written_whole
from deltaball.base.statuses import DIVERGED, FAILED, FINISHED, MEASURABLE, STATUSES
from deltaball.estimation import convergence, curves
from deltaball.plan.networks import Shard
from deltaball.plan.plan import Plan
from deltaball.tables import columns as contract
from deltaball.tables import frames
from deltaball.workflow import jobs

ACCURACY_APART = 0.01

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


def of_folder(folder: Path) -> Piece:
    """The tables of a results folder; all but networks.parquet may be missing.

    Raises InputError when a table is damaged or contradicts itself.
    """
    if not (folder / "networks.parquet").exists():
        raise InputError(
            f"{folder} has no networks.parquet; give the folder of a study's tables, such as results/paper"
        )
    found = {}
    for name, columns in COLUMNS.items():
        path = folder / f"{name}.parquet"
        found[name] = frames.read(path, columns) if path.exists() else pd.DataFrame(columns=list(columns))
    return of_tables(str(folder), found)


def of_shard(plan: Plan, shard: Shard) -> Piece | None:
    """The parts of tables that a shard's jobs left; None when it is not trained."""
    parts = {"trained": "networks", "measured": "robustness", "outcomes": "outcomes"}
    found = {name: pd.DataFrame(columns=list(columns)) for name, columns in COLUMNS.items()}
    for kind, name in parts.items():
        path = jobs.part(plan, shard.id, kind)
        if path.exists():
            found[name] = frames.read(path, COLUMNS[name])
        elif kind == "trained":
            return None
    return of_tables(f"shard {shard.id}", found)


def of_failures(reasons: Mapping[str, str]) -> Piece:
    """Rows of networks that failed, with the reasons, by id."""
    rows = [{"network_id": one, "status": FAILED, "reason": reason} for one, reason in reasons.items()]
    found = {name: pd.DataFrame(columns=list(columns)) for name, columns in COLUMNS.items()}
    return of_tables("this run", {**found, "networks": pd.DataFrame(rows, columns=list(COLUMNS["networks"]))})


def of_tables(source: str, given: Mapping[str, pd.DataFrame]) -> Piece:
    """Tables by name, checked: each by itself, and that they are of one run. Raises InputError where they are not."""
    found = {}
    for name, columns in COLUMNS.items():
        table, where = given[name][list(columns)], f"{name} of {source}"
        try:
            table = table.astype({column: kind for column, kind in columns.items() if kind != "object"})
        except (TypeError, ValueError) as problem:
            raise InputError(f"{where} cannot be used: {' '.join(str(problem).split())}") from None
        missing = table["network_id"].isna().any()
        if missing:
            raise InputError(f"{where} cannot be used: a row has no network_id")
        twice = table[table.duplicated(KEYS[name])]
        if len(twice):
            raise InputError(f"{where} cannot be used: {_row(twice.iloc[0], KEYS[name])} is there twice")
        found[name] = table
    networks = found["networks"]
    unknown = networks[~networks["status"].isin(STATUSES)]
    if len(unknown):
        first = unknown.iloc[0]
        raise InputError(f"networks of {source}: network {first['network_id']} has the status {first['status']!r}")
    finished = networks["network_id"][networks["status"].isin(FINISHED)]
    for name in ("robustness", "outcomes", "curves", "convergence"):
        stray = found[name][~found[name]["network_id"].isin(finished)]
        if len(stray):
            raise InputError(
                f"{name} of {source} has rows of network {stray.iloc[0]['network_id']}, which is not among its "
                "trained networks; the tables are not of one run"
            )
    empty = found["robustness"][found["robustness"]["estimate"].isna()]
    if len(empty):
        raise InputError(f"robustness of {source}: {_row(empty.iloc[0], KEYS['robustness'])} has no estimate")
    found["outcomes"] = found["outcomes"].assign(
        values=[np.asarray(values, np.float32) for values in found["outcomes"]["values"]]
    )
    return Piece(source, found)


def merged(plan: Plan, pieces: Sequence[Piece]) -> dict[str, pd.DataFrame]:
    """The tables of a plan, in its order, from all of `pieces`; rows of networks and measures not in it are left out.

    Curves and convergence are computed anew where there are outcomes. The order of the pieces changes nothing.
    Raises InputError naming network, column and both values where two pieces contradict each other, and where a
    piece has a planned number of other test points, or a network of other data, than the plan.
    """
    asked = {network.id: plan.asked_of(network) for network in plan.networks}
    named = {identity: {one.name: one for one in measures} for identity, measures in asked.items()}
    estimated = {network.id: {one.name for one in plan.measures_of(network)} for network in plan.networks}
    found = {
        name: _gathered(name, pieces, estimated if name == "robustness" else {one: {*named[one]} for one in named})
        for name in COLUMNS
    }
    _check_data(plan, found["networks"])
    _check_points(plan, found["robustness"])
    networks = found["networks"]
    failed = networks[networks["status"] == FAILED].sort_values("reason").drop_duplicates("network_id")
    found["networks"] = networks[networks["status"].isin(FINISHED)]
    one_run = {name: _united(name, table, [*KEYS[name], "version"]) for name, table in found.items()}
    _check_versions(one_run)
    chosen = _chosen_versions(one_run)
    united = {
        name: table[table["version"] == table["network_id"].map(chosen)].drop(columns=["version", "source"])
        for name, table in one_run.items()
    }
    failed = failed[~failed["network_id"].isin(united["networks"]["network_id"])]
    rows = pd.concat([united["networks"], failed[list(COLUMNS["networks"])]], ignore_index=True)
    order = {identity: index for index, identity in enumerate(named)}
    place = {(identity, name): index for identity in named for index, name in enumerate(named[identity])}

    def arranged(name: str) -> pd.DataFrame:
        keys = [(order[one], place[one, measure]) for one, measure in united[name][["network_id", "measure"]].values]
        return united[name].iloc[sorted(range(len(keys)), key=keys.__getitem__)].reset_index(drop=True)

    outcomes, robustness = arranged("outcomes"), arranged("robustness")
    return {
        "networks": frames.networks(plan, [rows]),
        "outcomes": outcomes,
        "curves": _curves(plan, united["curves"], outcomes, robustness, order),
        "convergence": _convergence(plan, united["convergence"], outcomes),
        "robustness": frames.robustness(plan, [robustness]),
    }


def write(plan: Plan, found: Mapping[str, pd.DataFrame], records: Iterable[Mapping[str, Any]] = ()) -> None:
    """Write tables, and job records if there are any, to the study's folder: all of them or none."""
    records = list(records)
    with ExitStack() as stack:
        # They take their names when all are written, the last one first: networks before what is said about them.
        if records:
            stack.enter_context(written_whole(plan.study.folder / jobs.MERGED_RECORDS)).write_text(jobs.lines(records))
        for name in ("robustness", "convergence", "curves", "outcomes", "networks"):
            if name != "outcomes" or len(found[name]):
                temporary = stack.enter_context(written_whole(plan.study.folder / f"{name}.parquet"))
                found[name].to_parquet(temporary, index=False)


def finished_shards(plan: Plan, piece: Piece) -> set[str]:
    """The ids of the shards of which the tables have every network, trained and measured as the plan asks."""
    networks = piece.tables["networks"]
    status = dict(networks[["network_id", "status"]].itertuples(index=False))
    estimates = {
        (row.network_id, row.measure): (row.samples, row.epsilon, row.confidence)
        for row in piece.tables["robustness"].itertuples()
    }
    drawn = set(piece.tables["convergence"][["network_id", "measure", "epsilon"]].itertuples(index=False, name=None))

    def there(network: Any) -> bool:
        if status.get(network.id) not in MEASURABLE:
            return status.get(network.id) == DIVERGED
        return all(
            estimates.get((network.id, one.name)) == (one.samples, one.epsilon, one.confidence)
            for one in plan.measures_of(network)
        ) and all(
            (network.id, one.name, epsilon) in drawn
            for experiment in plan.experiments
            if network in experiment.networks
            for one in experiment.measures
            for epsilon in experiment.epsilons
        )

    lacking = {network.trajectory_id for network in plan.networks if not there(network)}
    return {
        identity
        for identity, shard in plan.shards.items()
        if not lacking.intersection(one.id for one in shard.trajectories)
    }


def _gathered(name: str, pieces: Sequence[Piece], asked: Mapping[str, set[str]]) -> pd.DataFrame:
    """The rows of networks and measures that are asked for, with their `source` and the `version` of their network."""
    rows = []
    for piece in pieces:
        networks = piece.tables["networks"]
        named_versions = networks["device"].str.cat(networks["software"], " with ")
        versions = dict(zip(networks["network_id"], named_versions, strict=True))
        table = piece.tables[name]
        table = table[table["network_id"].isin(asked)]
        if "measure" in KEYS[name]:
            pairs = zip(table["network_id"], table["measure"], strict=True)
            table = table[np.array([measure in asked[identity] for identity, measure in pairs], bool)]
        rows.append(
            table.assign(source=piece.source, version=table["network_id"].map(versions).astype("str").fillna(""))
        )
    return pd.concat(rows, ignore_index=True)


def _check_data(plan: Plan, networks: pd.DataFrame) -> None:
    datasets = {network.id: network.dataset for network in plan.networks}
    for row in networks[networks["data_sha256"].notna()].itertuples():
        facts = plan.facts[datasets[row.network_id]]
        if row.data_sha256 != facts.fingerprint:
            raise InputError(
                f"network {row.network_id}: data_sha256 is {row.data_sha256[:12]} in {row.source} and "
                f"{facts.fingerprint[:12]} in the data set {facts.name} of this study"
            )


def _check_points(plan: Plan, robustness: pd.DataFrame) -> None:
    wanted = {(network.id, one.name): one for network in plan.networks for one in plan.measures_of(network)}
    for row in robustness.itertuples():
        one = wanted.get((row.network_id, row.measure))
        for column in ("samples", "epsilon", "confidence") if one else ():
            if getattr(row, column) != getattr(one, column):
                raise InputError(
                    f"network {row.network_id}, {row.measure}: {column} is {getattr(row, column):g} in {row.source} "
                    f"and {getattr(one, column):g} in this study; measure it again"
                )


def _united(name: str, rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Rows of one key as one row. Null agrees with anything; values that differ are a contradiction."""
    if name == "outcomes":
        return _united_outcomes(rows, keys)
    groups = rows.groupby(keys, dropna=False, sort=False)
    for column in rows.columns.difference([*keys, "source"], sort=False):
        if column == "experiment":  # the number of an experiment is its place in the study file
            continue
        counts = groups[column].nunique()
        wrong = counts[counts > 1]
        if len(wrong):
            key = min(wrong.index, key=str)
            raise _contradiction(rows, keys, key if isinstance(key, tuple) else (key,), column)
    return groups.first().reset_index()[list(rows.columns)]


def _united_outcomes(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The longest list of each key; shorter ones must be how it begins, for points are drawn in one order."""
    rows = rows.assign(length=rows["values"].map(len)).sort_values([*keys, "length", "source"])
    for key, members in rows[rows.duplicated(keys, keep=False)].groupby(keys):
        longest = members.iloc[-1]
        for one in members.iloc[:-1].itertuples():
            beginning = longest["values"][: one.length]
            (wrong,) = np.nonzero(~((beginning == one.values) | (np.isnan(beginning) & np.isnan(one.values))))
            if len(wrong):
                point = wrong[0]
                raise InputError(
                    f"network {key[0]}, {key[1]}: the outcome of test point {point} is {one.values[point]:g} in "
                    f"{one.source} and {beginning[point]:g} in {longest['source']}; {REMEDY}"
                )
    return rows.drop_duplicates(keys, keep="last").drop(columns="length")


REMEDY = "leave out the one that is not of this study's code"


def _contradiction(rows: pd.DataFrame, keys: list[str], key: tuple[Any, ...], column: str) -> InputError:
    same = np.ones(len(rows), bool)
    for name, value in zip(keys, key, strict=True):
        same &= (rows[name].isna() if pd.isna(value) else rows[name] == value).to_numpy(bool)
    values = rows[same].dropna(subset=column).drop_duplicates(column).head(2)
    said = " and ".join(f"{row[column]!s} in {row['source']}" for _, row in values.iterrows())
    where = _row(values.iloc[0], [one for one in keys if one != "version"])
    return InputError(f"{where}: {column} is {said}, on {values.iloc[0]['version']}; {REMEDY}")


def _row(row: pd.Series, keys: list[str]) -> str:
    first, *others = [str(row[name]) for name in keys if not pd.isna(row[name])]
    return ", ".join([f"network {first}", *others])


def _check_versions(one_run: Mapping[str, pd.DataFrame]) -> None:
    """Raise InputError where a network's numbers from different devices or software are too far apart."""
    networks, robustness = one_run["networks"], one_run["robustness"]
    apart = [(networks, "train_accuracy", ACCURACY_APART), (networks, "test_accuracy", ACCURACY_APART)]
    apart += [(robustness, "estimate", robustness["epsilon"])]
    for table, column, most in apart:
        keys = KEYS["networks" if table is networks else "robustness"]
        table = table.assign(most=most)
        groups = table.groupby(keys if len(keys) > 1 else keys[0])
        spread = groups[column].max() - groups[column].min()
        wrong = spread[spread > groups["most"].min() + 1e-12]
        if len(wrong):
            members = groups.get_group(min(wrong.index, key=str)).sort_values(column)
            raise _too_far(members.iloc[0], members.iloc[-1], keys, column)
    counts = networks.groupby("network_id")["status"].nunique()
    for identity in counts.index[counts > 1][:1]:
        members = networks[networks["network_id"] == identity].sort_values("status")
        raise _too_far(members.iloc[0], members.iloc[-1], ["network_id"], "status")


def _too_far(one: pd.Series, other: pd.Series, keys: list[str], column: str) -> InputError:
    said = " and ".join(f"{row[column]!s} in {row['source']} (on {row['version']})" for row in (one, other))
    limit = "" if column == "status" else f", more than {one['most']:g} apart"
    return InputError(f"{_row(one, keys)}: {column} is {said}{limit}; {REMEDY}")


def _chosen_versions(one_run: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    estimates = one_run["robustness"].groupby(["network_id", "version"]).size().rename("estimates").reset_index()
    candidates = one_run["networks"][["network_id", "version"]].merge(estimates, how="left")
    candidates = candidates.fillna({"estimates": 0}).sort_values(["estimates", "version"], ascending=[False, True])
    return dict(candidates.drop_duplicates("network_id")[["network_id", "version"]].itertuples(index=False))


def _curves(
    plan: Plan, carried: pd.DataFrame, outcomes: pd.DataFrame, robustness: pd.DataFrame, order: Mapping[str, int]
) -> pd.DataFrame:
    have = set(outcomes[["network_id", "measure"]].itertuples(index=False, name=None))
    pairs = robustness[["network_id", "measure"]].itertuples(index=False, name=None)
    without = {pair[0] for pair in pairs if pair not in have}
    derived = curves.curves(plan, outcomes[~outcomes["network_id"].isin(without)])
    rows = pd.concat([derived, carried[carried["network_id"].isin(without)]], ignore_index=True)
    families = {family: index for index, family in enumerate(dict.fromkeys(map(curves.family, plan.measures)))}
    found = {}
    for index, row in enumerate(rows.itertuples()):
        family = (row.notion, row.norm, None if pd.isna(row.gamma) else row.gamma)
        if family in families:
            found[order[row.network_id], families[family], row.delta] = index
    return rows.iloc[[found[key] for key in sorted(found)]].reset_index(drop=True).astype(contract.CURVES)


def _convergence(plan: Plan, carried: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    derived = convergence.convergence(plan, outcomes)
    there = set(derived[["network_id", "measure"]].itertuples(index=False, name=None))
    known = {(row.network_id, row.measure, row.epsilon, row.draw): row for row in carried.itertuples(index=False)}
    rows = [
        {**known[network.id, one.name, epsilon, draw]._asdict(), "experiment": number}
        for number, experiment in enumerate(plan.experiments)
        for network in experiment.networks
        for one in experiment.measures
        for epsilon in experiment.epsilons
        for draw in range(experiment.draws)
        if (network.id, one.name) not in there and (network.id, one.name, epsilon, draw) in known
    ]
    found = pd.concat([derived, pd.DataFrame(rows, columns=list(contract.CONVERGENCE))], ignore_index=True)
    return found.sort_values("experiment", kind="stable", ignore_index=True).astype(contract.CONVERGENCE)
