"""The bounds of CROWN-IBP (Zhang et al. 2020, Section 3): linear ones backwards, differentiable by weights.

Coefficients are [K, n, r, *shape], of r sums of the numbers of a layer; a sum is bounded from below.
"""

from collections.abc import Sequence

import torch

from deltaball.networks.arithmetic import product
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
    LeakyReLU,
    MaxPool,
    Normalise,
    Residual,
    Scale,
    Subsample,
    rule_for,
)
from deltaball.networks.packs import rule_of
from deltaball.training.objectives.intervals import Bounding, Interval, Passed

Pulled = tuple[torch.Tensor, torch.Tensor]

# Slopes and offsets of the line below a curve and of that above it.
Lines = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

TINY = 1e-12


def pulled(passed: Sequence[Passed], coefficients: torch.Tensor, bounding: Bounding) -> Pulled:
    """Coefficients of what enters the first layer and an offset [K, n, r], together a bound of what leaves the last."""
    offset = coefficients.new_zeros(())
    for one in reversed(passed):
        coefficients, more = rule_for(PULLED, type(one.layer), "CROWN-IBP")(one, coefficients, bounding)
        offset = offset + more
    return coefficients, offset


def least(coefficients: torch.Tensor, interval: Interval) -> torch.Tensor:
    """The least values [K, n, r] of sums of numbers in an interval."""
    low, high = (bound[:, :, None] for bound in interval)
    return _sum(coefficients, (low + high) / 2) - _sum(coefficients.abs(), (high - low) / 2)


def _dense(one: Passed, coefficients: torch.Tensor, bounding: Bounding) -> Pulled:
    kernel, *bias = one.weights
    found = product(coefficients.flatten(1, 2), kernel.transpose(1, 2)).unflatten(1, coefficients.shape[1:3])
    return found, _sum(coefficients, bias[0][:, None, None]) if bias else coefficients.new_zeros(())


def _linear(one: Passed, coefficients: torch.Tensor, bounding: Bounding) -> Pulled:
    """By the gradient of the layer, which is the same everywhere."""
    flat = coefficients.flatten(1, 2)
    still = flat.new_zeros(*flat.shape[:2], *one.shape, requires_grad=True)
    constant = rule_of(one.layer)(one.layer, one.weights, still, bounding.way)
    (found,) = torch.autograd.grad(constant, still, flat, create_graph=True)
    offset = (flat * constant).flatten(2).sum(2)
    return found.unflatten(1, coefficients.shape[1:3]), offset.unflatten(1, coefficients.shape[1:3])


def _scale(one: Passed, coefficients: torch.Tensor, bounding: Bounding) -> Pulled:
    still = torch.zeros_like(one.entering.low)
    shift = rule_of(one.layer)(one.layer, one.weights, still, bounding.way)
    slope = rule_of(one.layer)(one.layer, one.weights, still + 1, bounding.way) - shift
    return coefficients * slope[:, :, None], _sum(coefficients, shift[:, :, None])


def _same(one: Passed, coefficients: torch.Tensor, bounding: Bounding) -> Pulled:
    return coefficients, coefficients.new_zeros(())


def _flatten(one: Passed, coefficients: torch.Tensor, bounding: Bounding) -> Pulled:
    return coefficients.unflatten(3, one.shape), coefficients.new_zeros(())


def _residual(one: Passed, coefficients: torch.Tensor, bounding: Bounding) -> Pulled:
    (found, offset), (other, more) = (pulled(branch, coefficients, bounding) for branch in one.branches)
    return found + other, offset + more


def _max_pool(one: Passed, coefficients: torch.Tensor, bounding: Bounding) -> Pulled:
    """A maximum is at least the pixel with the largest lower bound, and at most the largest upper bound."""
    rule, (low, high) = rule_of(one.layer), one.entering
    positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
    every = low.detach()[:, :, None].expand(*coefficients.shape[:3], *one.shape).flatten(1, 2).requires_grad_()
    largest = rule(one.layer, (), every, bounding.way)
    (found,) = torch.autograd.grad(largest, every, positive.flatten(1, 2), create_graph=True)
    offset = _sum(negative, rule(one.layer, (), high, bounding.way)[:, :, None])
    return found.unflatten(1, coefficients.shape[1:3]), offset


def _curve(one: Passed, coefficients: torch.Tensor, bounding: Bounding) -> Pulled:
    ends = Interval(*(rule_of(one.layer)(one.layer, (), bound, bounding.way) for bound in one.entering))
    lower, lower_offset, upper, upper_offset = (part[:, :, None] for part in _lines(one.layer, one.entering, ends))
    positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
    offset = _sum(positive, lower_offset) + _sum(negative, upper_offset)
    return positive * lower + negative * upper, offset


def _lines(layer: Activation | LeakyReLU | Clamp, entering: Interval, ends: Interval) -> Lines:
    match layer:
        case LeakyReLU(slope):
            return _bent(slope, entering, ends)
        case Activation("relu"):
            return _bent(0.0, entering, ends)
        case Activation(name):
            steepness = torch.minimum(*map(rule_for(STEEPNESS, name, "CROWN-IBP"), ends))
        case Clamp(low, high):
            steepness = ((entering.low >= low) & (entering.high <= high)).to(ends.low.dtype)
    # Through the ends, as steep as the curve is least: it is steepest in the middle.
    lower, upper = (end - steepness * bound for end, bound in zip(ends, entering, strict=True))
    return steepness, lower, steepness, upper


# How steep an activation is where it has these values.
STEEPNESS = {"tanh": lambda values: 1 - values**2, "sigmoid": lambda values: values * (1 - values)}


def _bent(slope: float, entering: Interval, ends: Interval) -> Lines:
    """Of a ReLU that has `slope` below 0: the chord above, and below it the one of its two sides that is closer."""
    low, high = entering
    one, other = torch.ones_like(low), torch.full_like(low, slope)
    chord = (ends.high - ends.low) / (high - low).clamp(min=TINY)
    upper = torch.where(low >= 0, one, torch.where(high <= 0, other, chord))
    lower = torch.where((low >= 0) | ((high > 0) & (high > -low)), one, other)
    return lower, torch.zeros_like(low), upper, ends.low - upper * low


def _sum(coefficients: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[K, n, r] of coefficients [K, n, r, *shape] and values [K, n or 1, 1, *shape], the same for all sums."""
    return (coefficients.flatten(3) @ values.flatten(3).transpose(2, 3)).squeeze(3)


PULLED = {
    Dense: _dense,
    Conv: _linear,
    Activation: _curve,
    LeakyReLU: _curve,
    Clamp: _curve,
    MaxPool: _max_pool,
    AveragePool: _linear,
    GlobalAveragePool: _linear,
    BatchNorm: _scale,
    Scale: _scale,
    Normalise: _linear,
    Dropout: _same,
    Subsample: _linear,
    Residual: _residual,
    Flatten: _flatten,
}
