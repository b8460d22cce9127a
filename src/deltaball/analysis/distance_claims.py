"""The tests of paper 002's empirical claims: how near each judge finds violations, of networks fine-tuned on examples.

Every number is a mean over trunks or a difference of two such means, its error of two sources, as in `means`: the
trainings, and the N test points. Of a severity the latter is that of a mean of its hits.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from deltaball.analysis.claims import Evidence, Part
from deltaball.analysis.clustered import Student
from deltaball.analysis.distances import pointwise
from deltaball.analysis.judges import display_name
from deltaball.analysis.means import AT_POINTS, Level, Mean, combined, difference, joined_points, level, mean
from deltaball.analysis.trainings import tuned_on

PIXELS = 255
ALIKE = 1e-9  # of two radii
# Of shares, how many points or examples they are of; errors of accuracies are of trainings alone.
OF = {"frequency": "samples", "distance": "samples", "lost": "examples"}
NETWORK = ["cluster", "parameters", "epochs", "adversary", "rounds", "lead"]
EXAMPLES = ["examples_sought", "examples_found", "examples_lost", "examples_learned"]


def near(table: pd.DataFrame, measured: pd.DataFrame, within: float) -> pd.DataFrame:
    """The rows of the table `distances` within ε in L∞, of each trunk its longest training, as the tests read them.

    `tuned` is what networks are fine-tuned on, `severity` in pixels of 255, `distance` the mean distance in units of ε,
    `lost` the share of the examples that rounding loses.
    """
    rows = table[(table["norm"] == "linf") & ((table["within"] - within).abs() <= ALIKE)]
    rows = rows.merge(measured.drop_duplicates("network_id")[["network_id", *NETWORK, *EXAMPLES]], on="network_id")
    rows = rows[rows["epochs"] == rows.groupby("cluster")["epochs"].transform("max")]
    found = zip(rows.to_dict("records"), joined_points(rows, measured), strict=True)
    pairs = [(None, None) if one is None else pointwise(row, one, within) for row, one in found]
    of_points = {name: [pair[place] for pair in pairs] for place, name in enumerate(("frequency", "distance"))}
    examples = (rows["examples_found"] + rows["examples_lost"]).astype(float)
    within_reach = rows["frequency"] * rows["severity"].fillna(0) / within
    return rows.assign(
        tuned=tuned_on(rows),
        by=rows["attack"].fillna(rows["certificate"]),
        severity=PIXELS * rows["severity"],
        severity_error=PIXELS * rows["severity_error"],
        # Of a ball alone no distance is known.
        distance=(1 - rows["frequency"] + within_reach).where(rows["notion"] == "margin"),
        accuracy=rows["test_accuracy"],
        examples=examples,
        lost=rows["examples_lost"].astype(float) / examples.where(examples > 0),
        rounds=rows["rounds"].where(rows["method"] == "finetune").fillna(0).astype(int),
        sought=rows["examples_sought"].fillna(0).astype(int),
        **{f"{name}_{AT_POINTS}": pd.Series(one, rows.index, object) for name, one in of_points.items()},
    )


def _level(evidence: Evidence, networks: Mapping[str, Any], by: str, what: str) -> Iterator[Part]:
    for where, rows in _situations(evidence, networks, by):
        yield _part(f"{where.dataset}, {_named(rows)}, {display_name(by)}", rows, alone(rows, what))


def _network_difference(
    evidence: Evidence, networks: Mapping[str, Any], against: Mapping[str, Any], by: str, what: str
) -> Iterator[Part]:
    for where, rows in _situations(evidence, networks, by):
        for there, others in _situations(evidence, against, by):
            # Those that are tuned, too, are tuned in as many rounds on examples of as many images.
            if there in (where, where._replace(rounds=0, sought=0)):
                name = f"{where.dataset}, {display_name(by)}: {_named(rows)} less {_named(others)}"
                yield _part(name, pd.concat([rows, others]), compared(rows, others, what))


def _judge_difference(
    evidence: Evidence, networks: Mapping[str, Any], by: str, against: str, what: str
) -> Iterator[Part]:
    for tuned in evidence.near["tuned"].unique():
        chosen = {**networks, "tuned": [tuned]}
        for where, rows in _situations(evidence, chosen, by):
            for there, others in _situations(evidence, chosen, against):
                if there == where:
                    name = f"{where.dataset}, {_named(rows)}: {display_name(by)} less {display_name(against)}"
                    yield _part(name, pd.concat([rows, others]), compared(rows, others, what))


DISTANCE_TESTS: dict[str, Callable[..., Iterator[Part]]] = {
    "level": _level,
    "network_difference": _network_difference,
    "judge_difference": _judge_difference,
}


# ------------------------------------------------------------------------------------------------- what the tests share


def alone(rows: pd.DataFrame, what: str) -> Level | Student | None:
    """A mean over trunks; None where fewer than two have one."""
    one = _mean(rows, what)
    return level(one) if what in OF else combined([one], [1])


def compared(first: pd.DataFrame, second: pd.DataFrame, what: str) -> Student | None:
    """The mean of the first less that of the second: of trunks that both have, where these are all that there are."""
    sides = [rows.groupby("cluster")[what].mean() for rows in (first, second)]
    return difference(_mean(first, what), _mean(second, what), sides)


def _mean(rows: pd.DataFrame, what: str) -> Mean | None:
    if what in OF:
        return mean(rows, what, OF[what], at=f"{what}_{AT_POINTS}")
    if what != "severity":
        return mean(rows, what)
    # Of one hit there is no error: as large as any distance within ε may be from its mean.
    known = rows.dropna(subset=what)
    errors = known["severity_error"].fillna(PIXELS * known["within"] / 2)
    return mean(rows, what, of_points=float((errors**2).mean()))


class Where(NamedTuple):
    """Which networks are compared."""

    dataset: str
    parameters: int
    rounds: int
    sought: int  # images of which examples were sought


def _situations(evidence: Evidence, networks: Mapping[str, Any], by: str) -> Iterator[tuple[Where, pd.DataFrame]]:
    """The chosen networks, as one judge sees them. Of several settings of a training means are over these too."""
    rows = evidence.near[evidence.near["by"] == by]
    for name, values in networks.items():
        rows = rows[rows[name].isin(values)]
    for key, members in rows.groupby(list(Where._fields), sort=False):
        yield Where(*key), members


def _named(rows: pd.DataFrame) -> str:
    return str(rows["kind"].iloc[0])


def _part(name: str, members: pd.DataFrame, found: Level | Student | None) -> Part:
    first = members.iloc[0]
    remark = "" if found else "fewer than two independent trainings of a kind have one"
    return Part(name, first["dataset"], first["measure"], members, found, remark)
