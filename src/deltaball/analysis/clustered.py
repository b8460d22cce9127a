"""A slope whose errors go together within clusters: its test and interval, for many clusters and for few.

From `MANY` clusters on, the sandwich CR1 with Student's t at clusters - 1 degrees of freedom. With fewer, or where few
carry the term (their effective number: Carter, Schnepel and Steigerwald 2017), that claims effects that are not there
too often. The wild cluster bootstrap then stands in (Cameron, Gelbach and Miller 2008), with the null imposed and
Webb's six-point weights. It errs in its turn where the term varies within very few clusters, and Student's t with the
jackknife's variance does not; so a null is rejected only where both reject it, and the interval holds all others.
`benchmarks/coverage.py` shows what each of them covers.
"""

import functools
from collections.abc import Iterable, Iterator
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
_SINGULAR = 1e-10
MOST_KEPT = 4_000_000  # random weights that are kept from one test to the next


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
class Scaled:
    """An estimate in another unit: the `inner` one times a positive `factor`."""

    inner: Estimate
    factor: float

    @property
    def estimate(self) -> float:
        return self.factor * self.inner.estimate

    def p(self, null: float) -> float:
        return self.inner.p(null / self.factor)

    def interval(self, confidence: float) -> tuple[float, float]:
        lower, upper = self.inner.interval(confidence)
        return self.factor * lower, self.factor * upper


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
        distance = (null - self.estimate) / self.error
        beyond = distance ** np.arange(5) @ self._excess
        return float((1 + np.count_nonzero(beyond >= 0)) / (1 + beyond.size))

    @functools.cached_property
    def _excess(self) -> np.ndarray:
        """By how much a replicate's squared t exceeds the sample's, times its variance: of each a polynomial [5].

        The argument is the null's distance from the estimate, in standard errors. A replicate without any spread is as
        extreme as can be.
        """
        constant, linear = self.numerator[0] - self.estimate * self.numerator[1], self.error * self.numerator[1]
        scores, tied = self.scores, (1 - _TIE) * self.scale
        spread = tied * (scores[0] - 2 * self.estimate * scores[1] + self.estimate**2 * scores[2])
        tilt = tied * self.error * (scores[1] - self.estimate * scores[2])
        curve = tied * self.error**2 * scores[2]
        return np.stack([constant**2, -2 * constant * linear, linear**2 - spread, 2 * tilt, -curve])

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
    design = _with_constant(rows, others)
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
    if exact or effective_clusters(weights, codes) >= few:
        return Student(estimate, error, count - 1)
    pieces = _pieces(plain, kept, residuals, rest, codes)
    jackknife = Student(estimate, pieces.jackknife, count - 1)
    return Wild(estimate, error, jackknife, scale, *pieces.replicated(replicates, seed))


def correlation_per_slope(response: np.ndarray, term: np.ndarray, others: np.ndarray | None = None) -> float:
    """What a slope of `response` [n] on `term` [n] beside `others` [n, k] is multiplied by to be a correlation.

    The (partial) correlation is the slope in units of what the others and a constant leave of both standard deviations.
    NaN where they leave nothing of one.
    """
    rest = _basis(_with_constant(len(response), others))
    left = [float(np.std(values - rest @ (rest.T @ values))) for values in (term, response)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.divide(*left))


def effective_clusters(weights: np.ndarray, codes: np.ndarray) -> float:
    """G / (1 + Γ) of G clusters: how many alike ones would carry a slope as well (Carter and others 2017).

    `weights` [n] are what the slope weights the responses by, in any unit; `codes` [n] number the clusters from 0. Γ is
    the squared coefficient of variation of the clusters' parts in the slope's variance, if errors correlate by a half
    within a cluster.
    """
    parts = np.bincount(codes, weights**2) + np.bincount(codes, weights) ** 2
    return float(len(parts) / (1 + np.var(parts) / np.mean(parts) ** 2))


@dataclass(frozen=True)
class _Pieces:
    """A fit in sums over clusters, after the rest of the design, an orthonormal `Q`, is taken out of both variables.

    Weights w = x̃ / x̃'x̃ make the estimate w'y, and residuals of the null b are ỹ - b x̃. The bootstrap draws from
    ÿ - b ẍ, which each cluster would have if the rest of the design had been fitted without it (MacKinnon, Nielsen and
    Webb 2023), because residuals of clusters that are far out are too small. A replicate with signs s has the numerator
    Σ s_g `drawn`_g and the scores s_g `drawn`_g - `weights`_g · Σ s_h `sums`_h, of ÿ and of ẍ.
    """

    drawn: np.ndarray  # [2, clusters]: w'ÿ and w'ẍ of each cluster
    sums: np.ndarray  # [2, clusters, k + 1]: Q'ÿ and Q'ẍ, and `drawn`
    weights: np.ndarray  # [clusters, k + 1]: Q'w and w'x̃
    jackknife: float  # standard error, in which the whole fit is done without each cluster in turn

    def replicated(self, replicates: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Numerators [2, replicates] and sums of squared scores [3, replicates]."""
        parts = [self._replicated(signs) for signs in _signs(len(self.weights), replicates, seed)]
        numerator, scores = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return numerator, scores

    def _replicated(self, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `replicated`, of replicates with weights `signs` [b, clusters].

        Scores are never made: the sum of their products over clusters is a polynomial in sums of the signs.
        """
        width = self.weights.shape[1]
        scaled = [drawn[:, None] * self.weights for drawn in self.drawn]
        products = signs @ np.concatenate([*self.sums, *scaled], axis=1)
        totals, crossed = products[:, : 2 * width], products[:, 2 * width :]
        totals, crossed = ([part[:, :width], part[:, width:]] for part in (totals, crossed))
        within = [total @ (self.weights.T @ self.weights) for total in totals]
        pairs = ((0, 0), (0, 1), (1, 1))
        scores = (signs**2 @ np.stack([self.drawn[left] * self.drawn[right] for left, right in pairs], axis=1)).T
        for score, (left, right) in zip(scores, pairs, strict=True):
            score += np.einsum("bk,bk->b", totals[left], within[right] - crossed[right])
            score -= np.einsum("bk,bk->b", totals[right], crossed[left])
        return np.stack([total[:, -1] for total in totals]), scores


def _signs(clusters: int, replicates: int, seed: int) -> Iterable[np.ndarray]:
    """Webb's weights for each replicate and cluster, in blocks of replicates [≤ 2000, clusters]."""
    kept = clusters * replicates <= MOST_KEPT
    return _kept_signs(clusters, replicates, seed) if kept else _drawn_signs(clusters, replicates, seed)


@functools.lru_cache(maxsize=4)
def _kept_signs(clusters: int, replicates: int, seed: int) -> tuple[np.ndarray, ...]:
    """Tests of one table have few different numbers of clusters, and drawing takes longer than what follows."""
    return tuple(_drawn_signs(clusters, replicates, seed))


def _drawn_signs(clusters: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    for start in range(0, replicates, _AT_ONCE):
        size = min(_AT_ONCE, replicates - start), clusters
        yield WEBB[generator.integers(len(WEBB), size=size)]


def _pieces(plain: np.ndarray, kept: np.ndarray, residuals: np.ndarray, rest: np.ndarray, codes: np.ndarray) -> _Pieces:
    order = np.argsort(codes, kind="stable")
    firsts = np.searchsorted(codes[order], np.arange(codes.max() + 1))

    def summed(values: np.ndarray) -> np.ndarray:
        """Sums over clusters [clusters, …] of values [n, …]."""
        return np.add.reduceat(values[order], firsts, axis=0)

    spread = kept @ kept
    weights = kept / spread
    rest_weights = summed(rest * weights[:, None])
    inside = summed(rest[:, :, None] * rest[:, None, :])
    apart = _inverses(np.eye(rest.shape[1]) - inside)
    drawn, sums = [], []
    for values in (plain, kept):
        # (I - QQ')⁻¹ r of each cluster, whose own rows Q holds: Q (I - Q'Q)⁻¹ Q'r is added to its r.
        within = summed(rest * values[:, None])
        added = np.einsum("gkl,gl->gk", apart, within)
        drawn.append(summed(weights * values) + np.einsum("gk,gk->g", rest_weights, added))
        sums.append(np.column_stack([within + np.einsum("gkl,gl->gk", inside, added), drawn[-1]]))
    own = summed(weights * kept)
    # The same once more with the term among what is fitted without the cluster.
    whole = np.column_stack([rest, kept / np.sqrt(spread)])
    apart = _inverses(np.eye(whole.shape[1]) - summed(whole[:, :, None] * whole[:, None, :]))
    within, whole_weights = (summed(whole * values[:, None]) for values in (residuals, weights))
    moved = summed(weights * residuals) + np.einsum("gk,gkl,gl->g", whole_weights, apart, within)
    error = float(np.sqrt((len(own) - 1) / len(own) * np.sum(moved**2)))
    return _Pieces(np.stack(drawn), np.stack(sums), np.column_stack([rest_weights, own]), error)


def _inverses(matrices: np.ndarray) -> np.ndarray:
    """Inverses of symmetric matrices [g, k, k]; pseudo-inverses of those that are singular but for rounding."""
    try:
        found = np.linalg.inv(matrices)
    except np.linalg.LinAlgError:
        return np.linalg.pinv(matrices, rcond=_SINGULAR, hermitian=True)
    sizes = np.abs(matrices).sum(1).max(-1) * np.abs(found).sum(1).max(-1)
    singular = ~(sizes < 1 / _SINGULAR)
    if singular.any():
        found[singular] = np.linalg.pinv(matrices[singular], rcond=_SINGULAR, hermitian=True)
    return found


def _with_constant(rows: int, others: np.ndarray | None) -> np.ndarray:
    return np.ones((rows, 1)) if others is None else np.column_stack([np.ones(rows), others])


def _basis(design: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the columns' span, whatever units they come in."""
    left, sizes, _ = np.linalg.svd(design / np.maximum(np.linalg.norm(design, axis=0), 1e-300), full_matrices=False)
    return left[:, sizes > sizes[0] * 1e-10]
