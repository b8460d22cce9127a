"""Whether tables of several runs agree, row by row: else a line says which network, which column and both values.

Numbers from the same device and software agree when they are equal. Those from different ones agree within
ACCURACY_APART in accuracy, and within the ε of each estimate.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from deltaball.base.errors import InputError
from deltaball.plan.plan import Plan
from deltaball.run.pieces import KEYS, row_name

ACCURACY_APART = 0.01
REMEDY = "leave out the one that is not of this study's code"


def check_data(plan: Plan, networks: pd.DataFrame) -> None:
    """Raise InputError where a network was trained on other data than the plan's."""
    datasets = {network.id: network.dataset for network in plan.networks}
    for row in networks[networks["data_sha256"].notna()].itertuples():
        facts = plan.facts[datasets[row.network_id]]
        if row.data_sha256 != facts.fingerprint:
            raise InputError(
                f"network {row.network_id}: data_sha256 is {row.data_sha256[:12]} in {row.source} and "
                f"{facts.fingerprint[:12]} in the data set {facts.name} of this study"
            )


def check_points(plan: Plan, robustness: pd.DataFrame) -> None:
    """Raise InputError where an estimate has other test points, or another guarantee, than the plan's."""
    wanted = {(network.id, one.name): one for network in plan.networks for one in plan.measures_of(network)}
    for row in robustness.itertuples():
        one = wanted.get((row.network_id, row.measure))
        if one is None:
            continue
        asked = {name: getattr(one, name) for name in ("samples", "epsilon", "confidence")}
        for column, value in {**asked, "points_seed": plan.study.guarantee.seed}.items():
            if getattr(row, column) != value:
                raise InputError(
                    f"network {row.network_id}, {row.measure}: {column} is {getattr(row, column):g} in {row.source} "
                    f"and {value:g} in this study; measure it again"
                )


def united(name: str, rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
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


def _contradiction(rows: pd.DataFrame, keys: list[str], key: tuple[Any, ...], column: str) -> InputError:
    same = np.ones(len(rows), bool)
    for name, value in zip(keys, key, strict=True):
        same &= (rows[name].isna() if pd.isna(value) else rows[name] == value).to_numpy(bool)
    values = rows[same].dropna(subset=column).drop_duplicates(column).head(2)
    said = " and ".join(f"{row[column]!s} in {row['source']}" for _, row in values.iterrows())
    where = row_name(values.iloc[0], [one for one in keys if one != "version"])
    return InputError(f"{where}: {column} is {said}, on {values.iloc[0]['version']}; {REMEDY}")


def check_versions(one_run: Mapping[str, pd.DataFrame]) -> None:
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
    return InputError(f"{row_name(one, keys)}: {column} is {said}{limit}; {REMEDY}")
