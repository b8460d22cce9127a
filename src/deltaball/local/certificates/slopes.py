"""How fast logits move at most as an image leaves its point: the local Lipschitz constant, bounded in two ways.

Backwards, layer by layer, an interval for each entry of the Jacobian, given what bounds of each activation's values say
of its derivative (Weng et al. 2018, "Towards fast computation of certified robustness for ReLU networks", Section 3.4,
and Zhang et al. 2019, "RecurJac", here with intervals alone). The ball is convex, and so is what [0, 1] leaves of
it: on the line from a point to an image of it the logits move by a mean of Jacobians that lie within the intervals (at
kinks: Clarke's), so no further than the steepest of these allows.

And by the lines of CROWN, shell by shell around the point, whose bounds do not lose that pixels hang together.

Numbers per image are [K, n, *shape] and entries of Jacobians [K, n, r, *shape], in float64.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch

from deltaball.local.certificates.affine import transposed
from deltaball.local.certificates.curved import pixels_of_windows
from deltaball.local.certificates.layerwise import PASSAGES, images, passages
from deltaball.local.certificates.lines import NOTHING
from deltaball.local.certificates.passages import Before, Interval, Passage, after, dot, pulled
from deltaball.local.neighbourhoods import Neighbourhood
from deltaball.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Clamp,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Layers,
    LeakyReLU,
    MaxPool,
    Normalise,
    Residual,
    Scale,
    Shape,
    Subsample,
    rule_for,
)
from deltaball.networks.models import Layered
from deltaball.networks.packs import FORWARD, Pass, along_channels, logits

# How much larger the outer radius of a shell is than its inner one.
SHELL = 1.5

ROUNDING = 1e-9  # of a logarithm

Weights = Sequence[torch.Tensor]
Slopes = tuple[torch.Tensor, torch.Tensor]  # the least and the largest that each entry of a Jacobian may be


class Bounded(NamedTuple):
    """A layer with bounds of what enters and of what leaves it."""

    layer: Layer
    shape: Shape  # of what enters it
    weights: Weights
    entering: Interval
    leaving: Interval
    branches: "tuple[Sequence[Bounded], ...]" = ()


def steepest(model: Layered, around: Neighbourhood, by: str, nearest: float) -> torch.Tensor:
    """How much each logit moves at most, per unit of the ball's norm that the image does: [K, n, classes], float64.

    Of images that are `nearest` away from the point or more, in real arithmetic: by ibp the Jacobian's bound, by crown
    the better one of it and of lines. Raises InputError where a layer has no rule.
    """
    weights = [weight.to(torch.float64) for weight in model.weights]
    found = _jacobian(model, weights, around, by)
    return torch.minimum(found, _by_lines(model, weights, around, nearest)) if by != "ibp" else found


def _jacobian(model: Layered, weights: Weights, around: Neighbourhood, by: str) -> torch.Tensor:
    start = images(model, around, by)
    layers = _bounded(model.layers, weights, start)
    (classes,) = model.layers.output
    rows = torch.eye(classes, dtype=torch.float64, device=around.x.device)
    rows = rows.expand(*start.interval.low.shape[:2], classes, classes)
    low, high = _backwards(layers, (rows, rows))
    return around.dual_length(torch.maximum(-low, high))


def _by_lines(model: Layered, weights: Weights, around: Neighbourhood, nearest: float) -> torch.Tensor:
    """Shell by shell: lines that hold in a ball of CROWN's say how far a logit moves within it.

    In a smaller ball of radius t they let it move by h(t) + c, where c ≥ 0 is how far they are off at the point itself,
    and h(t) / t never grows with t, for the ball is convex. So between two radii the slope is largest at the inner one.
    """
    (classes,) = model.layers.output
    now = logits(model.layers, weights, around.x.to(torch.float64))
    rows = torch.eye(classes, dtype=torch.float64, device=now.device)
    rows = torch.cat([rows, -rows]).expand(*now.shape[:2], -1, -1)
    centre = around.centre.expand(*now.shape[:2], -1)
    found = torch.zeros_like(now)
    for inner, outer in pairwise(_radii(nearest, float(around.radius))):
        start = images(model, replace(around, radius=outer), "crown")
        coefficients, offset = pulled(passages(model.layers, weights, start), rows)
        flat = coefficients.flatten(3)
        least = offset + dot(flat, centre) + replace(around, radius=inner).minimum(flat)
        moved = torch.cat([now, -now], -1) - least
        found = torch.maximum(found, torch.maximum(*moved.chunk(2, -1)) / inner)
    return found


def _radii(nearest: float, furthest: float) -> list[float]:
    """From the nearest on, each SHELL times the one before."""
    count = math.ceil(math.log(max(furthest / nearest, 1), SHELL) - ROUNDING)
    return [*(nearest * SHELL**place for place in range(count)), furthest] if furthest > nearest else []


def _bounded(layers: Layers, weights: Weights, start: Before) -> list[Bounded]:
    found: list[Bounded] = []
    passed: tuple[Passage, ...] = ()
    for layer, shape, own in layers.with_weights(weights):
        before = after(start, passed)
        passage = rule_for(PASSAGES, type(layer), "certificate")(layer, shape, own, before)
        branches = ()
        if isinstance(layer, Residual):
            body, shortcut = layer.branches(shape)
            count = len(body.weights)
            pairs = ((body, own[:count]), (shortcut, own[count:]))
            branches = tuple(_bounded(*pair, before) for pair in pairs)
        found.append(Bounded(layer, shape, own, before.interval, passage.leaving, branches))
        passed = (*passed, passage)
    return found


def _backwards(layers: Sequence[Bounded], slopes: Slopes) -> Slopes:
    for one in reversed(layers):
        slopes = rule_for(SLOPES, type(one.layer), "bound of the Jacobian")(one, slopes)
    return slopes


def _weighted(one: Bounded, slopes: Slopes) -> Slopes:
    """By the transposed kernel the middle, and by its magnitudes how far entries may be from it."""
    layer = replace(one.layer, bias=False)
    middle, reach = _middle(slopes)

    def through(kernel: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        return transposed(lambda x: FORWARD[type(layer)](layer, [kernel], x, Pass()), one.shape)(slopes)

    kernel = one.weights[0]
    middle, reach = through(kernel, middle), through(kernel.abs(), reach)
    return middle - reach, middle + reach


def _averaged(one: Bounded, slopes: Slopes) -> Slopes:
    def applied(x: torch.Tensor) -> torch.Tensor:
        return FORWARD[type(one.layer)](one.layer, one.weights, x, Pass())

    low, high = (transposed(applied, one.shape)(side) for side in slopes)
    return low, high


def _batch_norm(one: Bounded, slopes: Slopes) -> Slopes:
    gamma, _, _, variance = one.weights
    return _scaled(gamma * (variance + one.layer.epsilon).rsqrt(), slopes)


def _scale(one: Bounded, slopes: Slopes) -> Slopes:
    return _scaled(one.weights[0], slopes)


def _normalise(one: Bounded, slopes: Slopes) -> Slopes:
    return _scaled(1 / slopes[0].new_tensor(one.layer.deviation)[None], slopes)


def _scaled(scale: torch.Tensor, slopes: Slopes) -> Slopes:
    """By a factor for each network and channel."""
    factor = along_channels(scale, slopes[0][:, :, 0])[:, :, None]
    ends = [factor * side for side in slopes]
    return torch.minimum(*ends), torch.maximum(*ends)


def _same(one: Bounded, slopes: Slopes) -> Slopes:
    return slopes


def _flatten(one: Bounded, slopes: Slopes) -> Slopes:
    low, high = (side.unflatten(3, one.shape) for side in slopes)
    return low, high


def _residual(one: Bounded, slopes: Slopes) -> Slopes:
    (low, high), (other_low, other_high) = (_backwards(branch, slopes) for branch in one.branches)
    return low + other_low, high + other_high


def _elementwise(one: Bounded, slopes: Slopes) -> Slopes:
    least, most = (side[:, :, None] for side in _derivative(one.layer, *one.leaving[:2]))
    low, high = slopes
    return torch.where(low < 0, low * most, low * least), torch.where(high > 0, high * most, high * least)


def _derivative(layer: Layer, low: torch.Tensor, high: torch.Tensor) -> Slopes:
    """The least and the largest derivative, never negative, of an activation that takes values from `low` to `high`."""
    match layer:
        case Activation(name):
            return rule_for(DERIVATIVES, name, "bound of the derivative")(low, high)
        case LeakyReLU(slope):
            return _stepped(low > 0, high > 0, slope)
        case Clamp(least, most):
            inside = (low > least) & (high < most)
            return _stepped(inside, (low < most) & (high > least), 0.0)
    raise AssertionError(layer)


def _stepped(surely: torch.Tensor, maybe: torch.Tensor, otherwise: float) -> Slopes:
    one, other = (torch.tensor(value, dtype=torch.float64, device=maybe.device) for value in (1.0, otherwise))
    return torch.where(surely, one, other), torch.where(maybe, one, other)


def _bell(centre: float, derivative: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Slopes]:
    """Of an activation whose derivative, by its value, is largest at a `centre` and falls to both sides evenly."""

    def found(low: torch.Tensor, high: torch.Tensor) -> Slopes:
        ends = [derivative(low), derivative(high)]
        nearest = torch.full_like(low, centre).clamp(low, high)
        return torch.minimum(*ends).clamp(min=0), derivative(nearest)

    return found


# Of activations, from bounds of their values.
DERIVATIVES = {
    "relu": lambda low, high: _stepped(low > 0, high > 0, 0.0),
    "tanh": _bell(0.0, lambda value: 1 - value**2),
    "sigmoid": _bell(0.5, lambda value: value * (1 - value)),
}


def _max_pool(one: Bounded, slopes: Slopes) -> Slopes:
    """To each pixel that may be the largest of a window goes all of it or nothing; to one that surely is, all."""
    windows = pixels_of_windows(one.layer, one.shape, slopes[0].device)
    count = one.entering.low[0, 0].numel()

    def seen(values: torch.Tensor) -> torch.Tensor:
        """[K, n, *shape] → [K, n, pixels of a window, windows]"""
        flat = torch.cat([values.flatten(2), values.new_full((*values.shape[:2], 1), NOTHING)], -1)
        return flat[..., windows]

    low, high = (seen(bound) for bound in one.entering[:2])
    may = high >= low.amax(-2, keepdim=True)
    surely = may & (may.sum(-2, keepdim=True) == 1)
    some = ~surely[:, :, None]
    ends = []
    for side, least in zip(slopes, (True, False), strict=True):
        every = side.flatten(3)[:, :, :, None]
        part = torch.where(some, every.clamp(max=0) if least else every.clamp(min=0), every) * may[:, :, None]
        places = windows.expand(part.shape).flatten(3)
        found = side.new_zeros(*side.shape[:3], count + 1).scatter_add(-1, places, part.flatten(3))
        ends.append(found[..., :count].unflatten(-1, one.shape))
    return ends[0], ends[1]


def _middle(slopes: Slopes) -> Slopes:
    low, high = slopes
    return (low + high) / 2, (high - low) / 2


# How each layer passes the entries of a Jacobian, from those of what leaves it to those of what enters it.
SLOPES = {
    Dense: _weighted,
    Conv: _weighted,
    Activation: _elementwise,
    LeakyReLU: _elementwise,
    Clamp: _elementwise,
    MaxPool: _max_pool,
    AveragePool: _averaged,
    GlobalAveragePool: _averaged,
    BatchNorm: _batch_norm,
    Scale: _scale,
    Normalise: _normalise,
    Dropout: _same,
    Subsample: _averaged,
    Residual: _residual,
    Flatten: _flatten,
}
