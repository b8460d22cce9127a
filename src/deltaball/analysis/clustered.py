"""A slope whose errors go together within clusters: its test and interval, for many clusters and for few.

From `MANY` clusters on, the sandwich CR1 with Student's t at clusters - 1 degrees of freedom. With fewer, or where few
carry the term (their effective number: Carter, Schnepel and Steigerwald 2017), that claims effects that are not there
too often. The wild cluster bootstrap then stands in (Cameron, Gelbach and Miller 2008), with the null imposed and
Webb's six-point weights. It errs in its turn where the term varies within very few clusters, and Student's t with the
jackknife's variance does not; so a null is rejected only where both reject it, and the interval holds all others.
`benchmarks/coverage.py` shows what each of them covers.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special

MANY = 30
FEWEST = 5
REPLICATES = 19_999
CONFIDENCE = 0.95
# Webb's (2014) weights; two-point weights give so few distinct samples that five clusters cannot reject at 5 %.
WEBB = np.sqrt([0.5, 1.0, 1.5, 0.5, 1.0, 1.5]) * [1, 1, 1, -1, -1, -1]
_TIE = 1e-9  # replicates that repeat the sample differ from it by rounding alone
_FARTHEST = 2.0**20  # standard errors, at which the search for an end of an interval gives up
_HALVINGS = 20
_AT_ONCE = 2000


class Estimate(Protocol):
    """A number that can be tested against any other."""

    estimate: float

    def p(self, null: float) -> float:
        """Two-sided p-value of the hypothesis that the truth is `null`."""

    def interval(self, confidence: float) -> tuple[float, float]:
        """The nulls that are not rejected at 1 - confidence."""


@dataclass(frozen=True)
class Student:
    """An estimate whose error has `freedom` degrees of freedom."""

    estimate: float
    error: float
    freedom: float

    def p(self, null: float) -> float:
        if self.error == 0:
            return float(self.estimate == null)
        return float(2 * special.stdtr(self.freedom, -abs(self.estimate - null) / self.error))

    def interval(self, confidence: float) -> tuple[float, float]:
        half = -special.stdtrit(self.freedom, (1 - confidence) / 2) * self.error
        return self.estimate - half, self.estimate + half


@dataclass(frozen=True)
class Wild:
    """An estimate judged by a wild cluster bootstrap and by the jackknife, whichever doubts it more.

    The statistics are known for every null at once. Under the null b a replicate's numerator is `numerator[0]` -
    b `numerator[1]` and the sum of its squared scores `scores[0]` - 2 b `scores[1]` + b² `scores[2]`, so a test of
    another null costs no new bootstrap.
    """

    estimate: float
    error: float
    jackknife: Student
    scale: float  # what the sum of squared scores is multiplied by to be a variance (CR1's correction)
    numerator: np.ndarray  # [2, replicates]
    scores: np.ndarray  # [3, replicates]

    def p(self, null: float) -> float:
        return max(self._share(null), self.jackknife.p(null))

    def interval(self, confidence: float) -> tuple[float, float]:
        lower, upper = self.jackknife.interval(confidence)
        return self._end(-1, lower, 1 - confidence), self._end(1, upper, 1 - confidence)

    def _share(self, null: float) -> float:
        """The bootstrap's p-value."""
        squared = (self.estimate - null) ** 2 / self.error**2
        numerator = (self.numerator[0] - null * self.numerator[1]) ** 2
        variance = self.scale * (self.scores[0] - 2 * null * self.scores[1] + null**2 * self.scores[2])
        # A replicate without any spread is as extreme as can be.
        extreme = numerator >= squared * (1 - _TIE) * np.maximum(variance, 0)
        return float((1 + extreme.sum()) / (1 + extreme.size))

    def _end(self, side: int, least: float, alpha: float) -> float:
        """The jackknife's end, `least`, or the next null beyond it that the bootstrap rejects, too."""
        if self._share(least) <= alpha:
            return least

        def is_inside(step: float) -> bool:
            # What the bootstrap rejects and the jackknife does not is no end: beyond it the bootstrap may not reject.
            null = self.estimate + side * step * self.error
            return side * (null - least) < 0 or self._share(null) > alpha

        inside, step = 0.0, 1.0
        while is_inside(step):
            inside, step = step, 2 * step
            if step > _FARTHEST:
                return side * np.inf
        for _ in range(_HALVINGS):
            middle = (inside + step) / 2
            inside, step = (middle, step) if is_inside(middle) else (inside, middle)
        return self.estimate + side * step * self.error


def slope(
    response: np.ndarray,
    term: np.ndarray,
    others: np.ndarray | None,
    clusters: np.ndarray,
    few: int = MANY,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Student | Wild | None:
    """The coefficient of `term` [n] in the least-squares fit of `response` [n] beside a constant and `others` [n, k].

    `clusters` [n] name what is independent. With fewer than `few` of them, really or effectively, the answer is a wild
    bootstrap's. None where they are fewer than 5 (or than the coefficients), where the rest of the design explains the
    term, and where the response does not vary.
    """
    rows = len(response)
    codes = np.unique(clusters, return_inverse=True)[1] if rows else np.empty(0, int)
    count = int(codes.max()) + 1 if rows else 0
    design = np.ones((rows, 1)) if others is None else np.column_stack([np.ones(rows), others])
    if count < max(FEWEST, design.shape[1] + 2):
        return None
    rest = _basis(design)
    plain, kept = (values - rest @ (rest.T @ values) for values in (response, term))
    spread = kept @ kept
    if spread <= 1e-12 * max(1.0, term @ term) or plain @ plain <= 1e-18 * max(1.0, response @ response):
        return None
    weights = kept / spread
    estimate = float(weights @ response)
    residuals = plain - estimate * kept
    scale = count / (count - 1) * (rows - 1) / (rows - rest.shape[1] - 1)
    # A perfect fit leaves rounding errors, not zeros.
    exact = residuals @ residuals <= 1e-20 * max(plain @ plain, 1e-300)
    error = 0.0 if exact else float(np.sqrt(scale * np.sum(np.bincount(codes, weights * residuals) ** 2)))
    # What each cluster adds to the variance if errors correlate by a half within it.
    parts = np.bincount(codes, weights**2) + np.bincount(codes, weights) ** 2
    if exact or min(count, count / (1 + np.var(parts) / np.mean(parts) ** 2)) >= few:
        return Student(estimate, error, count - 1)
    pieces = _pieces(plain, kept, rest, codes)
    jackknife = np.sqrt((count - 1) / count * np.sum(np.bincount(codes, pieces.heavy * residuals) ** 2))
    return Wild(
        estimate, error, Student(estimate, float(jackknife), count - 1), scale, *pieces.replicated(replicates, seed)
    )


def standardised(
    response: np.ndarray, term: np.ndarray, others: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Response and term in units of what the others (and a constant) leave of their standard deviations.

    The slope of the one on the other is then their (partial) correlation; the third value turns it into the slope in
    the units they came in. NaN where one of them does not vary.
    """
    design = np.ones((len(response), 1)) if others is None else np.column_stack([np.ones(len(response)), others])
    rest = _basis(design)
    sizes = [float(np.std(values - rest @ (rest.T @ values))) for values in (response, term)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return response / sizes[0], term / sizes[1], float(np.divide(*sizes))


@dataclass(frozen=True)
class _Pieces:
    """A fit in sums over clusters, after the rest of the design, an orthonormal `Q`, is taken out of both variables.

    Weights w = x̃ / x̃'x̃ make the estimate w'y, and residuals of the null b are ỹ - b x̃. The bootstrap draws from
    ÿ - b ẍ, which each cluster would have if the rest of the design had been fitted without it (MacKinnon, Nielsen and
    Webb 2023), because residuals of clusters that are far out are too small. Sums over each cluster's members: `drawn`
    w'ÿ and w'ẍ, `rest` Q'ÿ and Q'ẍ, `own` w'x̃, `rest_weights` Q'w. `heavy` [n] are the weights ẅ of the jackknife's
    scores, in which the whole fit is done without the cluster.
    """

    drawn: np.ndarray  # [2, clusters]
    rest: np.ndarray  # [2, clusters, k]
    own: np.ndarray  # [clusters]
    rest_weights: np.ndarray  # [clusters, k]
    heavy: np.ndarray

    def replicated(self, replicates: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        parts = []
        for start in range(0, replicates, _AT_ONCE):
            size = min(_AT_ONCE, replicates - start), len(self.own)
            parts.append(self._replicated(WEBB[generator.integers(len(WEBB), size=size)]))
        numerator, scores = (np.concatenate(found, axis=1) for found in zip(*parts, strict=True))
        return numerator, scores

    def _replicated(self, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numerators [2, b] and sums of squared scores [3, b] of replicates with weights `signs` [b, clusters]."""
        numerator = self.drawn @ signs.T
        one, other = (
            signs * drawn - (signs @ rest) @ self.rest_weights.T - np.outer(total, self.own)
            for drawn, rest, total in zip(self.drawn, self.rest, numerator, strict=True)
        )
        pairs = ((one, one), (one, other), (other, other))
        return numerator, np.stack([np.einsum("bg,bg->b", *pair) for pair in pairs])


def _pieces(plain: np.ndarray, kept: np.ndarray, rest: np.ndarray, codes: np.ndarray) -> _Pieces:
    rows, count, spread = len(plain), int(codes.max()) + 1, kept @ kept
    weights = kept / spread

    def summed(values: np.ndarray) -> np.ndarray:
        """Sums over clusters [clusters, …] of values [n, …]."""
        flat = values.reshape(rows, -1)
        return np.column_stack([np.bincount(codes, column, count) for column in flat.T]).reshape(
            count, *values.shape[1:]
        )

    def apart(values: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """(I - QQ')⁻¹ r of each cluster, whose own rows Q holds: Q (I - Q'Q)⁻¹ Q'r is added to its r."""
        inside = np.eye(basis.shape[1]) - summed(basis[:, :, None] * basis[:, None, :])
        added = np.einsum("gkl,gl->gk", np.linalg.pinv(inside, hermitian=True), summed(basis * values[:, None]))
        return values + np.einsum("nk,nk->n", basis, added[codes])

    away = [apart(values, rest) for values in (plain, kept)]
    return _Pieces(
        np.stack([summed(weights * values) for values in away]),
        np.stack([summed(rest * values[:, None]) for values in away]),
        summed(weights * kept),
        summed(rest * weights[:, None]),
        apart(weights, np.column_stack([rest, kept / np.sqrt(spread)])),
    )


def _basis(design: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the columns' span, whatever units they come in."""
    left, sizes, _ = np.linalg.svd(design / np.maximum(np.linalg.norm(design, axis=0), 1e-300), full_matrices=False)
    return left[:, sizes > sizes[0] * 1e-10]
