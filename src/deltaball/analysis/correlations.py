"""How accuracy and robustness go together: Pearson and Spearman, with intervals that respect trajectories."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from deltaball.analysis.groups import NAMES, groups
from deltaball.study.notions import NOTIONS

CONFIDENCE = 0.95
RESAMPLES = 1000
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
    return "rises" if (lower > 0) == (not NOTIONS[row["notion"]].violations_raise) else "falls"


def correlation(
    x: np.ndarray, y: np.ndarray, clusters: np.ndarray, rank: bool, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Pearson's (or with `rank` Spearman's) correlation of x, y [n] and its cluster-bootstrap interval at 95 %.

    `clusters` [n] are integers from 0. Ranks are taken anew in every resample, ties at their middle rank.
    """
    count = int(clusters.max()) + 1 if len(clusters) else 0
    weighted = weighted_spearman if rank else weighted_pearson
    estimate = float(weighted(x, y, clusters, np.ones((1, count)))[0]) if len(x) > 1 else np.nan
    if count < FEWEST_TRAJECTORIES or np.isnan(estimate):
        return estimate, np.nan, np.nan
    generator = np.random.default_rng(seed)
    found = []
    for start in range(0, resamples, _AT_ONCE):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=min(_AT_ONCE, resamples - start))
        found.append(weighted(x, y, clusters, drawn.astype(float)))
    tail = (1 - CONFIDENCE) / 2
    lower, upper = np.nanquantile(np.concatenate(found), [tail, 1 - tail])
    return estimate, float(lower), float(upper)


def weighted_pearson(x: np.ndarray, y: np.ndarray, clusters: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Correlations [b] of x, y [n] where each cluster counts `drawn` [b, clusters] times; NaN where one is constant."""
    x, y = x - x.mean(), y - y.mean()
    products = (np.ones_like(x), x, y, x * x, y * y, x * y)
    sums = np.column_stack([np.bincount(clusters, one, drawn.shape[1]) for one in products])
    total, of_x, of_y, of_xx, of_yy, of_xy = (drawn @ sums).T
    return _ratio(
        of_xy - of_x * of_y / total, of_xx - of_x**2 / total, of_yy - of_y**2 / total, 1e-12 * of_xx, 1e-12 * of_yy
    )


def weighted_spearman(x: np.ndarray, y: np.ndarray, clusters: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """`weighted_pearson` of ranks: each row repeated as often as its cluster is drawn, ties at their middle rank."""
    weights = drawn[:, clusters]
    total = weights.sum(1)
    ranks, spread = [], []
    for values in (x, y):
        distinct, level = np.unique(values, return_inverse=True)
        members = csr_array((np.ones(len(level)), (level, clusters)), (len(distinct), drawn.shape[1]))
        tied = (members @ drawn.T).T
        middle = np.cumsum(tied, axis=1) - tied / 2 - total[:, None] / 2
        ranks.append(np.take(middle, level, axis=1))
        spread.append(np.einsum("bl,bl,bl->b", tied, middle, middle))
    return _ratio(np.einsum("bn,bn,bn->b", weights, *ranks), *spread, 1e-12, 1e-12)


def _ratio(product: np.ndarray, of_x: np.ndarray, of_y: np.ndarray, least_x: Any, least_y: Any) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        # What does not vary leaves rounding errors, not zeros.
        return np.where((of_x > least_x) & (of_y > least_y), product / np.sqrt(of_x * of_y), np.nan)
