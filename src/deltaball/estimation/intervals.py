"""Intervals around an estimate. Each of their ends misses the truth with probability at most α/2 = (1 - confidence)/2.

Hoeffding's inequality fixes N beforehand, for any outcomes. From the outcomes themselves `clopper_pearson` makes
narrower intervals where each is 0 or 1 (R), and `betting` where they lie anywhere in [A, B] (D). The notion decides
which of the two, never the values: D outcomes that all happen to be 0 or 1 are still D outcomes. Empirical Bernstein
intervals are wider than those of `betting`, and so are not here.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

End = TypeVar("End", float, np.ndarray)

# No bet risks more than this share of the capital: c of Waudby-Smith & Ramdas, who name 1/2 and 3/4. Of 738 outcomes
# that are all 1, 3/4 makes an interval a third narrower than 1/2 does, and none on which we tried it 1 % wider.
MOST_RISKED = 0.75
# Halvings of the range: ends are right to 2⁻²⁴ = 6e-8 of it, and err outwards.
HALVINGS = 24
# Rows of outcomes at once: what a core's cache holds at N = 738.
ROWS_AT_ONCE = 64


def hoeffding(estimate: float, epsilon: float, low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """[estimate - ε, estimate + ε] within the range: holds with the confidence that fixed N (Theorems 1 and 2).

    ε is in the outcomes' unit: where N was fixed for [0, 1] (Equation 4) it is (high - low) times as large.
    """
    return max(low, estimate - epsilon), min(high, estimate + epsilon)


def clopper_pearson(successes: ArrayLike, samples: ArrayLike, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """The exact interval of a share, from `successes` [...] of `samples` independent 0/1 outcomes.

    The ends are the shares that would give so many successes, or more (fewer), with probability α/2: quantiles of
    Beta(k, N - k + 1) and Beta(k + 1, N - k) (Clopper & Pearson 1934). 0 successes have the lower end 0, N the upper 1.

    Raises ValueError unless 0 ≤ successes ≤ samples, samples ≥ 1 and 0 < confidence < 1.
    """
    successes, samples = np.broadcast_arrays(successes, samples)
    if not ((successes >= 0) & (successes <= samples) & (samples >= 1)).all():
        raise ValueError("Clopper-Pearson needs 0 ≤ successes ≤ samples and samples ≥ 1")
    tail, failures = _tail(confidence), samples - successes
    # Beta(0, ·) and Beta(·, 0) do not exist: where they would be asked for, 1 stands in and is not used.
    lower = special.betaincinv(np.where(successes > 0, successes, 1), failures + 1, tail)
    upper = special.betainccinv(successes + 1, np.where(failures > 0, failures, 1), tail)
    return np.where(successes > 0, lower, 0.0)[()], np.where(failures > 0, upper, 1.0)[()]


def betting(values: ArrayLike, confidence: float, low: float = 0.0, high: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The interval of each mean of independent `values` [..., N] in [low, high]; its ends are [...].

    The hedged capital interval of Waudby-Smith & Ramdas (2024), "Estimating means of bounded random variables by
    betting" (Theorem 3, θ = 1/2): if the mean is m, one who bets that it is larger owns 2/α times his capital *at any
    time* with probability at most α/2 (Ville's inequality). The lower end is the largest m against which he did; the
    upper end is due to one who bets that the mean is smaller. Bets depend on earlier values alone, so the order of the
    values counts, and must not have been chosen by looking at them. Values that drift can refute every m: the interval
    is widened to hold their mean, which makes it no less sure.

    Raises ValueError unless there are values, all in [low, high], low < high and 0 < confidence < 1.
    """
    values, tail = np.asarray(values, np.float64), _tail(confidence)
    if not low < high:
        raise ValueError(f"the range [{low}, {high}] is empty")
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError("betting needs at least one value")
    if not ((low <= values) & (values <= high)).all():
        raise ValueError(f"values must lie in [{low}, {high}]")
    shares = ((values - low) / (high - low)).reshape(-1, values.shape[-1])
    lower, upper = np.empty(len(shares)), np.empty(len(shares))
    for start in range(0, len(shares), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        lower[rows], upper[rows] = _refuted(shares[rows], tail), 1 - _refuted(1 - shares[rows], tail)
    mean = values.mean(-1)
    lower = np.minimum(low + (high - low) * lower.reshape(mean.shape), mean)
    upper = np.maximum(low + (high - low) * upper.reshape(mean.shape), mean)
    return np.maximum(lower, low)[()], np.minimum(upper, high)[()]


def sandwich(below: tuple[End, End], above: tuple[End, End]) -> tuple[End, End]:
    """The interval of a truth whose outcomes are known only to lie, point by point, between two others.

    `below` and `above` are intervals, of one confidence, around the means of outcomes that are nowhere above and
    nowhere below the true ones. For R: points certified robust, and points that survived the attack; for D the
    attack's variation is below, the certified bound above. The lower end of the one misses with probability α/2, and
    so does the upper end of the other, so [lower, upper] has their confidence; nothing is to be split again.
    """
    return below[0], above[1]


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence} must lie strictly between 0 and 1")
    return (1 - confidence) / 2


def _refuted(values: np.ndarray, tail: float) -> np.ndarray:
    """The largest m [rows] against which bets on `values` [rows, N] in [0, 1] multiplied the capital by 1/tail, or 0.

    Each factor 1 + min(λ, c/m) (x - m) falls as m grows, and so does the capital: halving finds m.
    """
    bets = _bets(values, tail)
    refuted, standing = np.zeros(len(values)), np.ones(len(values))
    for _ in range(HALVINGS):
        mean = (refuted + standing)[:, None] / 2
        factors = 1 + np.minimum(bets, MOST_RISKED / mean) * (values - mean)
        # A capital that overflows has long been enough; one that underflows is lost, which errs outwards.
        with np.errstate(over="ignore", under="ignore"):
            rich = np.multiply.accumulate(factors, 1).max(1) >= 1 / tail
        refuted, standing = np.where(rich, mean[:, 0], refuted), np.where(rich, standing, mean[:, 0])
    return refuted


def _bets(values: np.ndarray, tail: float) -> np.ndarray:
    """λ before its cap c/m, for a fixed N: √(2 ln(1/tail) / (N σ²)), σ² the variance of the values before."""
    samples = values.shape[1]
    counts = np.arange(2, samples + 2)
    means = (0.5 + values.cumsum(1)) / counts
    variances = (0.25 + ((values - means) ** 2).cumsum(1)) / counts
    before = np.concatenate([np.full((len(values), 1), 0.25), variances[:, :-1]], 1)
    return np.sqrt(2 * np.log(1 / tail) / (samples * before))
