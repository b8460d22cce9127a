"""What each judge settles of what the ones before it leave open, network by network, and what it takes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from deltaball.analysis.judges import entry, judge_of, strength
from deltaball.study.notions import NOTIONS

KNOWN = ["network_id", "dataset", "grid", "method", "architecture"]
LEVEL = ["notion", "norm", "gamma", "delta"]
COUNTS = ["samples", "asked", "violated", "proven", "open", "settled", "gap", "seconds"]
COLUMNS = [*KNOWN, *LEVEL, "judge", *COUNTS]

Said = Mapping[str, Mapping[float, np.ndarray]]  # outcomes by judge and δ


def settling(
    measured: pd.DataFrame, outcomes: pd.DataFrame | None, records: Iterable[Mapping[str, Any]]
) -> pd.DataFrame:
    """One row per network × notion × norm × γ × δ × judge, where δ is asked from both sides; judges in their order.

    A judge is `asked` of `samples` points, but for those that are settled before: attacks are asked of all,
    certificates not of what an attack violated, exact answers of what is open. Of what is open when it comes it finds
    some `violated` and some `proven`, and leaves some `open`. `gap` is the distance of the two sides after it, in
    [0, 1], and `settled` by how much it closed that; of a variation (D) nothing else is told. As in enclosures, a
    violation counts in every larger ball and a proof in every smaller one. `seconds` are of a CPU's work, or of holding
    a GPU, by the jobs' `records`; null where these do not tell of all points. They hold what a judge does itself: an
    exact answer attacks and bounds once more before it branches.

    `outcomes` is outcomes.parquet; there are no rows without it.
    """
    rows: list[dict[str, Any]] = []
    if outcomes is not None:
        values = outcomes.set_index(["network_id", "measure"])["values"]
        took = _taken(records)
        shown = measured[measured["attack"].notna() | measured["certificate"].notna()]
        shown = shown[~shown["notion"].map(lambda notion: NOTIONS[notion].is_distance).astype(bool)]
        for _, members in shown.groupby(["network_id", *LEVEL[:-1]], sort=False, dropna=False):
            rows += _of_network(members, values, took)
    return pd.DataFrame(rows, columns=COLUMNS)


def order(judge: str) -> tuple[int, tuple[int, float]]:
    """Attacks come first, then certificates, then exact answers; the weaker before the stronger."""
    return entry(judge).stage, strength(judge)


def _of_network(
    members: pd.DataFrame, values: pd.Series, took: Mapping[tuple[str, str], tuple[int, float]]
) -> Iterator[dict[str, Any]]:
    """Rows of one network and notion."""
    points = int(members["samples"].min())
    said: dict[str, dict[float, np.ndarray]] = {}
    for row in members.to_dict("records"):
        found = np.asarray(values.loc[(row["network_id"], row["measure"])][:points], float)
        said.setdefault(judge_of(row), {})[row["delta"]] = found
    rises = NOTIONS[members["notion"].iloc[0]].violations_raise
    for _, level in members.groupby("delta"):
        by_judge = {judge_of(row): row for row in level.to_dict("records")}
        judges = sorted(by_judge, key=order)
        says = {entry(judge).says for judge in judges}
        if "decides" not in says and not {"finds", "proves"} <= says:
            continue
        low, high = np.zeros(points), np.ones(points)
        for judge in judges:
            row, before, was_violated, was_open = by_judge[judge], (high - low).mean(), high == 0, high > low
            low, high = _closed(low, high, judge, row["delta"], said, rises)
            told = {name: row[name] for name in (*KNOWN, *LEVEL)} | {"judge": judge, "samples": points}
            gap = (high - low).mean()
            told |= {"gap": gap, "settled": before - gap, "seconds": _seconds(row, points, took)}
            asked = {"finds": points, "proves": (~was_violated).sum(), "decides": was_open.sum()}
            told["asked"] = points if rises else int(asked[entry(judge).says])
            if not rises:
                told["violated"] = int((was_open & (high == 0)).sum())
                told["proven"] = int((was_open & (low == 1)).sum())
                told["open"] = int((high > low).sum())
            yield told


def _closed(
    low: np.ndarray, high: np.ndarray, judge: str, delta: float, said: Said, rises: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Between what the outcomes in the ball of δ lie when this judge has spoken, too."""
    says = entry(judge).says
    for at, values in said[judge].items():
        known = values if says != "decides" else np.where(np.isnan(values), 1.0, values)
        if says != "proves" and at <= delta:
            low, high = (np.maximum(low, known), high) if rises else (low, np.minimum(high, known))
        known = values if says != "decides" else np.nan_to_num(values)
        if says != "finds" and at >= delta:
            low, high = (low, np.minimum(high, known)) if rises else (np.maximum(low, known), high)
    return low, high


def _taken(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[int, float]]:
    """Of each network and measure the points that jobs tell of, and the seconds of these."""
    found: dict[tuple[str, str], tuple[int, float]] = {}
    for record in records:
        for measure, members in record.get("judging", {}).items():
            for network, (points, seconds) in members.items():
                before = found.get((network, measure), (0, 0.0))
                found[network, measure] = (before[0] + points, before[1] + seconds)
    return found


def _seconds(row: Mapping[str, Any], points: int, took: Mapping[tuple[str, str], tuple[int, float]]) -> float:
    """Of so many points; of more that jobs tell of, of other runs or of an experiment, the mean."""
    known, seconds = took.get((row["network_id"], row["measure"]), (0, 0.0))
    return seconds * points / known if known >= points else np.nan
