"""What finitely many test points do to a slope of robustness on accuracy.

Both are shares of test points. That attenuates the slope, because the accuracies scatter more than the truths do; and
it makes the errors of all networks go together, because they share their points.
"""

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

RESAMPLES = 1000
CORRECTED = ("reliability", "slope_corrected", "corrected_lower", "corrected_upper")
TWO_WAY = ("two_way_error", "two_way_lower", "two_way_upper")


def corrected(
    accuracy: np.ndarray, robust: np.ndarray, fitted: tuple[float, float, float], points: int, scale: float = 1.0
) -> dict[str, float]:
    """A slope and its interval, `fitted`, freed of attenuation by the method of moments (Fuller 1987, Section 1.2).

    `reliability` is the share of the accuracies' variance that is not binomial error of `points` test points. It is a
    lower bound: points that are hard for all networks shift all accuracies alike and attenuate nothing, so the truth
    lies between the naive and the corrected slope, but for one thing. The errors of accuracy and robustness go
    together by an amount that is not known (accuracy is kept as a mean alone); `corrected_lower` and `corrected_upper`
    are widened by the most that it can be. `scale` is the range of `robust`. Null where reliability is not positive.
    """
    variance = float(np.var(accuracy, ddof=1)) if len(accuracy) > 1 else 0.0
    reliability = 1 - float(np.mean(accuracy * (1 - accuracy))) / points / variance if variance > 0 else 0.0
    if not reliability > 0:
        return dict.fromkeys(CORRECTED, np.nan)
    share = (robust / scale).clip(0, 1)
    # Cauchy and Schwarz, of the covariance of two means over points of which one uses all.
    most = scale * float(np.mean(np.sqrt(accuracy * (1 - accuracy) * share * (1 - share)))) / points / variance
    slope, lower, upper = fitted
    ends = slope / reliability, (lower - most) / reliability, (upper + most) / reliability
    return dict(zip(CORRECTED, (reliability, *ends), strict=True))


class SharedPoints:
    """Outcomes of networks at the points that they share, resampled: points once for all, then trajectories.

    `outcomes` is outcomes.parquet. Of accuracy no outcomes are kept, so it stays as it is.
    """

    def __init__(self, outcomes: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self._rows = outcomes.groupby("measure", sort=False).indices
        self._networks, self._values = outcomes["network_id"].to_numpy(), outcomes["values"].to_numpy()
        self._resamples, self._seed = resamples, seed
        self._last: tuple[object, pd.Series, np.ndarray] | None = None

    def resampled(self, members: pd.DataFrame) -> np.ndarray | None:
        """Estimates [n, resamples] of one measure with the points drawn anew; None where outcomes are missing."""
        measure, samples = members["measure"].iloc[0], int(members["samples"].iloc[0])
        if self._last is None or self._last[0] != (measure, samples):
            # One measure at a time: those of a large study do not fit into memory together.
            rows = self._rows.get(measure, np.empty(0, int))
            rows = rows[[len(self._values[row]) >= samples for row in rows]] if len(rows) else rows
            place = pd.Series(np.arange(len(rows)), index=self._networks[rows])
            drawn = np.random.default_rng(self._seed).multinomial(
                samples, np.full(samples, 1 / samples), size=self._resamples
            )
            weights = (drawn / samples).astype(np.float32).T
            known = np.empty((len(rows), self._resamples), np.float32)
            for start in range(0, len(rows), 1024):
                chosen = rows[start : start + 1024]
                values = np.nan_to_num(np.stack([self._values[row][:samples] for row in chosen]))
                known[start : start + 1024] = values.astype(np.float32) @ weights
            self._last = (measure, samples), place, known
        _, place, known = self._last
        places = place.reindex(members["network_id"])
        return None if places.isna().any() else known[places.to_numpy(int)]

    def two_way(self, members: pd.DataFrame, fewest: int, confidence: float) -> dict[str, float]:
        """Standard error and percentile interval of the slope on accuracy, points and trajectories both drawn anew."""
        count = members["cluster"].nunique()
        estimates = self.resampled(members) if count >= fewest else None
        x = members["test_accuracy"].to_numpy()
        if estimates is None or np.ptp(x) == 0:
            return dict.fromkeys(TWO_WAY, np.nan)
        x, codes = x - x.mean(), pd.factorize(members["cluster"])[0]
        drawn = np.random.default_rng(self._seed + 1).multinomial(
            count, np.full(count, 1 / count), size=self._resamples
        )
        one = csr_array((np.ones(len(codes), np.float32), (codes, np.arange(len(codes)))), (count, len(codes)))
        total, of_x, of_xx = (drawn @ (one @ column) for column in (np.ones_like(x), x, x**2))
        of_y, of_xy = (
            np.einsum("bg,gb->b", drawn, one @ values)
            for values in (estimates, x.astype(np.float32)[:, None] * estimates)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = of_xx - of_x**2 / total
            slopes = np.where(spread > 1e-12 * of_xx, (of_xy - of_x * of_y / total) / spread, np.nan)
        tail = (1 - confidence) / 2
        found = (np.nanstd(slopes), *np.nanquantile(slopes, [tail, 1 - tail]))
        # A thousand resamples know no more digits, and float32 rounds others from run to run.
        return {name: float(f"{value:.3g}") for name, value in zip(TWO_WAY, found, strict=True)}
