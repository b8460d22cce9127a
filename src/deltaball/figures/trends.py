"""The straight line of a measure over accuracy, with errors clustered by training, as figures draw and tell it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Trend:
    """A least-squares line over accuracies from `low` to `high`: intercept and slope, and their covariance.

    The covariance is CR1's, and its quantiles Student's at clusters - 1 degrees of freedom, as in
    ``analysis.regressions``.
    """

    low: float
    high: float
    params: np.ndarray  # [2]
    covariance: np.ndarray  # [2, 2]
    freedom: int

    def band(self, accuracy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The line at accuracies [n], and half the width of its 95 % band there."""
        rows = np.column_stack([np.ones_like(accuracy), accuracy])
        error = np.sqrt(np.einsum("ij,jk,ik->i", rows, self.covariance, rows).clip(0))
        return rows @ self.params, self._quantile() * error

    def slope(self) -> tuple[float, float]:
        """The 95 % interval of the slope, per whole unit of accuracy."""
        half = self._quantile() * float(np.sqrt(self.covariance[1, 1]))
        return float(self.params[1]) - half, float(self.params[1]) + half

    def inside(self, least: float, most: float) -> tuple[float, float] | None:
        """The accuracies between which the line lies within [least, most]; None where it never does."""
        intercept, slope = self.params
        if slope == 0:
            return (self.low, self.high) if least <= intercept <= most else None
        ends = sorted((end - intercept) / slope for end in (least, most))
        low, high = max(self.low, ends[0]), min(self.high, ends[1])
        return (low, high) if low < high else None

    def _quantile(self) -> float:
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom))


def fitted(members: pd.DataFrame) -> Trend | None:
    """The line of `estimate` over `test_accuracy`; None where too few trainings or accuracies carry one."""
    clusters, accuracy = members["cluster"].astype("category").cat.codes.to_numpy(), members["test_accuracy"]
    count = len(np.unique(clusters))
    if count <= 2 or accuracy.nunique() <= 2:
        return None
    design = sm.add_constant(accuracy.to_numpy(), has_constant="add")
    fit = sm.OLS(members["estimate"].to_numpy(), design).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    return Trend(accuracy.min(), accuracy.max(), fit.params, fit.cov_params(), count - 1)
