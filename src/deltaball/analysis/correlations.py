"""How accuracy and robustness go together: Pearson and Spearman, with intervals that respect trajectories."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from deltaball.analysis.clustered import CONFIDENCE, FEWEST
from deltaball.analysis.designs import ACCURACY
from deltaball.analysis.groups import NAMES, Groups
from deltaball.analysis.slopes import Slopes
from deltaball.study.notions import NOTIONS

RESAMPLES = 1000
COLUMNS = [
    *NAMES,
    *(f"{kind}{end}" for kind in ("pearson", "spearman") for end in ("", "_lower", "_upper")),
    "confidence",
    "trend",
]
_AT_ONCE = 100


def correlations(groups: Groups) -> pd.DataFrame:
    """Correlation of test accuracy with each measure, per group.

    Networks of one trajectory are not independent. Pearson's interval is that of the slope, in units of the standard
    deviations (as in the other tables); Spearman's are percentiles of a bootstrap over trajectories, with a fixed seed.
    Null where accuracy or the measure does not vary, or trajectories are fewer than 5. `trend` says in a word what
    robustness does as accuracy rises.
    """
    rows = []
    for names, members in groups:
        row = dict(names)
        for name, found in (("pearson", pearson(members, groups.slopes)), ("spearman", spearman(members))):
            row[name], row[f"{name}_lower"], row[f"{name}_upper"] = found
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


def pearson(members: pd.DataFrame, slopes: Slopes) -> tuple[float, float, float]:
    """Pearson's correlation of accuracy and estimate, and the ends of its interval."""
    accuracy, estimate = members[ACCURACY].to_numpy(), members["estimate"].to_numpy()
    if len(members) < 2 or np.ptp(accuracy) == 0 or np.ptp(estimate) == 0:
        return np.nan, np.nan, np.nan
    found = slopes.on_accuracy(members)
    if found is None:
        return float(np.corrcoef(accuracy, estimate)[0, 1]), np.nan, np.nan
    return found.correlation(estimate, accuracy)


def spearman(members: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float, float]:
    """Spearman's correlation of accuracy and estimate, and its interval from a bootstrap over clusters.

    Ranks are taken anew in every resample, ties at their middle rank.
    """
    x, y = members[ACCURACY].to_numpy(), members["estimate"].to_numpy()
    names, clusters = np.unique(members["cluster"], return_inverse=True)
    count = len(names)
    estimate = float(weighted_spearman(x, y, clusters, np.ones((1, count)))[0]) if len(x) > 1 else np.nan
    if count < FEWEST or np.isnan(estimate):
        return estimate, np.nan, np.nan
    generator = np.random.default_rng(seed)
    found = []
    for start in range(0, resamples, _AT_ONCE):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=min(_AT_ONCE, resamples - start))
        found.append(weighted_spearman(x, y, clusters, drawn.astype(float)))
    tail = (1 - CONFIDENCE) / 2
    lower, upper = np.nanquantile(np.concatenate(found), [tail, 1 - tail])
    return estimate, float(lower), float(upper)


def weighted_spearman(x: np.ndarray, y: np.ndarray, clusters: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Correlations [b] of the ranks of x, y [n] where each cluster counts `drawn` [b, clusters] times.

    `clusters` [n] are integers from 0. Each row is repeated as often as its cluster is drawn, and ties have their
    middle rank. NaN where one of both is constant.
    """
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
    product = np.einsum("bn,bn,bn->b", weights, *ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        # What does not vary leaves rounding errors, not zeros.
        return np.where((spread[0] > 1e-12) & (spread[1] > 1e-12), product / np.sqrt(spread[0] * spread[1]), np.nan)
