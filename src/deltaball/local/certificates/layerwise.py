"""Bounds of networks of any layers, one layer after the other."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

import torch

from deltaball.local.certificates.affine import (
    batch_norm,
    convolution,
    dense,
    flatten,
    mean,
    normalise,
    same,
    scale,
    subsample,
)
from deltaball.local.certificates.curved import ELEMENTWISE, curved, pooled
from deltaball.local.certificates.normalised import group_norm, standardise
from deltaball.local.certificates.optimised import Choices
from deltaball.local.certificates.passages import Before, Enclosure, Interval, Passage, Pulled, after, least, pulled
from deltaball.local.certificates.rounding import DEVIATIONS, UNIT
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
    GroupNorm,
    Layers,
    LeakyReLU,
    MaxPool,
    Normalise,
    Residual,
    Scale,
    Shape,
    Standardise,
    Subsample,
    rule_for,
)
from deltaball.networks.models import Layered


def by_layers(model: Layered, around: Neighbourhood, by: str) -> Enclosure:
    weights = [weight.to(torch.float64) for weight in model.weights]
    start = images(model, around, by)
    chain = passages(model.layers, weights, start)
    others = None
    if by == "crown" and _several(model.layers):
        others = passages(model.layers, weights, replace(start, others=True))

    def lower(rows: torch.Tensor) -> torch.Tensor:
        found = _by_intervals(chain, start, rows)
        if by != "ibp":
            found = torch.maximum(found, after(start, chain).best(rows))
        return found if others is None else torch.maximum(found, after(start, others).lower(rows))

    variance = torch.zeros_like(start.interval.low)
    for passage in chain:
        variance = passage.scattered(variance)
    return Enclosure(lower, DEVIATIONS * variance.sqrt())


def images(model: Layered, around: Neighbourhood, by: str) -> Before:
    """What is known of the images."""
    shape, networks = model.layers.shape, len(model)
    low, high = ((around.centre + displacement).unflatten(-1, shape) for displacement in around.box)
    low, high = (bound.expand(networks, *bound.shape[-4:]) for bound in (low, high))

    def lower(coefficients: torch.Tensor, choices: Choices = ()) -> torch.Tensor:
        flat = coefficients.flatten(3)
        centre = around.centre.expand(networks, *around.centre.shape[-2:])
        return torch.einsum("knru,knu->knr", flat, centre) + around.minimum(flat)

    interval = Interval(low, high, exact=True, box=around.is_box)
    return Before(interval, lower, linear=True, by=by, others=False, widest=max(model.layers.activations))


def passages(layers: Layers, weights: Sequence[torch.Tensor], start: Before) -> tuple[Passage, ...]:
    """Through one layer after the other, with weights in float64."""
    found: tuple[Passage, ...] = ()
    activation = None
    for (layer, shape, own), following in zip_longest(layers.with_weights(weights), layers.sequence[1:]):
        if type(layer) in ELEMENTWISE and isinstance(following, MaxPool):
            activation = layer
            continue
        before = after(start, found)
        if activation:
            passage = pooled(layer, shape, own, before, activation)
        else:
            passage = rule_for(PASSAGES, type(layer), "certificate")(layer, shape, own, before)
        found, activation = (*found, passage), None
    return found


def _residual(layer: Residual, shape: Shape, weights: Sequence[torch.Tensor], before: Before) -> Passage:
    body, shortcut = layer.branches(shape)
    count = len(body.weights)
    branches = passages(body, weights[:count], before), passages(shortcut, weights[count:], before)
    ends = [after(before, branch).interval for branch in branches]
    leaving = Interval(ends[0].low + ends[1].low, ends[0].high + ends[1].high, exact=False, box=False)

    def backwards(coefficients: torch.Tensor) -> Pulled:
        (one, offset), (other, more) = (pulled(branch, coefficients) for branch in branches)
        return one + other, offset + more

    def scattered(variance: torch.Tensor) -> torch.Tensor:
        # Both branches see the same errors, which may add up.
        deviation = (UNIT * leaving.size) ** 2
        total = torch.zeros_like(deviation)
        for branch in branches:
            own = variance
            for passage in branch:
                own = passage.scattered(own)
            total = total + own.sqrt()
        return total**2 + deviation

    linear = all(passage.linear for branch in branches for passage in branch)
    return Passage(leaving, backwards, scattered, linear)


def _several(layers: Layers) -> bool:
    """Whether an activation has other lines too."""
    kinds = (ELEMENTWISE[type(layer)](layer)[0] for layer, _ in layers.within() if type(layer) in ELEMENTWISE)
    return any(curve.others for curve in kinds)


def _by_intervals(chain: Sequence[Passage], start: Before, rows: torch.Tensor) -> torch.Tensor:
    """Lower bounds of rows · logits, the rows merged with the linear layers at the end; exact where all are."""
    first = max((place + 1 for place, passage in enumerate(chain) if not passage.linear), default=0)
    coefficients, offset = pulled(chain[first:], rows)
    entering = after(start, chain[:first])
    return offset + (least(coefficients, entering.interval) if first else entering.lower(coefficients))


# How each layer is passed, given the shape of what enters it, its weights in float64 and what is known before it.
PASSAGES = {
    Dense: dense,
    Conv: convolution,
    Activation: curved,
    LeakyReLU: curved,
    Clamp: curved,
    MaxPool: pooled,
    AveragePool: mean,
    GlobalAveragePool: mean,
    BatchNorm: batch_norm,
    GroupNorm: group_norm,
    Standardise: standardise,
    Scale: scale,
    Normalise: normalise,
    Dropout: same,
    Flatten: flatten,
    Subsample: subsample,
    Residual: _residual,
}
