"""How accuracy and robustness go together: Pearson and Spearman, with intervals that respect trajectories."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from deltaball.analysis.groups import NAMES, groups
from deltaball.study import NOTIONS

CONFIDENCE = 0.95
RESAMPLES = 2000
FEWEST_TRAJECTORIES = 5
COLUMNS = [
    *NAMES,
    *(f"{kind}{end}" for kind in ("pearson", "spearman") for end in ("", "_lower", "_upper")),
    "confidence",
    "trend",
]
_AT_ONCE = 100


def correlations(measured: pd.DataFrame) -> pd.DataFrame:
    """Correlation of test accuracy with each measure, per group.

    Intervals are percentiles of a bootstrap over trajectories (networks of one trajectory are not independent),
    with a fixed seed. Null where accuracy or the measure does not vary, or trajectories are fewer than 5.
    `trend` says in a word what robustness does as accuracy rises.
    """
    rows = []
    for names, members in groups(measured):
        trajectories = members["cluster"].astype("category").cat.codes.to_numpy()
        x, y = members["test_accuracy"].to_numpy(), members["estimate"].to_numpy()
        row = dict(names)
        for name, rank in (("pearson", False), ("spearman", True)):
            row[name], row[f"{name}_lower"], row[f"{name}_upper"] = correlation(x, y, trajectories, rank)
        rows.append({**row, "confidence": CONFIDENCE, "trend": trend(row)})
    return pd.DataFrame(rows, columns=COLUMNS)


def trend(row: Mapping[str, Any]) -> str:
    """What robustness does as accuracy rises: `falls` or `rises` where Pearson's whole interval says so."""
    lower, upper = row["pearson_lower"], row["pearson_upper"]
    if np.isnan(lower):
        return "not tested"
    if lower <= 0 <= upper:
        return "undecided"
    # D is a variation: the larger it is, the less robust the network.
    return "rises" if (lower > 0) == (NOTIONS[row["notion"]].quantity != "D") else "falls"


def correlation(
    x: np.ndarray, y: np.ndarray, clusters: np.ndarray, rank: bool, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Pearson's (or with `rank` Spearman's) correlation of x, y [n] and its cluster-bootstrap interval at 95 %.

    `clusters` [n] are integers from 0. Ranks are taken anew in every resample, ties at their middle rank.
    """
    count = int(clusters.max()) + 1 if len(clusters) else 0
    estimate = float(_weighted(x, y, np.ones((1, len(x))), rank)[0]) if len(x) > 1 else np.nan
    if count < FEWEST_TRAJECTORIES or np.isnan(estimate):
        return estimate, np.nan, np.nan
    generator = np.random.default_rng(seed)
    found = []
    for start in range(0, resamples, _AT_ONCE):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=min(_AT_ONCE, resamples - start))
        found.append(_weighted(x, y, drawn[:, clusters].astype(float), rank))
    tail = (1 - CONFIDENCE) / 2
    lower, upper = np.nanquantile(np.concatenate(found), [tail, 1 - tail])
    return estimate, float(lower), float(upper)


def _weighted(x: np.ndarray, y: np.ndarray, weights: np.ndarray, rank: bool) -> np.ndarray:
    """Correlations [b] of x, y [n] under integer weights [b, n]; NaN where one of them does not vary."""
    columns = [_ranks(values, weights) if rank else np.broadcast_to(values, weights.shape) for values in (x, y)]
    total = weights.sum(1, keepdims=True)
    first, second = (values - (weights * values).sum(1, keepdims=True) / total for values in columns)
    scale = np.sqrt((weights * first**2).sum(1) * (weights * second**2).sum(1))
    # Values that do not vary leave rounding errors of their own size squared, not zeros.
    smallest = 1e-12 * np.sqrt((weights * columns[0] ** 2).sum(1) * (weights * columns[1] ** 2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > smallest, (weights * first * second).sum(1) / scale, np.nan)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Middle ranks [b, n] of values [n], each repeated as often as its weight says."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    tied = np.add.reduceat(weights[:, order], starts, axis=1)
    return (np.cumsum(tied, axis=1) - tied / 2)[:, group]
