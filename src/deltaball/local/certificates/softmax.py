"""Bounds of the softmax over a whole ball, from linear bounds of the logits.

-log softmax j is log Σᵢ exp(zᵢ - zⱼ), convex in the logits. Bounding each difference alone lets every one be at its own
worst at a different image. Here a linear function of all differences takes their place, and is bounded as one:

- The largest softmax: for any weights w that sum to 1, log Σᵢ exp(dᵢ) ≥ Σᵢ wᵢ dᵢ + H(w), H the entropy (a tangent).
  The weights are ascended; any are sound.
- The least: on [lᵢ, uᵢ] exp(dᵢ) is below its chord, so that Σᵢ exp(dᵢ) is below a sum of chords.
- What the other classes leave: softmaxes sum to 1.

Chord and tangent are the exponential-reciprocal and log-sum-exp bounds of Wei et al. 2023, "Convex bounds on the
softmax function with applications to robustness verification", but of functions of the image, not of a box of logits.
"""

import torch

from deltaball.local.certificates.passages import Enclosure
from deltaball.local.certificates.rounding import UNIT

ASCENTS = 1  # of the tangents' weights
STEP = 0.5  # of an ascent, towards the weights that are best where the bound is attained

# Differences from which exp is not bounded by chords: what softmax is left is no number worth bounding.
STEEPEST = 300.0


def of_differences(differences: torch.Tensor) -> torch.Tensor:
    """The least and the largest softmax of each class [..., classes, 2], by `LogitBounds`' differences alone.

    softmax j is 1 / Σᵢ exp(zᵢ - zⱼ), whose terms lie between exp(differences[i, j]) and exp(-differences[j, i]); the
    term of j itself is 1.
    """
    least = _own_at_zero(differences)
    return torch.stack([1 / (-least.mT).exp().sum(-2), 1 / least.exp().sum(-2)], -1)


def bounded_softmax(enclosure: Enclosure, differences: torch.Tensor) -> torch.Tensor:
    """The same [K, n, classes, 2], by linear functions of all logits too; nowhere looser. NaN where nothing is."""
    lowest, highest = of_differences(differences).unbind(-1)
    least = _own_at_zero(differences)
    highest = torch.minimum(highest, _by_tangents(enclosure, least))
    lowest = torch.maximum(lowest, _by_chords(enclosure, least))
    return summing_to_one(lowest, highest)


def summing_to_one(lowest: torch.Tensor, highest: torch.Tensor) -> torch.Tensor:
    """Bounds [..., classes, 2] of softmaxes, by what those of the others [..., classes] leave, too."""
    others_lowest, others_highest = (side.sum(-1, keepdim=True) - side for side in (lowest, highest))
    return torch.stack([torch.maximum(lowest, 1 - others_highest), torch.minimum(highest, 1 - others_lowest)], -1)


def rounding(sizes: torch.Tensor) -> torch.Tensor:
    """How far a change of softmaxes [..., classes] whose sum is `sizes` may be off in float32.

    Each softmax is an exp, a sum of as many terms as there are classes and a quotient.
    """
    return (sizes.shape[-1] + 4) * UNIT * sizes


def _own_at_zero(differences: torch.Tensor) -> torch.Tensor:
    own = torch.eye(differences.shape[-1], dtype=torch.bool, device=differences.device)
    return differences.masked_fill(own, 0.0)


def _by_tangents(enclosure: Enclosure, least: torch.Tensor) -> torch.Tensor:
    """Upper bounds [K, n, classes], from lower bounds [K, n, i, j] of zᵢ - zⱼ."""
    logs = least.mT.log_softmax(-1)  # weights [K, n, j, i]: where the pairwise bound is the tangent's own
    best = torch.full_like(least[..., 0], torch.inf)
    for ascent in range(ASCENTS + 1):
        weights = logs.exp()
        lower, reached = _minimum(enclosure, weights, ascent < ASCENTS)
        entropy = -torch.special.xlogy(weights, weights).sum(-1)
        found = (-lower - entropy).exp()
        # fmin: what is no number is no bound.
        best = torch.fmin(best, found)
        if reached is not None:
            logs = ((1 - STEP) * logs.clamp(min=-1e3) + STEP * reached).log_softmax(-1)
    return best


def _by_chords(enclosure: Enclosure, least: torch.Tensor) -> torch.Tensor:
    """Lower bounds [K, n, classes], from lower bounds [K, n, i, j] of zᵢ - zⱼ; 0 where differences may be too large."""
    low, high = least.mT, -least  # of zᵢ - zⱼ, as [K, n, j, i]
    bounded = (high.amax(-1) < STEEPEST) & (low.amin(-1) > -STEEPEST)
    low, high = (side.masked_fill(~bounded[..., None], 0.0) for side in (low, high))
    width = (high - low).clamp(min=0)
    slopes = low.exp() * torch.where(width > 0, width.expm1() / width.clamp(min=1e-300), 0.0)
    size = slopes.sum(-1, keepdim=True).clamp(min=1e-300)
    lower, _ = _minimum(enclosure, -slopes / size)
    total = (low.exp() - slopes * low).sum(-1) - size[..., 0] * lower
    return torch.where(bounded & (total >= 1), 1 / total, 0.0)


def _minimum(
    enclosure: Enclosure, weights: torch.Tensor, attained: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Lower bounds [K, n, j] of Σᵢ weights[j, i] (zᵢ - zⱼ) in float32, and the differences at which they are attained.

    These are [K, n, j, i], of the linear bounds and not of the network.
    """
    weights = _own_at_zero(weights)
    with torch.set_grad_enabled(attained):
        rows = (weights - torch.diag_embed(weights.sum(-1))).requires_grad_(attained)
        lower = enclosure.lower(rows)
        slopes = torch.autograd.grad(lower.sum(), rows)[0] if attained else None
    reached = None if slopes is None else slopes - slopes.diagonal(dim1=-2, dim2=-1)[..., None]
    allowed = (rows.detach().abs() * enclosure.error[..., None, :]).sum(-1)
    return lower.detach() - allowed, reached
