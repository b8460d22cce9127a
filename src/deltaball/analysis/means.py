"""Means over independent trainings and sums of them, with an error of two sources: the trainings and the test points.

The error of the trainings is Student's t over trajectories. The N test points are shared by all networks. Of a mean
alone that is a share, their variance is p (1 - p) / N with p the hypothesis (Wilson). Of a sum whose terms are known
point by point, it is that of the sum's value at each point: outcomes of different networks go together, so that a
difference is known better than each of its sides. Two more points are added, so that no error is zero (Agresti and Min
2005): one at which both sides are equal, and one that counts half as the largest difference, half as the smallest. Of
other sums the points of each term count as drawn anew, with two more successes and failures (Agresti and Caffo 2000),
which overstates the error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from deltaball.analysis.clustered import Student

FEWEST = 2  # trainings
AGREED = 1e-9  # rounding, of an estimate that is the hypothesis
ADDED = 2  # successes, and as many failures
AS_MANY = 1e6  # degrees of freedom of an error that has none to estimate
ROUNDED = 1e-3  # by which the mean of what is kept of points may miss the estimate that was made before rounding

AT_POINTS = "at_points"  # the column with what a row's estimate is the mean of, [N], or None


@dataclass(frozen=True)
class Mean:
    """A mean over independent trainings: its value, both variances, and the degrees of freedom of the first.

    `at_points` [N] are its values at the test points, where they are known, which lie between 0 and `highest`.
    """

    value: float
    of_trainings: float
    of_points: float
    freedom: int
    samples: float = np.inf
    at_points: np.ndarray | None = None
    highest: float = 1.0


def with_points(measured: pd.DataFrame, outcomes: pd.DataFrame | None) -> pd.DataFrame:
    """Rows of estimates with what each is the mean of: their outcomes in outcomes.parquet, None where there is none."""
    known = {}
    if outcomes is not None:
        keys = zip(outcomes["network_id"], outcomes["measure"], strict=True)
        known = dict(zip(keys, outcomes["values"], strict=True))
    found = [_outcomes(known, row) for row in measured[["network_id", "measure", "samples"]].itertuples(index=False)]
    return measured.assign(**{AT_POINTS: pd.Series(found, measured.index, object)})


def _outcomes(known: Mapping[tuple[str, str], Any], row: Any) -> np.ndarray | None:
    values = known.get((row.network_id, row.measure))
    return None if values is None else np.nan_to_num(np.asarray(values, np.float32)[: int(row.samples)])


def joined_points(rows: pd.DataFrame, measured: pd.DataFrame, measure: str = "measure") -> pd.Series:
    """Of rows that name a network and a measure, what `with_points` says of these."""
    known = dict(zip(zip(measured["network_id"], measured["measure"], strict=True), measured[AT_POINTS], strict=True))
    pairs = zip(rows["network_id"], rows[measure], strict=True)
    return pd.Series([known.get(pair) for pair in pairs], rows.index, object)


@dataclass(frozen=True)
class Level:
    """A mean that is tested alone, with the variance that the points would have if the hypothesis were true."""

    estimate: float
    of_trainings: float
    samples: float
    freedom: float

    def p(self, null: float) -> float:
        error = np.sqrt(self.of_trainings + max(null * (1 - null), 0) / self.samples)
        distance = abs(self.estimate - null)
        if distance < AGREED or error == 0:
            return float(distance < AGREED)
        return float(2 * special.stdtr(self.freedom, -distance / error))

    def interval(self, confidence: float) -> tuple[float, float]:
        """The two solutions x of (estimate - x)² = t² (variance of trainings + x (1 - x) / N)."""
        squared = special.stdtrit(self.freedom, (1 - confidence) / 2) ** 2
        a, half = 1 + squared / self.samples, self.estimate + squared / (2 * self.samples)
        root = np.sqrt(max(half**2 - a * (self.estimate**2 - squared * self.of_trainings), 0))
        return float((half - root) / a), float((half + root) / a)


def mean(
    rows: pd.DataFrame,
    column: str,
    samples: str | None = None,
    of_points: float = 0.0,
    at: str | None = None,
    highest: float = 1.0,
) -> Mean | None:
    """The mean of a column over trajectories (`cluster`); None where fewer than two of them have one.

    A share names the column of its number of `samples`; of another number the points' variance is `of_points`. Column
    `at` has what an estimate is the mean of, [N] between 0 and `highest`.
    """
    known = rows.dropna(subset=column)
    each = known.groupby("cluster")[column].mean()
    if len(each) < FEWEST:
        return None
    value, of_trainings = float(each.mean()), float(each.var(ddof=1)) / len(each)
    pointwise = _at_points(known, column, at) if at in known else None
    if samples is None:
        return Mean(value, of_trainings, of_points, len(each) - 1, at_points=pointwise, highest=highest)
    count = float(known[samples].min())
    share = (value * count + ADDED) / (count + 2 * ADDED)
    error = share * (1 - share) / (count + 2 * ADDED)
    return Mean(value, of_trainings, error, len(each) - 1, count, pointwise, highest)


def _at_points(known: pd.DataFrame, column: str, at: str) -> np.ndarray | None:
    """The mean [N] over trajectories at each point; None where it is not known of all rows.

    What an estimate is the mean of is told by the mean: some judges make another number of what they keep of points.
    """
    if any(values is None for values in known[at]) or len({len(values) for values in known[at]}) > 1:
        return None
    values = np.stack(known[at].to_list()).astype(np.float64)
    if not np.allclose(values.mean(1), known[column].astype(float), rtol=0, atol=ROUNDED):
        return None
    of_each = pd.DataFrame(values).groupby(known["cluster"].to_numpy()).mean()
    return of_each.to_numpy().mean(0)


def level(one: Mean | None) -> Level | None:
    """A mean alone; None where it is missing."""
    whole = combined([one], [1])
    return whole and Level(one.value, one.of_trainings, one.samples, whole.freedom)


def combined(means: Sequence[Mean | None], weights: Sequence[float]) -> Student | None:
    """The weighted sum of means; degrees of freedom by Welch and Satterthwaite. None where one is missing."""
    if any(one is None for one in means):
        return None
    value = sum(weight * one.value for one, weight in zip(means, weights, strict=True))
    parts = [(weight**2 * one.of_trainings, one.freedom) for one, weight in zip(means, weights, strict=True)]
    return _summed(value, parts, _variance_of_points(means, weights))


def difference(first: Mean | None, second: Mean | None, sides: Sequence[pd.Series]) -> Student | None:
    """The first mean less the second: of trunks that both have, where these are all that there are.

    `sides` are the values of each, by trunk.
    """
    one, other = (side.dropna() for side in sides)
    if first is None or second is None or {*one.index} != {*other.index}:
        return combined([first, second], [1, -1])
    each = one - other
    parts = [(float(each.var(ddof=1)) / len(each), len(each) - 1)]
    return _summed(float(each.mean()), parts, _variance_of_points([first, second], [1, -1]))


def _summed(value: float, parts: Sequence[tuple[float, int]], of_points: float) -> Student:
    variance = of_points + sum(part for part, _ in parts)
    scatter = sum(part**2 / freedom for part, freedom in parts)
    freedom = min(variance**2 / scatter, AS_MANY) if scatter > 0 else AS_MANY
    return Student(float(value), float(np.sqrt(variance)), freedom)


def _variance_of_points(means: Sequence[Mean], weights: Sequence[float]) -> float:
    known = [one.at_points for one in means]
    if len(means) < 2 or any(values is None for values in known) or len({len(values) for values in known}) > 1:
        return sum(weight**2 * one.of_points for one, weight in zip(means, weights, strict=True))
    values = np.tensordot(np.asarray(weights, np.float64), np.stack(known), 1)
    furthest = sum(abs(weight) * one.highest for one, weight in zip(means, weights, strict=True)) / 2
    count = len(values) + 2
    return float(((values @ values + furthest**2) / count - (values.sum() / count) ** 2) / count)
