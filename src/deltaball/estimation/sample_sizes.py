"""How many test points a guarantee needs, by the inequality that studies use and by others: a table to choose ε by."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from deltaball.base.errors import InputError
from deltaball.base.guarantees import confidence_each, epsilon_reached, samples_needed
from deltaball.estimation import intervals

# Beyond, float64 tells neither α from 0 nor two quantiles of a Beta distribution apart well enough.
LEAST_ALPHA, MOST_SAMPLES = 1e-12, 10**12
# What N by betting is simulated with: outcomes in all, sets of them at most, and the N that would take minutes.
SIMULATED, SETS, TOO_MANY = 50_000, 200, 200_000
SHARES = (0.9, 0.99)
DEVIATIONS = (0.25, 0.1)


@dataclass(frozen=True)
class Asked:
    """An error ε at a confidence, for each estimate of outcomes in [low, high] or for those of all networks at once.

    Raises InputError, naming the option, unless 0 < ε < high - low, 0 < confidence < 1 and networks ≥ 1, and for what
    float64 cannot compute: α below 10⁻¹² or N above 10¹².
    """

    epsilon: float
    confidence: float
    networks: int = 1
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (self.low < self.high and math.isfinite(self.high - self.low)):
            raise InputError(f"--low {self.low} --high {self.high}: low must be below high, and both finite")
        if not 0 < self.epsilon < self.high - self.low:
            raise InputError(f"--epsilon {self.epsilon}: must be above 0 and below the range, {self.high - self.low}")
        if not 0 < self.confidence < 1:
            raise InputError(f"--confidence {self.confidence}: must lie strictly between 0 and 1")
        if not 1 <= self.networks <= MOST_SAMPLES:
            raise InputError(f"--networks {self.networks}: must lie between 1 and {MOST_SAMPLES:,}")
        if self.alpha < LEAST_ALPHA:
            raise InputError(
                f"--confidence {self.confidence}: too close to 1 for {self.networks} networks; "
                f"each may miss with probability {LEAST_ALPHA} at the least"
            )
        if self.share < epsilon_reached(MOST_SAMPLES, self.confidence, estimates=self.networks):
            raise InputError(f"--epsilon {self.epsilon}: needs more than {MOST_SAMPLES:,} test points")

    @property
    def share(self) -> float:
        """ε as a share of the range."""
        return self.epsilon / (self.high - self.low)

    @property
    def alpha(self) -> float:
        """The probability with which each estimate may miss (union bound)."""
        return (1 - self.confidence) / self.networks

    @property
    def each(self) -> float:
        """The confidence of each estimate (union bound)."""
        return confidence_each(self.confidence, self.networks)


def hoeffding(asked: Asked) -> int:
    """N of Equations 4 and 5 of paper 004: what a study draws.

    The Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant (1990) bounds the error of the shares of outcomes
    above *every* γ at once by the same 2 exp(-2ε²N), hence with the same N.
    """
    return samples_needed(asked.share, asked.confidence, estimates=asked.networks)


def chebyshev(asked: Asked) -> int:
    """N = ⌈(B - A)² / (4 ε² α)⌉: uses that no variance exceeds (B - A)²/4, and nothing else."""
    return math.ceil(1 / (4 * asked.share**2 * asked.alpha))


def normal(asked: Asked) -> int:
    """N = ⌈(z σ / ε)²⌉ with the largest σ, (B - A)/2: true in the limit, guaranteed for no N."""
    return math.ceil((NormalDist().inv_cdf(1 - asked.alpha / 2) / (2 * asked.share)) ** 2)


def clopper_pearson(asked: Asked, share: float) -> int:
    """The least N whose Clopper-Pearson interval has half-width ≤ ε if this share of the N outcomes is 1.

    The share need not make a whole number; Beta's quantiles need none. At 1/2 the interval is widest, so that its N
    holds whatever the outcomes.
    """

    def narrow(samples: int) -> bool:
        lower, upper = intervals.clopper_pearson(share * samples, samples, asked.each)
        return upper - lower <= 2 * asked.share

    return _least(narrow)


def betting(asked: Asked, deviation: float) -> int | None:
    """About the least N at which half the betting intervals have half-width ≤ ε, to two digits.

    Simulated on outcomes of a symmetric Beta distribution with this standard deviation, a share of the range in
    (0, 1/2), and rounded up; None where that would take minutes.
    """
    if 2 * math.log(2 / asked.alpha) * (deviation / asked.share) ** 2 > TOO_MANY:  # the formula for small ε
        return None
    shape = (1 / (2 * deviation) ** 2 - 1) / 2

    def narrow(samples: int) -> bool:
        sets = min(SETS, math.ceil(SIMULATED / samples))
        lower, upper = intervals.betting(np.random.default_rng(0).beta(shape, shape, (sets, samples)), asked.each)
        return bool(np.median(upper - lower) <= 2 * asked.share)

    found = _least(narrow)
    unit = 10 ** max(0, len(str(found)) - 2)
    return math.ceil(found / unit) * unit


def lines(epsilon: float, confidence: float, networks: int = 1, low: float = 0.0, high: float = 1.0) -> Iterator[str]:
    """The table: what each inequality needs, for each estimate alone and for those of several networks at once.

    Raises InputError for a guarantee that cannot be had, naming the option.
    """
    columns = [Asked(epsilon, confidence, 1, low, high)]
    if networks != 1:
        columns.append(Asked(epsilon, confidence, networks, low, high))
    rows = [("", "each estimate", f"all {networks:,} at once")[: len(columns) + 1]]
    for label, needed in _inequalities(high - low, of_shares=(low, high) == (0, 1)):
        counts = [needed(asked) for asked in columns] if needed else []
        rows.append((label, *("too large" if count is None else f"{count:,}" for count in counts)))
    widths = [max(len(row[at]) for row in rows if at < len(row)) for at in range(len(columns) + 1)]
    yield f"test points for an error of ±{epsilon:g} at confidence {confidence:g}, outcomes in [{low:g}, {high:g}]"
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=False))]
        yield "  ".join(cells).rstrip()


def _inequalities(width: float, of_shares: bool) -> Iterator[tuple[str, Callable[[Asked], int | None] | None]]:
    # Clopper-Pearson is for outcomes 0 and 1 alone.
    yield "fixed beforehand, whatever the outcomes:", None
    yield "  Hoeffding, Chernoff: what a study draws", hoeffding
    yield "  Dvoretzky-Kiefer-Wolfowitz: for every γ at once", hoeffding
    yield "  Chebyshev", chebyshev
    if of_shares:
        yield "  Clopper-Pearson, R alone", lambda asked: clopper_pearson(asked, 0.5)
    yield "half-width of the interval, if the outcomes turn out so:", None
    for share in SHARES if of_shares else ():
        yield f"  Clopper-Pearson, R = {share:g}", lambda asked, share=share: clopper_pearson(asked, share)
    for deviation in DEVIATIONS:
        label = f"  betting, standard deviation {deviation * width:g} (simulated)"
        yield label, lambda asked, deviation=deviation: betting(asked, deviation)
    yield "no guarantee:", None
    yield f"  normal approximation, standard deviation {width / 2:g}", normal


def _least(enough: Callable[[int], bool]) -> int:
    """The least N ≥ 1 with `enough`, which holds from there on."""
    most = 1
    while not enough(most):
        most *= 2
    too_few = most // 2
    while most - too_few > 1:
        middle = (too_few + most) // 2
        too_few, most = (too_few, middle) if enough(middle) else (middle, most)
    return most
