"""How bounds pass through layers that are affine in evaluation mode."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch.nn import functional

from deltaball.local.certificates.passages import Before, Interval, Passage, Pulled, dot
from deltaball.local.certificates.rounding import UNIT
from deltaball.networks.layers import (
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    Layer,
    Normalise,
    Scale,
    Shape,
    Subsample,
)
from deltaball.networks.packs import FORWARD, Pass, along_channels

Linear = Callable[[torch.Tensor], torch.Tensor]

# Of a normalisation: some four operations, each off by up to two units of rounding.
NORMALISING = 16


def affine(
    before: Before,
    applied: Linear,
    sizes: Linear,
    squares: Linear,
    pulled: Callable[[torch.Tensor], torch.Tensor],
    bias: torch.Tensor | None,
    errors: Linear,
    elementwise: bool = False,
) -> Passage:
    """x ↦ applied(x) + bias, [K, n, *shape] → [K, n, *shape].

    `sizes` and `squares` are `applied` with the magnitudes and the squares of its coefficients, `pulled` is its
    transpose, and `errors` the variances of its own rounding errors, given magnitudes of what enters.
    """
    low, high, exact, box = before.interval
    middle, reach = applied((low + high) / 2), sizes((high - low) / 2)
    middle = middle if bias is None else middle + bias
    leaving = Interval(middle - reach, middle + reach, exact if elementwise else box, box and elementwise)

    def backwards(coefficients: torch.Tensor) -> Pulled:
        zero = coefficients.new_zeros(coefficients.shape[:3])
        return pulled(coefficients), zero if bias is None else dot(coefficients, bias.expand_as(middle))

    def scattered(variance: torch.Tensor) -> torch.Tensor:
        return squares(variance) + errors(before.interval.size)

    return Passage(leaving, backwards, scattered, linear=True)


def dense(layer: Dense, shape: Shape, weights: Sequence[torch.Tensor], before: Before) -> Passage:
    kernel, *bias = weights
    return _weighted(
        lambda kernel, x: x @ kernel,
        lambda coefficients: (coefficients.flatten(1, 2) @ kernel.mT).unflatten(1, coefficients.shape[1:3]),
        kernel,
        bias[0][:, None] if bias else None,
        before,
    )


def convolution(layer: Conv, shape: Shape, weights: Sequence[torch.Tensor], before: Before) -> Passage:
    kernel, *bias = weights

    def applied(kernel: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return FORWARD[Conv](replace(layer, bias=False), [kernel], x, Pass())

    pulled = transposed_convolution(layer, shape, kernel)
    return _weighted(applied, pulled, kernel, bias[0][:, None, None, None] if bias else None, before)


def transposed_convolution(layer: Conv, shape: Shape, kernel: torch.Tensor) -> Linear:
    """The transpose of a convolution of [K, m, *shape], of coefficients [K, n, r, ...]."""
    (height, width, _), (top, _, left, _) = shape, layer.sides(shape)
    filters = kernel.permute(0, 4, 3, 1, 2)

    def pulled(coefficients: torch.Tensor) -> torch.Tensor:
        maps = coefficients.flatten(1, 2).movedim(-1, -3)
        wide = [functional.conv_transpose2d(*own, stride=layer.stride) for own in zip(maps, filters, strict=True)]
        seen = torch.stack(wide)
        right, bottom = left + width - seen.shape[-1], top + height - seen.shape[-2]
        return functional.pad(seen, (-left, right, -top, bottom)).movedim(-3, -1).unflatten(1, coefficients.shape[1:3])

    return pulled


def _weighted(
    applied: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    pulled: Linear,
    kernel: torch.Tensor,
    bias: torch.Tensor | None,
    before: Before,
) -> Passage:
    products, magnitudes, squares = math.prod(kernel.shape[1:-1]), kernel.abs(), kernel.square()

    def errors(size: torch.Tensor) -> torch.Tensor:
        terms = applied(magnitudes, size)
        return rounded(terms if bias is None else terms + bias.abs(), products + 1)

    return affine(
        before,
        lambda x: applied(kernel, x),
        lambda x: applied(magnitudes, x),
        lambda x: applied(squares, x),
        pulled,
        bias,
        errors,
    )


def rounded(terms: torch.Tensor, roundings: int) -> torch.Tensor:
    """The variance of a float32 sum of these magnitudes; infinite where it may overflow."""
    variance = roundings * (UNIT * terms) ** 2
    return torch.where(terms < torch.finfo(torch.float32).max, variance, torch.inf)


def mean(
    layer: AveragePool | GlobalAveragePool, shape: Shape, weights: Sequence[torch.Tensor], before: Before
) -> Passage:
    count = layer.size**2 if isinstance(layer, AveragePool) else shape[0] * shape[1]

    def applied(x: torch.Tensor) -> torch.Tensor:
        return FORWARD[type(layer)](layer, weights, x, Pass())

    def errors(size: torch.Tensor) -> torch.Tensor:
        return rounded(count * applied(size), count + 1) / count**2

    # The variance of a mean is at most the mean of the variances, however errors depend on each other.
    return affine(before, applied, applied, applied, transposed(applied, shape), None, errors)


def subsample(layer: Subsample, shape: Shape, weights: Sequence[torch.Tensor], before: Before) -> Passage:
    def applied(x: torch.Tensor) -> torch.Tensor:
        return FORWARD[Subsample](layer, weights, x, Pass())

    return affine(
        before, applied, applied, applied, transposed(applied, shape), None, lambda size: applied(size) * 0, True
    )


def transposed(applied: Linear, shape: Shape) -> Linear:
    """The transpose of a linear function of [K, m, *shape], of coefficients [K, n, r, ...]."""

    def pulled(coefficients: torch.Tensor) -> torch.Tensor:
        flat = coefficients.flatten(1, 2)
        with torch.enable_grad():
            x = flat.new_zeros(*flat.shape[:2], *shape).requires_grad_()
            (found,) = torch.autograd.grad(applied(x), x, flat)
        return found.unflatten(1, coefficients.shape[1:3])

    return pulled


def batch_norm(layer: BatchNorm, shape: Shape, weights: Sequence[torch.Tensor], before: Before) -> Passage:
    gamma, beta, mean, variance = weights
    scale = gamma * (variance + layer.epsilon).rsqrt()
    return _scaled(scale, beta - mean * scale, (mean * scale).abs() + beta.abs(), before)


def normalise(layer: Normalise, shape: Shape, weights: Sequence[torch.Tensor], before: Before) -> Passage:
    low = before.interval.low
    mean, deviation = (low.new_tensor(values)[None] for values in (layer.mean, layer.deviation))
    return _scaled(1 / deviation, -mean / deviation, (mean / deviation).abs(), before)


def scale(layer: Scale, shape: Shape, weights: Sequence[torch.Tensor], before: Before) -> Passage:
    scale, shift = weights
    return _scaled(scale, shift, shift.abs(), before)


def _scaled(scale: torch.Tensor, shift: torch.Tensor, beside: torch.Tensor, before: Before) -> Passage:
    """scale · x + shift for each channel; `beside` are the magnitudes of what is added on the way."""
    scale, shift, beside = (along_channels(values, before.interval.low) for values in (scale, shift, beside))

    def errors(size: torch.Tensor) -> torch.Tensor:
        return rounded(scale.abs() * size + beside, NORMALISING)

    return affine(
        before,
        lambda x: scale * x,
        lambda x: scale.abs() * x,
        lambda x: scale.square() * x,
        lambda coefficients: coefficients * scale[:, None],
        shift,
        errors,
        elementwise=True,
    )


def same(layer: Layer, shape: Shape, weights: Sequence[torch.Tensor], before: Before) -> Passage:
    return _reshaped(before, before.interval.low.shape[2:])


def flatten(layer: Flatten, shape: Shape, weights: Sequence[torch.Tensor], before: Before) -> Passage:
    return _reshaped(before, layer.output(shape))


def _reshaped(before: Before, after: Shape) -> Passage:
    low, high, exact, box = before.interval
    leading, shape = low.shape[:2], low.shape[2:]

    def pulled(coefficients: torch.Tensor) -> Pulled:
        offset = coefficients.new_zeros(coefficients.shape[:3])
        return coefficients.reshape(*coefficients.shape[:3], *shape), offset

    leaving = Interval(low.reshape(*leading, *after), high.reshape(*leading, *after), exact, box)
    return Passage(leaving, pulled, lambda variance: variance.reshape(*leading, *after), linear=True)
