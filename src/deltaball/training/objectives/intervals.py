"""Intervals and lines through networks in training: differentiable by weights, and as fast as passes.

What certificates do with care for rounding (`local.certificates`) is here done in float32 and proves nothing: networks
are trained by these bounds, and certified by those. Numbers per image are [K, n, *shape].
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch

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
from deltaball.networks.packs import Pass, rule_of
from deltaball.training.passes import Seen

Weights = Sequence[torch.Tensor]


class Interval(NamedTuple):
    """Bounds of what lies between two layers."""

    low: torch.Tensor
    high: torch.Tensor


@dataclass(frozen=True)
class Bounding:
    """A way of boxes through K networks: how convolutions are computed, and what batch normalisations saw last.

    They normalise a box by what they saw of the images, as constants; by their averages if they saw nothing. Dropout
    lets everything pass: what is bounded is the network that will be measured.
    """

    convolution: str
    seen: Iterator[Seen]

    @classmethod
    def of(cls, networks: Layered) -> Self:
        return cls(networks.convolution, iter(networks.seen))

    def through(self, layers: Layers, weights: Weights, entering: Interval) -> "tuple[Interval, list[Passed]]":
        """What leaves the last layer, and for each layer what `pulled` has to know."""
        passed = []
        for layer, shape, own in layers.with_weights(weights):
            rule = rule_for(INTERVALS, type(layer), "interval")
            one = Passed(layer, shape, own, entering)
            entering = rule(one, self)
            passed.append(one)
        return entering, passed

    @property
    def way(self) -> Pass:
        return Pass(self.convolution)


@dataclass
class Passed:
    """A layer that a box went through, and for a residual one what its branches are made of."""

    layer: Layer
    shape: Shape  # of what enters it
    weights: Weights
    entering: Interval
    branches: "tuple[list[Passed], ...]" = ()


def _affine(one: Passed, bounding: Bounding) -> Interval:
    """The centre as any image, and the radius by the kernel's magnitudes."""
    rule, (low, high) = rule_of(one.layer), one.entering
    centre = rule(one.layer, one.weights, (low + high) / 2, bounding.way)
    radius = rule(one.layer, [one.weights[0].abs()], (high - low) / 2, bounding.way)
    return Interval(centre - radius, centre + radius)


def _rising(one: Passed, bounding: Bounding) -> Interval:
    """Each bound by itself: no number that leaves falls where one that enters rises."""
    rule = rule_of(one.layer)
    return Interval(*(rule(one.layer, one.weights, bound, bounding.way) for bound in one.entering))


def _scaled(one: Passed, bounding: Bounding) -> Interval:
    ends = [rule_of(one.layer)(one.layer, one.weights, bound, bounding.way) for bound in one.entering]
    return Interval(torch.minimum(*ends), torch.maximum(*ends))


def _batch_norm(one: Passed, bounding: Bounding) -> Interval:
    gamma, beta, *averages = one.weights
    seen = next(bounding.seen, None)
    # For what goes backwards too.
    one.weights = (gamma, beta, *(averages if seen is None else (seen.mean, seen.variance)))
    return _scaled(one, bounding)


def _same(one: Passed, bounding: Bounding) -> Interval:
    return one.entering


def _residual(one: Passed, bounding: Bounding) -> Interval:
    body, shortcut = one.layer.branches(one.shape)
    count = len(body.weights)
    pairs = ((body, one.weights[:count]), (shortcut, one.weights[count:]))
    ends, one.branches = zip(*(bounding.through(*pair, one.entering) for pair in pairs), strict=True)
    return Interval(ends[0].low + ends[1].low, ends[0].high + ends[1].high)


# What leaves each layer.
INTERVALS = {
    Dense: _affine,
    Conv: _affine,
    Activation: _rising,
    LeakyReLU: _rising,
    Clamp: _rising,
    MaxPool: _rising,
    AveragePool: _rising,
    GlobalAveragePool: _rising,
    BatchNorm: _batch_norm,
    Scale: _scaled,
    Normalise: _rising,
    Dropout: _same,
    Subsample: _rising,
    Residual: _residual,
    Flatten: _rising,
}
