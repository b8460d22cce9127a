"""The tests of paper 003's empirical claims: accuracy on clean and corrupted images, of plain and adapted classifiers.

Every number is a mean over trunks or a difference of two such means, its error of two sources, as in `means`: the
trainings, and the N test points. Where both sides of a difference are of the same trunks these are paired. Accuracy
on clean images is that on all test images, with an error of trainings alone.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from deltaball.analysis.claims import Evidence, Part
from deltaball.analysis.clustered import Student
from deltaball.analysis.corruptions import MEAN
from deltaball.analysis.means import AT_POINTS, Level, Mean, combined, difference, joined_points, level, mean
from deltaball.analysis.trainings import NONE
from deltaball.study.corruptions import CORRUPTIONS

CLEAN = "clean"


def corrupted(table: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table `corruptions` that the tests read: accuracies, at MNIST-C's severities, and at points."""
    rows = table[(table["quantity"] == "accuracy") & table["usual"].astype(bool)]
    return rows.rename(columns={"estimate": "robust"}).assign(**{AT_POINTS: joined_points(rows, measured)})


def _accuracy(evidence: Evidence, networks: Mapping[str, Any], under: str = MEAN) -> Iterator[Part]:
    for where, rows in _situations(evidence, networks, under):
        found = combined([_mean(rows, under)], [1]) if under == CLEAN else level(_mean(rows, under))
        yield _part(f"{where.dataset}, {_named(rows)}, {_title(under)}", rows, found)


def _gain(
    evidence: Evidence, networks: Mapping[str, Any], against: Mapping[str, Any], under: str = MEAN
) -> Iterator[Part]:
    for where, rows in _situations(evidence, networks, under):
        for there, others in _situations(evidence, against, under):
            if not _alike(where, there, against):
                continue
            name = f"{where.dataset}, {_title(under)}: {_named(rows)} less {_named(others)}"
            yield _part(name, pd.concat([rows, others]), _difference(rows, others, under))


def _gap(evidence: Evidence, networks: Mapping[str, Any]) -> Iterator[Part]:
    for where, rows in _situations(evidence, networks, MEAN):
        yield _part(f"{where.dataset}, {_named(rows)}", rows, _fall(rows))


def _gap_difference(evidence: Evidence, networks: Mapping[str, Any], against: Mapping[str, Any]) -> Iterator[Part]:
    for where, rows in _situations(evidence, networks, MEAN):
        for there, others in _situations(evidence, against, MEAN):
            if where.dataset == there.dataset:
                falls = [_lost(one) for one in (rows, others)]
                name = f"{where.dataset}: {_named(rows)} less {_named(others)}"
                yield _part(name, pd.concat([rows, others]), combined(falls, [1, -1]))


CORRUPTION_TESTS: dict[str, Callable[..., Iterator[Part]]] = {
    "corrupted_accuracy": _accuracy,
    "corrupted_gain": _gain,
    "corrupted_gap": _gap,
    "corrupted_gap_difference": _gap_difference,
}


# ------------------------------------------------------------------------------------------------- what the tests share


class Where(NamedTuple):
    """Which classifiers are looked at, and how they were adapted."""

    dataset: str
    architecture: str
    training: str
    adaptation: str
    pooled: str
    corrupted_images: int


def _situations(evidence: Evidence, networks: Mapping[str, Any], under: str) -> Iterator[tuple[Where, pd.DataFrame]]:
    """The chosen networks of each kind, with their accuracy under one corruption; clean, with a row each."""
    rows = evidence.corrupted
    rows = rows[rows["corruption"] == (MEAN if under == CLEAN else under)]
    for name, values in networks.items():
        rows = rows[rows[name].isin(values)]
    told = rows.assign(pooled=rows["pooled"].fillna(""), corrupted_images=rows["corrupted_images"].fillna(0))
    for key, members in told.groupby(list(Where._fields), sort=False):
        yield Where(*key), members


def _alike(where: "Where", there: "Where", named: Mapping[str, Any]) -> bool:
    """Whether two situations agree in all that is not named; how many images, and whose, only an adaptation says."""
    adaptation = ("pooled", "corrupted_images") if there.adaptation == NONE else ()
    free = {*named, *adaptation}
    return all(getattr(where, name) == getattr(there, name) for name in Where._fields if name not in free)


def _mean(rows: pd.DataFrame, under: str) -> Mean | None:
    return mean(rows, "test_accuracy") if under == CLEAN else mean(rows, "robust", "samples", at=AT_POINTS)


def _difference(first: pd.DataFrame, second: pd.DataFrame, under: str) -> Student | None:
    column = "test_accuracy" if under == CLEAN else "robust"
    sides = [rows.groupby("cluster")[column].mean() for rows in (first, second)]
    return difference(_mean(first, under), _mean(second, under), sides)


def _fall(rows: pd.DataFrame) -> Student | None:
    return combined([_lost(rows)], [1])


def _lost(rows: pd.DataFrame) -> Mean | None:
    """Accuracy on clean images less that on corrupted ones, by trunk."""
    under = _mean(rows, MEAN)
    if under is None:
        return None
    each = (rows["test_accuracy"] - rows["robust"]).groupby(rows["cluster"]).mean()
    of_trainings = float(each.var(ddof=1)) / len(each)
    # At each point, too, it is a number less what the networks do there: of which the number says nothing.
    at_points = None if under.at_points is None else -under.at_points
    return Mean(float(each.mean()), of_trainings, under.of_points, len(each) - 1, at_points=at_points)


def _named(rows: pd.DataFrame) -> str:
    return str(rows["kind"].iloc[0])


def _title(under: str) -> str:
    return "clean images" if under == CLEAN else "mean of the fifteen" if under == MEAN else CORRUPTIONS[under].title


def _part(name: str, members: pd.DataFrame, found: Level | Student | None) -> Part:
    first = members.iloc[0]
    return Part(name, first["dataset"], first["measure"], members, found, "" if found else "fewer than two trainings")
