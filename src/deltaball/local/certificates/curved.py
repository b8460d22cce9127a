"""How bounds pass through activations and max-pools."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch.nn.functional import leaky_relu

from deltaball.local.certificates.lines import (
    CURVES,
    NOTHING,
    Curve,
    Lines,
    clamp_curve,
    largest_lines,
    leaky_relu_curve,
)
from deltaball.local.certificates.optimised import Choices
from deltaball.local.certificates.passages import Before, Interval, Passage, Pulled, dot
from deltaball.local.certificates.rounding import DEVIATIONS, UNIT
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.layers import Activation, Clamp, Layer, LeakyReLU, MaxPool, Shape, rule_for
from deltaball.networks.packs import FORWARD, Pass

Function = Callable[[torch.Tensor], torch.Tensor]


def _activation(layer: Activation) -> tuple[Curve, Function]:
    return rule_for(CURVES, layer.name, "certificate"), ACTIVATIONS[layer.name]


def _leaky_relu(layer: LeakyReLU) -> tuple[Curve, Function]:
    return leaky_relu_curve(layer.slope), partial(leaky_relu, negative_slope=layer.slope)


def _clamp(layer: Clamp) -> tuple[Curve, Function]:
    return clamp_curve(layer.low, layer.high), partial(torch.clamp, min=layer.low, max=layer.high)


LEAST_SHARE = 1e-3  # of the unit that counts alone at first, so that shares have a sum

# What is known of elementwise layers, and what they compute.
ELEMENTWISE = {Activation: _activation, LeakyReLU: _leaky_relu, Clamp: _clamp}


def curved(layer: Layer, shape: Shape, weights: Sequence[torch.Tensor], before: Before) -> Passage:
    """Through an elementwise layer."""
    curve, function = ELEMENTWISE[type(layer)](layer)
    low, high = before.tightened_where(curve.curved)
    exact, box = before.interval.exact or before.linear, before.interval.box
    leaving = Interval(function(low), function(high), exact, box)
    lower, lower_offset, upper, upper_offset = _lines(curve, before)(low, high)

    def pulled(coefficients: torch.Tensor) -> Pulled:
        positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
        offset = dot(positive, lower_offset) + dot(negative, upper_offset)
        return torch.addcmul(positive * lower[:, :, None], negative, upper[:, :, None]), offset

    def chosen(coefficients: torch.Tensor, choices: Choices) -> Pulled:
        lower, lower_offset, upper, upper_offset = curve.free.lines(low[:, :, None], high[:, :, None], choices)
        positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
        offset = (positive * lower_offset + negative * upper_offset).flatten(3).sum(-1)
        return torch.addcmul(positive * lower, negative, upper), offset

    def scattered(variance: torch.Tensor) -> torch.Tensor:
        return _errors(curve, low, high, leaving.size, variance)

    starts = curve.free.starts(low, high) if before.optimises else ()
    return Passage(leaving, pulled, scattered, False, starts, chosen)


def _lines(curve: Curve, before: Before) -> Callable[..., Lines]:
    return curve.others if before.others and curve.others else curve.lines


def _errors(
    curve: Curve, low: torch.Tensor, high: torch.Tensor, size: torch.Tensor, variance: torch.Tensor
) -> torch.Tensor:
    """Variances of what leaves an activation, whose magnitude is at most `size`."""
    reach = DEVIATIONS * variance.sqrt()
    variance = curve.steepest**2 * variance.masked_fill(curve.constant(low - reach, high + reach), 0.0)
    # A unit in the last place is at most 2 u times the number.
    return variance + (curve.last_places * 2 * UNIT * size) ** 2


def pooled(
    layer: MaxPool, shape: Shape, weights: Sequence[torch.Tensor], before: Before, activation: Layer | None = None
) -> Passage:
    """Through a max-pool, and through an elementwise `activation` right before it."""
    curve, function = ELEMENTWISE[type(activation)](activation) if activation else (IDENTITY, _same)
    windows = pixels_of_windows(layer, shape, before.interval.low.device)
    count = math.prod(shape)

    def seen(values: torch.Tensor) -> torch.Tensor:
        """[K, n, *shape] → [K, n, pixels of a window, windows]"""
        flat = torch.cat([values.flatten(2), values.new_full((*values.shape[:2], 1), NOTHING)], -1)
        return flat[..., windows]

    def needed(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        low, high = seen(low), seen(high)
        rivals = high > low.amax(-2, keepdim=True)
        alone = rivals.sum(-2, keepdim=True) == 1
        some = rivals & ~curve.constant(low, high) & (curve.curved(low, high) | ~alone)
        places = windows.expand_as(some).flatten(2)
        wanted = torch.zeros(*some.shape[:2], count + 1, dtype=torch.int64, device=low.device)
        wanted = wanted.scatter_add(-1, places, some.flatten(2).long())[..., :count] > 0
        return wanted.unflatten(-1, shape)

    low, high = before.tightened_where(needed)
    central, lower, lower_offset, highest, upper, upper_offset = largest_lines(
        _lines(curve, before), function, seen(low), seen(high)
    )
    below, above = (windows.expand_as(seen(low)).gather(-2, one)[:, :, 0] for one in (central, highest))
    lower, lower_offset, upper, upper_offset = (
        one.expand_as(central)[:, :, 0] for one in (lower, lower_offset, upper, upper_offset)
    )

    def pulled(coefficients: torch.Tensor) -> Pulled:
        flat = coefficients.flatten(3)
        positive, negative = flat.clamp(min=0), flat.clamp(max=0)
        offset = dot(positive, lower_offset) + dot(negative, upper_offset)
        found = flat.new_zeros(*flat.shape[:3], count)
        for part, slopes, places in ((positive, lower, below), (negative, upper, above)):
            found = found.scatter_add(-1, places[:, :, None].expand_as(part), part * slopes[:, :, None])
        return found.unflatten(-1, shape), offset

    def chosen(coefficients: torch.Tensor, choices: Choices) -> Pulled:
        # Below the largest is every mean of the units, and so of the lines below each.
        flat, (share, *own) = coefficients.flatten(3), choices
        positive, negative = flat.clamp(min=0), flat.clamp(max=0)
        share = torch.where(nothing, 0.0, share) + LEAST_SHARE * first[:, :, None]
        share = share / share.sum(-2, keepdim=True)
        slopes, offsets, _, _ = free.lines(*(bound[:, :, None] for bound in ends), own)
        offset = (positive * (share * offsets).sum(-2)).sum(-1) + dot(negative, upper_offset)
        parts = (positive[..., None, :] * share * slopes).flatten(3)
        found = flat.new_zeros(*flat.shape[:3], count + 1).scatter_add(-1, windows.flatten().expand_as(parts), parts)
        places = above[:, :, None].expand_as(negative)
        found = found.scatter_add(-1, places, negative * upper[:, :, None])
        return found[..., :count].unflatten(-1, shape), offset

    def largest(values: torch.Tensor) -> torch.Tensor:
        return FORWARD[MaxPool](layer, (), values, Pass())

    leaving = Interval(*(largest(function(bound)) for bound in (low, high)), before.interval.box, False)

    def scattered(variance: torch.Tensor) -> torch.Tensor:
        size = torch.maximum(function(low).abs(), function(high).abs())
        return largest(_errors(curve, low, high, size, variance))

    if not before.optimises:
        return Passage(leaving, pulled, scattered, linear=False)
    nothing, free = windows == count, curve.free
    ends = [seen(bound).masked_fill(nothing, 0.0) for bound in (low, high)]
    first = torch.zeros_like(ends[0]).scatter(-2, central, 1.0)
    return Passage(leaving, pulled, scattered, False, (first, *free.starts(*ends)), chosen)


def pixels_of_windows(layer: MaxPool, shape: Shape, device: torch.device) -> torch.Tensor:
    """The pixels of each window as places in the flat image, one more where there is none: [pixels, windows]."""
    height, width, channels = shape
    rows, columns = (
        torch.arange(side.count, device=device) * side.stride
        + torch.arange(side.size, device=device)[:, None]
        - side.before
        for side in layer.windows(shape)
    )
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[None, :, None]
    pixels = rows[:, None, :, None] * width + columns[None, :, None]
    places = pixels[..., None] * channels + torch.arange(channels, device=device)
    return torch.where(inside[..., None], places, height * width * channels).flatten(2).flatten(0, 1)


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _straight(low: torch.Tensor, high: torch.Tensor, slopes: None = None) -> Lines:
    return torch.ones_like(low), torch.zeros_like(low), torch.ones_like(low), torch.zeros_like(low)


def _nowhere(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(low, dtype=torch.bool)


IDENTITY = Curve(_straight, _nowhere, _nowhere, 1, 0)
