"""The tests of paper 000's empirical claims: trainings side by side, each mean and difference over trainings.

The error of a number has two sources, as in `means`: the trainings, over which means are, and the N test
points. Of a score the latter is taken from its tight interval, which is wider than a normal one; accuracies are of the
whole test split, which all networks share, so their error is of trainings alone.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from deltaball.analysis.claims import Evidence, Part
from deltaball.analysis.clustered import Student
from deltaball.analysis.comparison import ATTACKS, SCORES
from deltaball.analysis.means import AT_POINTS, Level, Mean, combined, joined_points, level, mean

KEYS = ["dataset", "architecture", "parameters", "training"]


def longest(table: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table `comparison`, of each training its longest, with scores at points."""
    rows = table[table["epochs"] == table.groupby("cluster")["epochs"].transform("max")]
    return rows.assign(
        **{f"{one}_{AT_POINTS}": joined_points(rows, measured, f"{one}_measure") for one in SCORES},
    )


def _level(evidence: Evidence, networks: Mapping[str, Any], what: str) -> Iterator[Part]:
    for where, rows in _situations(evidence, networks, what):
        one = _mean(rows, what, evidence)
        found = level(one) if what in ATTACKS else combined([one], [1])
        yield _part(f"{where[0]}, {_named(rows)}", rows, found)


def _difference(
    evidence: Evidence, networks: Mapping[str, Any], against: Mapping[str, Any], what: str
) -> Iterator[Part]:
    for where, rows in _situations(evidence, networks, what):
        for there, others in _situations(evidence, against, what):
            if there[:-1] == where[:-1]:
                found = combined([_mean(one, what, evidence) for one in (rows, others)], [1, -1])
                name = f"{where[0]}: {_named(rows)} less {_named(others)}"
                yield _part(name, pd.concat([rows, others]), found)


COMPARISON_TESTS: dict[str, Callable[..., Iterator[Part]]] = {
    "comparison_level": _level,
    "comparison_difference": _difference,
}


# ------------------------------------------------------------------------------------------------- what the tests share


def _situations(
    evidence: Evidence, networks: Mapping[str, Any], what: str
) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The chosen networks, per data set, architecture, size and training, where `what` is asked of the data set."""
    rows = evidence.compared
    rows = rows[rows[what].notna().groupby(rows["dataset"]).transform("any")]
    for name, values in networks.items():
        rows = rows[rows[name].isin(values)]
    yield from rows.groupby(KEYS, sort=False)


def _mean(rows: pd.DataFrame, what: str, evidence: Evidence) -> Mean | None:
    if what in ATTACKS:
        return mean(rows, what, "found")
    of_points = _of_points(rows.dropna(subset=what), what, evidence.values["confidence"])
    highest = float(rows["cut_at"].max()) if what == "r2" else 1.0
    return mean(rows, what, of_points=of_points, at=f"{what}_{AT_POINTS}", highest=highest)


def _of_points(rows: pd.DataFrame, what: str, confidence: float) -> float:
    if what not in SCORES:
        return 0.0
    errors = (rows[f"{what}_upper"] - rows[f"{what}_lower"]) / 2 / stats.norm.ppf((1 + confidence) / 2)
    return float(np.square(errors).mean())


def _named(rows: pd.DataFrame) -> str:
    return str(rows["kind"].iloc[0])


def _part(name: str, members: pd.DataFrame, found: Level | Student | None) -> Part:
    remark = "" if found else "fewer than two independent trainings of a kind have one"
    return Part(name, members["dataset"].iloc[0], None, members, found, remark)
