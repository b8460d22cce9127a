"""What attacks miss: of the points that an exact answer violates, how many each attack leaves."""

import numpy as np
import pandas as pd
from scipy import special

from deltaball.analysis.judges import decides
from deltaball.study.notions import NOTIONS

LEVEL = ["dataset", "notion", "norm", "gamma", "delta"]
COLUMNS = [*LEVEL, "certificate", "attack", "networks", "violated", "missed", "share", "lower", "upper", "open"]


def misses(measured: pd.DataFrame, outcomes: pd.DataFrame | None, confidence: float) -> pd.DataFrame:
    """One row per data set × notion × norm × γ × δ × exact answer × attack, of the networks that have both.

    `share` is missed / violated, over the points of all networks together; `open` are the points that the exact answer
    left open, of which nothing is counted. `outcomes` is outcomes.parquet; there are no rows without it.
    """
    if outcomes is None:
        return pd.DataFrame(columns=COLUMNS)
    values = outcomes.set_index(["network_id", "measure"])["values"]
    kept = [*LEVEL, "network_id", "measure", "samples"]
    balls = measured[~measured["notion"].map(lambda notion: NOTIONS[notion].is_distance).astype(bool)]
    decided = balls.loc[decides(balls["certificate"]), [*kept, "certificate"]]
    attacked = measured.loc[measured["attack"].notna(), [*kept, "attack"]]
    pairs = decided.merge(attacked, on=[*LEVEL, "network_id"], suffixes=("", "_attack"))
    counts = [_counted(values, row) for row in pairs.to_dict("records")]
    pairs = pairs.join(pd.DataFrame(counts, columns=["violated", "missed", "open"], index=pairs.index, dtype="int64"))
    rows = []
    for key, members in pairs.groupby([*LEVEL, "certificate", "attack"], dropna=False):
        violated, missed = (members[name].to_numpy(float) for name in ("violated", "missed"))
        row = dict(zip([*LEVEL, "certificate", "attack"], key, strict=True)) | {"networks": len(members)}
        row |= {name: int(members[name].sum()) for name in ("violated", "missed", "open")}
        points = int(members["samples"].max())
        rows.append(
            row | dict(zip(("share", "lower", "upper"), share(missed, violated, points, confidence), strict=True))
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def share(missed: np.ndarray, violated: np.ndarray, points: int, confidence: float) -> tuple[float, float, float]:
    """The share of the violations [networks] that is missed, with an interval; null where nothing is violated.

    Clopper and Pearson's, for as many independent violations as these are worth (Korn & Graubard 1998, "Confidence
    intervals for proportions with small expected number of positive counts estimated from survey data"): those of one
    network go together, and all networks share their `points`, so no more than these are counted.
    """
    total, count = violated.sum(), len(violated)
    if not total:
        return np.nan, np.nan, np.nan
    rate = missed.sum() / total
    worth = total
    if count > 1 and 0 < rate < 1:
        scatter = count / (count - 1) * ((missed - rate * violated) ** 2).sum() / total**2
        worth = min(total, rate * (1 - rate) / scatter) if scatter else total
    worth, tail = min(worth, points), (1 - confidence) / 2
    hits = rate * worth
    lower = special.betaincinv(hits, worth - hits + 1, tail) if hits else 0.0
    upper = special.betainccinv(hits + 1, worth - hits, tail) if hits < worth else 1.0
    return rate, float(lower), float(upper)


def _counted(values: pd.Series, row: dict) -> tuple[int, int, int]:
    """How many points are violated, how many of these are missed, and how many are open."""
    samples = min(row["samples"], row["samples_attack"])
    truth, found = (
        np.asarray(values.loc[(row["network_id"], row[name])][:samples], float)
        for name in ("measure", "measure_attack")
    )
    violated = truth == 0
    return int(violated.sum()), int((violated & (found != 0)).sum()), int(np.isnan(truth).sum())
