"""A slope whose errors go together within clusters: its test and interval, for many clusters and for few.

From `MANY` clusters on, the sandwich CR1 with Student's t at clusters - 1 degrees of freedom. With fewer, that claims
effects that are not there too often, so the wild cluster bootstrap stands in (Cameron, Gelbach and Miller 2008): the
null is imposed, the weights are Webb's six points, and the interval holds every null that the test does not reject.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import stats

MANY = 30
FEWEST = 5
REPLICATES = 19_999
CONFIDENCE = 0.95
# Webb's (2014) weights; two-point weights give so few distinct samples that five clusters cannot reject at 5 %.
WEBB = np.sqrt([0.5, 1.0, 1.5, 0.5, 1.0, 1.5]) * [1, 1, 1, -1, -1, -1]
_TIE = 1e-9  # replicates that repeat the sample differ from it by rounding alone
_FARTHEST = 2.0**20  # standard errors, at which the search for an end of an interval gives up
_HALVINGS = 24
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
        return float(2 * stats.t.sf(abs(self.estimate - null) / self.error, self.freedom))

    def interval(self, confidence: float) -> tuple[float, float]:
        half = stats.t.isf((1 - confidence) / 2, self.freedom) * self.error
        return self.estimate - half, self.estimate + half


@dataclass(frozen=True)
class Wild:
    """An estimate judged by a wild cluster bootstrap, whose statistics are known for every null at once.

    Under the null b a replicate's numerator is `numerator[0]` - b `numerator[1]` and the sum of its squared scores
    `scores[0]` - 2 b `scores[1]` + b² `scores[2]`, so a test of another null costs no new bootstrap.
    """

    estimate: float
    error: float
    scale: float  # what the sum of squared scores is multiplied by to be a variance (CR1's correction)
    numerator: np.ndarray  # [2, replicates]
    scores: np.ndarray  # [3, replicates]

    def p(self, null: float) -> float:
        if self.error == 0:
            return float(self.estimate == null)
        squared = (self.estimate - null) ** 2 / self.error**2
        numerator = (self.numerator[0] - null * self.numerator[1]) ** 2
        variance = self.scale * (self.scores[0] - 2 * null * self.scores[1] + null**2 * self.scores[2])
        # A replicate without any spread is as extreme as can be.
        extreme = numerator >= squared * (1 - _TIE) * np.maximum(variance, 0)
        return float((1 + extreme.sum()) / (1 + extreme.size))

    def interval(self, confidence: float) -> tuple[float, float]:
        if self.error == 0:
            return self.estimate, self.estimate
        return tuple(self._end(side, 1 - confidence) for side in (-1, 1))

    def _end(self, side: int, alpha: float) -> float:
        inside, step = 0.0, 1.0
        while self.p(self.estimate + side * step * self.error) > alpha:
            inside, step = step, 2 * step
            if step > _FARTHEST:
                return side * np.inf
        for _ in range(_HALVINGS):
            middle = (inside + step) / 2
            if self.p(self.estimate + side * middle * self.error) > alpha:
                inside = middle
            else:
                step = middle
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

    `clusters` [n] name what is independent. With fewer than `few` of them the answer is a wild bootstrap's. None where
    they are fewer than 5 (or than the coefficients), where the rest of the design explains the term, and where the
    response does not vary.
    """
    pieces = _pieces(response, term, others, clusters)
    if pieces is None:
        return None
    if pieces.count >= few:
        return Student(pieces.estimate, pieces.error, pieces.count - 1)
    return pieces.wild(replicates, seed)


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

    `weights` w = x̃ / x̃'x̃ make the estimate w'y. Sums over the members of each cluster g: `of_response` w'ỹ,
    `of_term` w'x̃, `rest_response` Q'ỹ, `rest_term` Q'x̃, `rest_weights` Q'w.
    """

    estimate: float
    error: float
    scale: float
    count: int
    of_response: np.ndarray
    of_term: np.ndarray
    rest_response: np.ndarray
    rest_term: np.ndarray
    rest_weights: np.ndarray

    def wild(self, replicates: int, seed: int) -> Wild:
        generator = np.random.default_rng(seed)
        parts = []
        for start in range(0, replicates, _AT_ONCE):
            size = min(_AT_ONCE, replicates - start)
            parts.append(self._replicated(WEBB[generator.integers(len(WEBB), size=(size, self.count))]))
        numerator, scores = (np.concatenate(found, axis=1) for found in zip(*parts, strict=True))
        return Wild(self.estimate, self.error, self.scale, numerator, scores)

    def _replicated(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numerators [2, b] and sums of squared scores [3, b] of replicates with weights `drawn` [b, clusters]."""
        # Restricted residuals are ỹ - b x̃: of each pair below, the part without b and the part that b multiplies.
        numerator = np.stack([drawn @ self.of_response, drawn @ self.of_term])
        scores = [
            drawn * own - (drawn @ rest) @ self.rest_weights.T - np.outer(total, self.of_term)
            for own, rest, total in (
                (self.of_response, self.rest_response, numerator[0]),
                (self.of_term, self.rest_term, numerator[1]),
            )
        ]
        pairs = [(scores[0], scores[0]), (scores[0], scores[1]), (scores[1], scores[1])]
        return numerator, np.stack([np.einsum("bg,bg->b", one, other) for one, other in pairs])


def _pieces(response: np.ndarray, term: np.ndarray, others: np.ndarray | None, clusters: np.ndarray) -> _Pieces | None:
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
    of_response, of_term, of_residuals = (
        np.bincount(codes, weights * values, count) for values in (plain, kept, residuals)
    )
    summed = (
        np.column_stack([np.bincount(codes, column * values, count) for column in rest.T])
        for values in (plain, kept, weights)
    )
    scale = count / (count - 1) * (rows - 1) / (rows - rest.shape[1] - 1)
    # A perfect fit leaves rounding errors, not zeros.
    exact = residuals @ residuals <= 1e-20 * max(plain @ plain, 1e-300)
    error = 0.0 if exact else float(np.sqrt(scale * (of_residuals @ of_residuals)))
    return _Pieces(estimate, error, scale, count, of_response, of_term, *summed)


def _basis(design: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the columns' span."""
    left, sizes, _ = np.linalg.svd(design, full_matrices=False)
    return left[:, sizes > sizes[0] * 1e-10]
