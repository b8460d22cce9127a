"""What is estimated from outcomes at test points, and its intervals for the whole input distribution."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from deltaball.estimation.intervals import betting, clopper_pearson, hoeffding
from deltaball.plan.measures import Measure

Ends = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Mean:
    """The mean of outcomes in [0, `highest`]: R, D or M (paper 004, Section 3.2).

    An undecided outcome (NaN) counts as 0 in the estimate and the lower ends, and as the highest in the upper ones: as
    violated, and as robust.
    """

    highest: float = 1.0
    is_share: bool = False  # whether outcomes are 0 or 1; the notion says so, never the values

    inequality: ClassVar[str] = "hoeffding"

    @classmethod
    def of(cls, measure: Measure) -> Self:
        return cls(measure.highest, measure.is_share)

    @property
    def tight_inequality(self) -> str:
        return "clopper_pearson" if self.is_share else "betting"

    def estimate(self, values: np.ndarray, undecided: float = 0.0) -> float:
        """Of float32 outcomes [N]."""
        decided = np.where(np.isnan(values), undecided, values)
        return float(np.minimum(decided.mean(dtype=np.float64), self.highest))

    def interval(self, values: np.ndarray, epsilon: float) -> tuple[float, float]:
        """Hoeffding's interval of outcomes [N] at the ε, in their unit, that fixed N."""
        lower, _ = hoeffding(self.estimate(values), epsilon, 0, self.highest)
        _, upper = hoeffding(self.estimate(values, self.highest), epsilon, 0, self.highest)
        return lower, upper

    def tight_interval(self, values: np.ndarray, confidence: float) -> Ends:
        """Both ends [rows] of the intervals that outcomes [rows, N] make themselves, each end at α/2."""
        # float32 may have rounded the largest value up.
        values = np.minimum(values.astype(np.float64), self.highest)
        if not self.is_share:
            return betting(values, confidence, 0.0, self.highest)
        violated, robust = (np.where(np.isnan(values), filler, values) for filler in (0.0, self.highest))
        lower, _ = clopper_pearson(violated.sum(1).astype(int), values.shape[1], confidence)
        _, upper = clopper_pearson(robust.sum(1).astype(int), values.shape[1], confidence)
        return lower, upper
