"""What is estimated from outcomes at test points, and its intervals for the whole input distribution."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from deltaball.base.guarantees import epsilon_reached
from deltaball.estimation.intervals import betting, clopper_pearson, hoeffding
from deltaball.plan.measures import Measure

Ends = tuple[np.ndarray, np.ndarray]

# A distance is kept in float32: what its rounding may hide.
ROUNDING = 1e-6


def reached(distances: np.ndarray, within: float) -> np.ndarray:
    """Which distances are surely no larger than `within`; what is NaN (undecided) is not."""
    return distances.astype(np.float64) * (1 + ROUNDING) <= within


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
        violated, robust = (np.where(np.isnan(values), filler, values) for filler in (0.0, self.highest))
        if not self.is_share:
            lower, upper = betting(violated, confidence, 0.0, self.highest)
            return lower, betting(robust, confidence, 0.0, self.highest)[1] if np.isnan(values).any() else upper
        lower, _ = clopper_pearson(violated.sum(1).astype(int), values.shape[1], confidence)
        _, upper = clopper_pearson(robust.sum(1).astype(int), values.shape[1], confidence)
        return lower, upper


@dataclass(frozen=True)
class Frequency:
    """Adversarial frequency φ(ε): the share of points whose distance is at most ε (paper 002, Section 2).

    ε is `within` here, since ε is a guarantee's. An attack's distances are no smaller than the true ones, and so its φ
    is no larger than the truth. Where nothing was found a distance is that at which the search was cut, or ∞: such a
    point counts in N, and is no hit.
    """

    within: float

    inequality: ClassVar[str] = "hoeffding"
    tight_inequality: ClassVar[str] = "clopper_pearson"

    def estimate(self, distances: np.ndarray) -> float:
        """Of distances [N]."""
        return float(reached(distances, self.within).mean())

    def interval(self, distances: np.ndarray, epsilon: float) -> tuple[float, float]:
        """Hoeffding's interval of distances [N], at the ε, as a share, that fixed N."""
        return hoeffding(self.estimate(distances), epsilon)

    def tight_interval(self, distances: np.ndarray, confidence: float) -> Ends:
        """Both ends [rows] of Clopper's and Pearson's intervals of distances [rows, N], each end at α/2."""
        return clopper_pearson(reached(distances, self.within).sum(-1), distances.shape[-1], confidence)


@dataclass(frozen=True)
class Severity:
    """Adversarial severity μ(ε): the mean of the distances that are at most ε (paper 002, Section 2).

    Of distances that are too large μ may be too large or too small, since some that count would not, and the reverse:
    an attack bounds it from no side.
    """

    within: float

    tight_inequality: ClassVar[str] = "betting"

    def estimate(self, distances: np.ndarray) -> float:
        """Of distances [N]; NaN where none counts."""
        hits = distances[reached(distances, self.within)]
        return float(hits.mean(dtype=np.float64)) if len(hits) else np.nan

    def error(self, distances: np.ndarray) -> float:
        """The standard error of distances [N], given how many count; NaN where fewer than two do."""
        hits = distances[reached(distances, self.within)].astype(np.float64)
        return float(hits.std(ddof=1) / np.sqrt(len(hits))) if len(hits) > 1 else np.nan

    def tight_interval(self, distances: np.ndarray, confidence: float) -> tuple[float, float]:
        """A betting interval of distances [N], each end at α/2, given how many count; NaN where none does.

        Given their number, those that count are independent draws of what μ is the mean of.
        """
        hits = distances[reached(distances, self.within)].astype(np.float64)
        if not len(hits):
            return np.nan, np.nan
        lower, upper = betting(hits, confidence, 0.0, self.within)
        return float(lower), float(upper)


@dataclass(frozen=True)
class Cumulative:
    """The whole curve φ(ε) over ε, with a band that holds all of it at once."""

    at: tuple[float, ...]  # the ε's, rising

    def estimate(self, distances: np.ndarray) -> np.ndarray:
        """[len(at)] of distances [N]."""
        return np.array([Frequency(within).estimate(distances) for within in self.at])

    def band(self, distances: np.ndarray, confidence: float) -> Ends:
        """Both ends [len(at)] of the band ± √(ln(2/α) / 2N), cut to [0, 1].

        The true curve leaves it anywhere at all with probability at most α, and on one side with at most α/2
        (Dvoretzky, Kiefer & Wolfowitz 1956; Massart 1990). That is Hoeffding's ε of the same N, for every ε at once.
        """
        middle, half = self.estimate(distances), epsilon_reached(len(distances), confidence)
        return np.maximum(middle - half, 0), np.minimum(middle + half, 1)
