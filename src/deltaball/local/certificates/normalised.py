"""How bounds pass through normalisations by an image's own numbers: of groups of channels, or of the whole image.

What leaves is y = r c: c is a number less the mean of its group, and r is 1 over the group's deviation. Of c there are
lines, and r lies in an interval [p, q] of positive numbers. So y lies between min(p c, q c) and max(p c, q c); where c
may have either sign, between their chords.
"""

import math
from collections.abc import Callable, Sequence

import torch

from deltaball.local.certificates.affine import NORMALISING, affine, rounded, scale
from deltaball.local.certificates.passages import Before, Interval, Passage, Pulled, after, dot, pulled
from deltaball.local.certificates.rounding import UNIT
from deltaball.networks.layers import GroupNorm, Scale, Shape, Standardise
from deltaball.networks.packs import from_groups, of_groups

# Halvings of the interval in which the mean lies that makes a variance least.
HALVINGS = 60

Deviation = Callable[[torch.Tensor], torch.Tensor]  # of a variance


def group_norm(layer: GroupNorm, shape: Shape, weights: Sequence[torch.Tensor], before: Before) -> Passage:
    def deviation(variance: torch.Tensor) -> torch.Tensor:
        return (variance + layer.epsilon).sqrt()

    chain = _normalised(layer.groups, shape, before, deviation)
    return _joined(before, (*chain, scale(Scale(), shape, weights, after(before, chain))))


def standardise(layer: Standardise, shape: Shape, weights: Sequence[torch.Tensor], before: Before) -> Passage:
    def deviation(variance: torch.Tensor) -> torch.Tensor:
        return variance.clamp(min=1 / math.prod(shape)).sqrt()

    return _joined(before, _normalised(1, shape, before, deviation))


def _joined(before: Before, chain: tuple[Passage, ...]) -> Passage:
    """Several passages as one."""

    def scattered(variance: torch.Tensor) -> torch.Tensor:
        for passage in chain:
            variance = passage.scattered(variance)
        return variance

    return Passage(chain[-1].leaving, lambda rows: pulled(chain, rows), scattered, linear=False)


def _normalised(groups: int, shape: Shape, before: Before, deviation: Deviation) -> tuple[Passage, Passage]:
    count = math.prod(shape) // groups
    centring = _centred(groups, shape, before)
    centred = after(before, (centring,))
    low, high = centred.tightened_where(lambda low, high: torch.ones_like(low, dtype=torch.bool))
    least, most = _variances(before.interval, low, high, groups, shape)
    if before.by != "ibp":
        below, above = _variances_by_lines(before, groups, shape)
        least, most = torch.maximum(least, below), torch.minimum(most, above)
    slowest, fastest = (
        from_groups((1 / deviation(one)).expand(*one.shape[:-1], count), shape) for one in (most, least)
    )
    return centring, _divided(low, high, slowest, fastest, groups)


def _centred(groups: int, shape: Shape, before: Before) -> Passage:
    """Less the mean of its group."""
    count = math.prod(shape) // groups

    def mean(x: torch.Tensor) -> torch.Tensor:
        return _mean(x, groups, shape)

    def sizes(x: torch.Tensor) -> torch.Tensor:
        return (1 - 2 / count) * x + mean(x)

    def squares(variance: torch.Tensor) -> torch.Tensor:
        # However errors depend on each other.
        return (variance.sqrt() + mean(variance.sqrt())) ** 2

    def errors(size: torch.Tensor) -> torch.Tensor:
        own = mean(size)
        return rounded(count * own, count + 1) / count**2 + (UNIT * (size + own)) ** 2

    def applied(x: torch.Tensor) -> torch.Tensor:
        return x - mean(x)

    def backwards(coefficients: torch.Tensor) -> torch.Tensor:
        return applied(coefficients.flatten(1, 2)).unflatten(1, coefficients.shape[1:3])

    return affine(before, applied, sizes, squares, backwards, None, errors)


def _mean(x: torch.Tensor, groups: int, shape: Shape) -> torch.Tensor:
    """For each number the mean of its group."""
    grouped = of_groups(x, groups, shape)
    return from_groups(grouped.mean(-1, keepdim=True).expand_as(grouped), shape)


def _variances(
    entering: Interval, low: torch.Tensor, high: torch.Tensor, groups: int, shape: Shape
) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the largest variance of each group [..., groups, 1].

    By intervals of what enters, and by those of the same less the group's mean, `low` and `high`.
    """
    nearest, furthest = torch.where((low <= 0) & (high >= 0), 0.0, torch.minimum(low.abs(), high.abs())), -low
    furthest = torch.maximum(furthest, high)
    least, most = (_square(of_groups(one, groups, shape)) for one in (nearest, furthest))
    below, above = (of_groups(one, groups, shape) for one in entering[:2])
    # The variance is the least mean of squared distances, and that of the distances from no other number is less.
    middle, reach = (below + above) / 2, (above - below) / 2
    most = torch.minimum(most, _square((middle - middle.mean(-1, keepdim=True)).abs() + reach))
    return torch.maximum(least, _least_variance(below, above)), most


def _variances_by_lines(before: Before, groups: int, shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by lower bounds of linear functions: of x = a + e it is var(a) + 2 cov(a, x - a) + var(e), for any a."""
    low, high = before.interval[:2]
    middle, reach = ((one / 2) for one in (high + low, high - low))
    grouped = of_groups(middle, groups, shape)
    count = grouped.shape[-1]
    centred = grouped - grouped.mean(-1, keepdim=True)
    each = torch.eye(groups, dtype=low.dtype, device=low.device)
    rows = from_groups(2 / count * each[:, :, None] * centred[:, :, None], shape)
    least, most = before.best(torch.cat([rows, -rows], 2)).chunk(2, -1)
    constant = _square(centred)
    return least[..., None] - constant, -most[..., None] - constant + _square(of_groups(reach, groups, shape))


def _square(distances: torch.Tensor) -> torch.Tensor:
    return distances.square().mean(-1, keepdim=True)


def _least_variance(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Of numbers in intervals [..., numbers].

    It is the least mean of squared distances from the intervals to a number t, a convex function of t. Bisection leaves
    little room for t, in which the function falls no further than its slope says.
    """
    first, last = low.amin(-1, keepdim=True), high.amax(-1, keepdim=True)

    def slope(t: torch.Tensor) -> torch.Tensor:
        return 2 * ((t - high).clamp(min=0) - (low - t).clamp(min=0)).mean(-1, keepdim=True)

    for _ in range(HALVINGS):
        t = (first + last) / 2
        rises = slope(t) > 0
        first, last = torch.where(rises, first, t), torch.where(rises, t, last)
    t = (first + last) / 2
    found = _square((t - high).clamp(min=0) + (low - t).clamp(min=0)) - slope(t).abs() * (last - first)
    return found.clamp(min=0)


def _divided(
    low: torch.Tensor, high: torch.Tensor, slowest: torch.Tensor, fastest: torch.Tensor, groups: int
) -> Passage:
    """c times r, with c from `low` to `high` and r from `slowest` to `fastest`, all [K, n, *shape]."""
    shape = low.shape[2:]
    count = math.prod(shape) // groups
    ends = torch.minimum(slowest * low, fastest * low), torch.maximum(slowest * high, fastest * high)
    # Of `count` numbers whose squares have the mean 1 and whose sum is 0.
    largest = math.sqrt(count - 1)
    leaving = Interval(*(end.clamp(-largest, largest) for end in ends), exact=False, box=False)
    # Of numbers below 0, what is least is largest by size.
    crosses, width = (low < 0) & (high > 0), (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    lower = torch.where(low >= 0, slowest, fastest)
    upper = torch.where(low >= 0, fastest, slowest)
    lower = torch.where(crosses, (slowest * high - fastest * low) / width, lower)
    upper = torch.where(crosses, (fastest * high - slowest * low) / width, upper)
    lower_offset = torch.where(crosses, (fastest - lower) * low, 0.0)
    upper_offset = torch.where(crosses, (slowest - upper) * low, 0.0)

    def backwards(coefficients: torch.Tensor) -> Pulled:
        positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
        offset = dot(positive, lower_offset) + dot(negative, upper_offset)
        return torch.addcmul(positive * lower[:, :, None], negative, upper[:, :, None]), offset

    def scattered(variance: torch.Tensor) -> torch.Tensor:
        # r falls by r³ times the mean of |c| times its errors, which is at most r² times the root of their mean square.
        by_deviation = leaving.size * _mean(variance, groups, shape).sqrt()
        passed = (fastest * (variance.sqrt() + by_deviation)) ** 2
        return passed + (count + NORMALISING) * (UNIT * leaving.size) ** 2

    return Passage(leaving, backwards, scattered, linear=False)
