"""What a study makes of ρ_Q, the share of a point's random images that agree: robustness scores (papers 000, 003).

A score is E_x[H(ρ_Q(x))] for a monotone H (paper 003, Definition 3, G the distribution of the test points). Of a point
M draws are seen, so ρ_Q itself is not: k of M that agree are one outcome, and every interval counts N points, never
N · M images. The mean needs no more than that (H the identity). For the others an interval allows for what M draws
hide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
from scipy import stats

from deltaball.estimation.intervals import betting, clopper_pearson
from deltaball.estimation.statistics import Ends, Mean
from deltaball.plan.measures import Measure

# With what probability M draws may take a point on the edge for one beyond it, in the tight interval of `AtLeast`.
SLIP = 0.05


class Statistic(Protocol):
    """A number of the input distribution that outcomes [N] estimate."""

    @property
    def inequality(self) -> str:
        """By which `interval` holds."""

    @property
    def tight_inequality(self) -> str:
        """By which `tight_interval` holds."""

    def estimate(self, values: np.ndarray) -> float:
        """Of outcomes [N]."""

    def interval(self, values: np.ndarray, epsilon: float) -> tuple[float, float]:
        """Of outcomes [N], at the ε that fixed N; each end misses with probability at most α/2."""

    def tight_interval(self, values: np.ndarray, confidence: float) -> Ends:
        """Both ends [rows] of intervals that outcomes [rows, N] make themselves, each end at α/2."""


@dataclass(frozen=True)
class AtLeast:
    """P(ρ_Q ≥ 1 - τ): the share of points whose images almost all agree (probabilistic robustness, Robey et al. 2022).

    A point counts in the estimate if at least a share 1 - τ of its draws agree, which may be wrong either way.

    With ρ_Q < 1 - τ, c or more of M draws agree with probability at most β = P(Bin(M, 1 - τ) ≥ c); with ρ_Q ≥ 1 - τ,
    with probability at least β. So if they do for a share q of all points, (q - β) / (1 - β) ≤ P(ρ_Q ≥ 1 - τ) ≤ q / β.
    `interval` takes the best c for either end, because the inequality of Dvoretzky, Kiefer & Wolfowitz (with Massart's
    constant) bounds q for all c at once, by Hoeffding's ε. `tight_interval` bounds it by Clopper & Pearson for two c
    that are fixed beforehand. Draws may be of several corruptions in turn, each with a probability of its own: k
    scatters less then (Hoeffding 1956), and what is said of β holds for c ≥ M(1 - τ) + 1 or c = M below, and for
    c ≤ M(1 - τ) above, so that no other c is taken.
    """

    draws: int
    tau: float

    inequality: ClassVar[str] = "dkw"
    tight_inequality: ClassVar[str] = "clopper_pearson"

    def estimate(self, values: np.ndarray) -> float:
        return float((self._agreeing(values) >= np.ceil((1 - self.tau) * self.draws - 1e-9)).mean())

    def interval(self, values: np.ndarray, epsilon: float) -> tuple[float, float]:
        shares = self._shares(values[None])[0]
        lower = self._bounded_below(shares[self._high] - epsilon, self._high)
        upper = self._bounded_above(shares[self._low] + epsilon, self._low)
        return float(lower.max()), float(upper.min())

    def tight_interval(self, values: np.ndarray, confidence: float) -> Ends:
        agreeing, samples = self._agreeing(values), values.shape[-1]
        low = next((c for c in self._high if self._beyond[c] <= SLIP), self.draws)
        high = max(c for c in self._low if self._beyond[c] >= 1 - SLIP)
        lower, _ = clopper_pearson((agreeing >= low).sum(-1), samples, confidence)
        _, upper = clopper_pearson((agreeing >= high).sum(-1), samples, confidence)
        return self._bounded_below(lower, low), self._bounded_above(upper, high)

    @cached_property
    def _beyond(self) -> np.ndarray:
        """[M + 1]: P(Bin(M, 1 - τ) ≥ c) for c = 0, …, M."""
        return stats.binom.sf(np.arange(-1, self.draws), self.draws, 1 - self.tau)

    @cached_property
    def _high(self) -> list[int]:
        """The c's of lower ends, rising."""
        edge = self.draws * (1 - self.tau)
        return [c for c in range(1, self.draws + 1) if c >= edge + 1 or c == self.draws]

    @cached_property
    def _low(self) -> list[int]:
        """Those of upper ends."""
        return [c for c in range(self.draws + 1) if c <= self.draws * (1 - self.tau)]

    def _agreeing(self, values: np.ndarray) -> np.ndarray:
        return np.rint(values.astype(np.float64) * self.draws).astype(int)

    def _shares(self, values: np.ndarray) -> np.ndarray:
        """[rows, M + 1]: of outcomes [rows, N] the share of points of which c or more draws agree."""
        agreeing = self._agreeing(values)
        counts = np.stack([np.bincount(row, minlength=self.draws + 1) for row in agreeing])
        return counts[:, ::-1].cumsum(1)[:, ::-1] / values.shape[1]

    def _bounded_below(self, shares: np.ndarray, counts: Sequence[int] | int) -> np.ndarray:
        """What is at least the share of points with ρ_Q ≥ 1 - τ, if of so many `counts` or more draws agree."""
        beta = self._beyond[counts]
        return np.clip((shares - beta) / (1 - beta), 0, 1)

    def _bounded_above(self, shares: np.ndarray, counts: Sequence[int] | int) -> np.ndarray:
        return np.clip(shares / self._beyond[counts], 0, 1)


@dataclass(frozen=True)
class WorstMean:
    """E[max(0, 1 - (1 - ρ_Q) / τ)]: the mean outcome of each point's worst share τ of images (CVaR; Robey et al. 2022).

    This H is convex, so that H of a share of M draws overstates it, and most where ρ_Q = 1 - τ and H = 0: by the mean
    of H(k / M), k ~ Bin(M, 1 - τ). The lower ends of the intervals are that much lower.
    """

    draws: int
    tau: float

    inequality: ClassVar[str] = "hoeffding"
    tight_inequality: ClassVar[str] = "betting"

    def estimate(self, values: np.ndarray) -> float:
        return Mean().estimate(self._worst(values))

    def interval(self, values: np.ndarray, epsilon: float) -> tuple[float, float]:
        lower, upper = Mean().interval(self._worst(values), epsilon)
        return max(lower - self.overstated, 0.0), upper

    def tight_interval(self, values: np.ndarray, confidence: float) -> Ends:
        lower, upper = betting(self._worst(values), confidence)
        return np.maximum(lower - self.overstated, 0), upper

    @cached_property
    def overstated(self) -> float:
        """By how much the mean of H over M draws may exceed the truth."""
        counts = np.arange(self.draws + 1)
        return float(self._worst(counts / self.draws) @ stats.binom.pmf(counts, self.draws, 1 - self.tau))

    def _worst(self, values: np.ndarray) -> np.ndarray:
        return np.clip(1 - (1 - values.astype(np.float64)) / self.tau, 0, 1)


@dataclass(frozen=True)
class Unanimous:
    """The share of points of which all M draws agree: no less than that of points with ρ_Q = 1, up to its interval.

    P(ρ_Q = 1) ≤ E[all agree] ≤ P(ρ_Q ≥ 1 - τ) + (1 - τ)^M for any τ: random images bound the worst case from one side,
    and only attacks and certificates know it.
    """

    inequality: ClassVar[str] = "hoeffding"
    tight_inequality: ClassVar[str] = "clopper_pearson"

    def estimate(self, values: np.ndarray) -> float:
        return Mean(is_share=True).estimate(values == 1)

    def interval(self, values: np.ndarray, epsilon: float) -> tuple[float, float]:
        return Mean(is_share=True).interval(values == 1, epsilon)

    def tight_interval(self, values: np.ndarray, confidence: float) -> Ends:
        return Mean(is_share=True).tight_interval(values == 1, confidence)


def statistic(measure: Measure) -> Statistic:
    """What a measure asks of its outcomes."""
    settings = dict(measure.settings)
    match measure.judge:
        case "share":
            return AtLeast(settings["draws"], settings["tau"])
        case "cvar":
            return WorstMean(settings["draws"], settings["tau"])
        case "unanimous":
            return Unanimous()
    return Mean.of(measure)
