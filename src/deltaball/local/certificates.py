"""Certificates: lower bounds of differences of logits over a whole ball, for K networks × n points × rows at once.

``ibp`` is interval bound propagation (Gowal et al. 2018, "On the effectiveness of interval bound propagation for
training verifiably robust models"). ``crown`` is backward linear bound propagation (Zhang et al. 2018, "Efficient
neural network robustness certification with general activation functions"): every activation is enclosed by two lines
over the bounds of its input, a linear function of the logits is pulled back through them to the image, and its minimum
over the ball is exact. What is decided by intervals is not bounded again by CROWN.

Proven: the bounds hold in real arithmetic for the network whose weights are the stored float32 numbers, at every point
of the ball. Trusted: the float64 rounding of the bounds themselves; and that the forward pass in float32, which attacks
see, stays as close to the real one as `rounding` estimates, an allowance that `differences` subtracts: it sums in
float32 in whatever order (no TF32, no Winograd or Fourier convolution), with tanh and sigmoid correct to 4 units in the
last place. Without an allowance rounding alone breaks certificates (Jia & Rinard 2020, "Exploiting verified neural
networks via floating point numerical error"). The worst case over all roundings would be some hundred times the
estimate and would cost certificates; the estimate is still some forty times what is observed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch.nn import functional

from deltaball.architectures import Activation, Conv, Dense, Layers, MaxPool
from deltaball.local.neighbourhoods import Ball, LinfBall, Neighbourhood
from deltaball.packs import ACTIVATIONS, Pack

# Coefficients (networks × points × rows × units of the widest layer) held at once, 8 bytes each; a few such tensors
# live at a time. On a CPU they should stay in its caches.
ELEMENTS = {"cpu": 2**18, "cuda": 2**26}
UNIT = 2.0**-24  # unit roundoff of float32

Bounds = list[tuple[torch.Tensor, torch.Tensor]]


@torch.no_grad()
def differences(pack: Pack, x: torch.Tensor, ball: Ball, by: str, every: bool) -> torch.Tensor:
    """float64 [K, n, classes, classes]: entry [i, j] ≤ the minimum of logit i - logit j over the ball.

    x is [n, h, w, c], shown to every network, or [K, n, h, w, c]; `by` is ibp or crown. Unless `every`, only the row
    of the class predicted at the point is computed and the others are -inf. All are NaN, which no notion certifies,
    where a network's weights are not finite or its float32 forward pass might overflow.
    """
    networks, points, classes = len(pack), x.shape[-4], pack.weights[-1].shape[-1]
    found = torch.empty((networks, points, classes, classes), dtype=torch.float64, device=x.device)
    widest = max(math.prod(x.shape[-3:]), *(stage.units for stage in _stages(pack.layers, pack.weights)))
    pairs = max(1, ELEMENTS[x.device.type] // (widest * (classes - 1) * (classes if every else 1)))
    several, some = max(1, pairs // points), min(pairs, points)
    for k in range(0, networks, several):
        part = Pack(pack.layers, tuple(weight[k : k + several] for weight in pack.weights))
        stages = _stages(part.layers, part.weights)
        for n in range(0, points, some):
            seen = (x[k : k + several] if x.ndim == 5 else x)[..., n : n + some, :, :, :]
            predicted = None if every else part(seen).argmax(-1)
            found[k : k + several, n : n + some] = _differences(
                stages, _arranged(stages, ball.around(seen)), by, predicted
            )
    return found


def layer_bounds(layers: Layers, weights: Sequence[torch.Tensor], around: Neighbourhood, by: str) -> Bounds:
    """Lower and upper bounds of what enters each Activation layer: float64 [K, n, units] each, flat.

    The first layer's are exact. `by` crown, the others are intersections of intervals with CROWN's bounds; these are
    computed only for the units on whose bounds a relaxation depends: of a ReLU those that intervals leave undecided,
    of a max-pool those that may be the largest. Units that a max-pool drops, which nothing reads, get wide ones.
    Points are not chunked, rows are.
    """
    stages = _stages(layers, weights)
    bounds, _ = _bounds(stages, _arranged(stages, around), by)
    found, size = [], around.x.new_ones(around.x.shape[-4], dtype=torch.float64)
    for stage, (low, high) in zip(stages, bounds, strict=False):
        total = stage.kernel.abs().flatten(2).sum(-1).amax(-1, keepdim=True)
        wide = total * size + stage.bias.abs().amax(-1, keepdim=True)
        found.append((stage.outer(low, -wide), stage.outer(high, wide)))
        size = torch.maximum(*(_activated(stage, bound).abs().amax(-1) for bound in (low, high)))
    return found


def backward(
    layers: Layers,
    weights: Sequence[torch.Tensor],
    around: Neighbourhood,
    rows: torch.Tensor,
    bounds: Bounds,
    slopes: Sequence[torch.Tensor] | None = None,
    multipliers: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """CROWN's lower bounds [K, n, r] of rows [K, n, r, classes] · logits over the ball, by `layer_bounds`' bounds.

    The bounds may have been tightened: then what is bounded is the part of the ball where they hold (a subproblem of
    branch and bound). Points and rows are not chunked. One tensor per Activation layer, each [K, n, 1 or r, units],
    differentiable where `around.minimum` is:

    slopes: of ReLU's lower line, in [0, 1], used where a unit is undecided (α-CROWN, Xu et al. 2021, "Fast and
    complete"); else 0 or 1, whichever leaves the smaller area.
    multipliers: added to the coefficients of what enters the layer (β-CROWN, Wang et al. 2021): for a unit split
    to ≥ 0 any number ≤ 0, for one split to ≤ 0 any number ≥ 0, else 0.
    """
    stages = _stages(layers, weights)
    around = _arranged(stages, around)
    relaxations = []
    for index, stage in enumerate(stages[:-1]):
        low, high = (stage.inner(bound) for bound in bounds[index])
        own = None if slopes is None else stage.inner(slopes[index])
        relaxations.append(_relaxation(stage, low, high, _anchor(stages, index, around), own))
    added = None if multipliers is None else [stage.inner(one) for stage, one in zip(stages, multipliers, strict=False)]
    return _of_rows(stages, relaxations, around, rows, added)


def rounding(layers: Layers, weights: Sequence[torch.Tensor], around: Neighbourhood, bounds: Bounds) -> torch.Tensor:
    """How far a logit computed in float32 may be from the real one, anywhere in the ball: float64 [K, n, classes].

    Six standard deviations of a model, not a proof: roundings are independent and of mean zero, so that a sum of m
    products is off by √m u Σ|w x| (Higham & Mary 2019, "A new approach to probabilistic rounding error analysis"), and
    a layer adds the variances of its inputs' errors. Infinite or NaN where a sum may overflow. `bounds` are
    `layer_bounds`'.
    """
    stages = _stages(layers, weights)
    inner = [tuple(stage.inner(one) for one in pair) for stage, pair in zip(stages, bounds, strict=False)]
    return _rounding(stages, _arranged(stages, around), inner)


# ---- the network as stages ----


@dataclass(frozen=True)
class _Stage:
    """An affine layer with the activation and the 2×2 max-pool that follow it, if any.

    Inside this module images are flat in the order [channels, h, w]. Where a pool follows, the units that enter the
    activation come in four phases, the corners of the pools: [4, channels, h, w] with the pool's h and w. So a
    convolution with its pool is a convolution of stride 2 with four times the channels, and rows or columns that the
    pool drops do not exist.

    `kernel` is float64, of Dense [K, inputs, outputs], of Conv [K, phases × filters, inputs, size, size]; `bias` is
    [K, units].
    """

    layer: Dense | Conv
    kernel: torch.Tensor
    bias: torch.Tensor
    activation: str | None
    stride: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what leaves the stage."""
        if isinstance(self.layer, Dense):
            return (self.layer.outputs, 1, 1)
        return (self.layer.outputs, self.layer.height // self.stride, self.layer.width // self.stride)

    @property
    def phases(self) -> int:
        return self.stride**2

    @property
    def units(self) -> int:
        """How many units enter the activation."""
        return self.phases * math.prod(self.shape)

    @property
    def fan_in(self) -> int:
        return math.prod(self.layer.kernel[:-1])

    @property
    def _padding(self) -> list[int]:
        """What 'same' adds to an image: left, right, top, bottom; negative where a dropped row is not read."""
        (_, height, width), layer = self.shape, self.layer
        before = (layer.size - 1) // 2
        beyond = layer.size - 1 - before
        return [
            before,
            self.stride * width - layer.width + beyond,
            before,
            self.stride * height - layer.height + beyond,
        ]

    def at(self, x: torch.Tensor) -> torch.Tensor:
        """What the affine layer computes of x [n, inputs] or [K, n, inputs]: [K, n, units]."""
        return self._applied(self.kernel, x) + self.bias[:, None]

    def magnitudes(self, x: torch.Tensor) -> torch.Tensor:
        """The same with |kernel| and without bias: how far the outputs move when each input moves by up to x."""
        return self._applied(self._sizes, x)

    def scattered(self, variances: torch.Tensor) -> torch.Tensor:
        """Variances of its outputs, given those of its inputs."""
        return self._applied(self._squares, variances)

    @cached_property
    def _squares(self) -> torch.Tensor:
        return self.kernel.square()

    @cached_property
    def _sizes(self) -> torch.Tensor:
        return self.kernel.abs()

    def _applied(self, kernel: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.layer, Dense):
            return x @ kernel
        layer = self.layer
        images = x.expand(len(kernel), *x.shape[-2:]).unflatten(-1, (layer.inputs, layer.height, layer.width))
        images = functional.pad(images, self._padding)
        convolved = [functional.conv2d(*one, stride=self.stride) for one in zip(images, kernel, strict=True)]
        return torch.stack(convolved).flatten(2)

    def pulled(self, coefficients: torch.Tensor, size: int | None = None) -> torch.Tensor:
        """Coefficients [K, n, r, units] of the affine layer's outputs as coefficients of its inputs.

        With `size`, they are of a square window of so many units, and so are the inputs', which reach beyond the image.
        """
        leading, flat = coefficients.shape[1:3], coefficients.flatten(1, 2)
        if isinstance(self.layer, Dense):
            return (flat @ self.kernel.transpose(-1, -2)).unflatten(1, leading)
        images = flat.unflatten(-1, (-1, size, size) if size else (-1, *self.shape[1:]))
        pulled = [
            functional.conv_transpose2d(*one, stride=self.stride) for one in zip(images, self.kernel, strict=True)
        ]
        pulled = torch.stack(pulled)
        if not size:
            pulled = functional.pad(pulled, [-beyond for beyond in self._padding])
        return pulled.flatten(2).unflatten(1, leading)

    def inner(self, units: torch.Tensor) -> torch.Tensor:
        """Numbers per unit in the order of the layer list, [..., h w channels], in this module's."""
        if isinstance(self.layer, Dense):
            return units
        (channels, height, width), stride = self.shape, self.stride
        maps = units.unflatten(-1, (self.layer.height, self.layer.width, channels))
        maps = maps[..., : stride * height, : stride * width, :]
        maps = maps.unflatten(-2, (width, stride)).unflatten(-4, (height, stride))
        return maps.movedim((-4, -2, -1), (-5, -4, -3)).flatten(-5)

    def outer(self, units: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
        """The inverse of `inner`, with a number `dropped` [K, n] for the units that the pool drops."""
        if isinstance(self.layer, Dense):
            return units
        (channels, height, width), stride = self.shape, self.stride
        maps = units.unflatten(-1, (stride, stride, channels, height, width))
        maps = maps.movedim((-5, -4, -3), (-4, -2, -1)).flatten(-3, -2).flatten(-4, -3)
        whole = dropped[..., None, None, None].repeat(1, 1, self.layer.height, self.layer.width, channels)
        whole[..., : stride * height, : stride * width, :] = maps
        return whole.flatten(-3)


def _stages(layers: Layers, weights: Sequence[torch.Tensor]) -> list[_Stage]:
    groups, remaining, found = [], iter(weights), []
    for layer in layers:
        if isinstance(layer, Dense | Conv):
            groups.append([layer])
        elif isinstance(layer, Activation | MaxPool):
            groups[-1].append(layer)
    for affine, *rest in groups:
        assert [type(one) for one in rest] == [Activation, MaxPool][: len(rest)], "a max-pool follows an activation"
        kernel, bias = (next(remaining).to(torch.float64) for _ in range(2))
        stride = 2 if len(rest) == 2 else 1
        if isinstance(affine, Conv):
            filters = kernel.permute(0, 4, 3, 1, 2)
            last = stride - 1
            kernel = torch.cat(
                [functional.pad(filters, (b, last - b, a, last - a)) for a in range(stride) for b in range(stride)], 1
            )
        elif found and isinstance(found[-1].layer, Conv):
            channels, height, width = found[-1].shape
            kernel = kernel.unflatten(1, (height, width, channels)).movedim(3, 1).flatten(1, 3)
        stage = _Stage(affine, kernel, bias, rest[0].name if rest else None, stride)
        per_unit = bias[:, None, :, None].expand(-1, stage.phases, -1, math.prod(stage.shape[1:])).flatten(1)
        found.append(replace(stage, bias=per_unit))
    assert found[-1].activation is None, "a network ends in an affine layer"
    return found


def _arranged(stages: list[_Stage], around: Neighbourhood) -> Neighbourhood:
    """The same balls with pixels in the order that the first stage reads: [c, h, w] for a convolution."""
    return replace(around, x=around.x.movedim(-1, -3)) if isinstance(stages[0].layer, Conv) else around


# ---- intervals ----


def _activated(stage: _Stage, units: torch.Tensor) -> torch.Tensor:
    return _largest(stage, ACTIVATIONS[stage.activation](units))


def _largest(stage: _Stage, units: torch.Tensor) -> torch.Tensor:
    return units.unflatten(-1, (stage.phases, -1)).amax(-2)


def _by_intervals(stages: list[_Stage], around: Neighbourhood, bounds: Bounds, rows: torch.Tensor) -> torch.Tensor:
    """Lower bounds of rows · logits, the rows merged with the last layer; exact where that is the only one."""
    last = stages[-1]
    if len(stages) == 1:
        return _of_rows(stages, [], around, rows, None)
    coefficients = last.pulled(rows)
    low, high = (_activated(stages[-2], bound) for bound in bounds[-1])
    inner = _dot(coefficients.clamp(min=0), low) + _dot(coefficients.clamp(max=0), high)
    return inner + _dot(rows, last.bias[:, None])


# ---- lines around activations ----

Lines = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def relu_lines(low: torch.Tensor, high: torch.Tensor, slopes: torch.Tensor | None = None) -> Lines:
    """Slope and offset of a line below and of one above ReLU on [low, high]: the triangle's, elementwise.

    The lower slope is 0 or 1, whichever leaves the smaller area, or `slopes` where 0 is inside.
    """
    undecided = (low < 0) & (high > 0)
    on = (low >= 0).to(low.dtype)
    lower = torch.where(undecided, (high > -low).to(low.dtype) if slopes is None else slopes, on)
    upper = torch.where(undecided, high / (high - low), on)
    return lower, torch.zeros_like(low), upper, torch.where(undecided, -upper * low, 0.0)


def tanh_lines(low: torch.Tensor, high: torch.Tensor, slopes: None = None) -> Lines:
    """Slope and offset of a line below and of one above tanh on [low, high], elementwise; no slopes to choose."""
    # Chords need a width; a wider interval is sound.
    middle = (low + high) / 2
    least = 1e-8 * middle.abs().clamp(min=1)
    low, high = torch.minimum(low, middle - least), torch.maximum(high, middle + least)
    upper, upper_offset = _above_tanh(low, high)
    lower, lower_offset = _above_tanh(-high, -low)
    return lower, -lower_offset, upper, upper_offset


def sigmoid_lines(low: torch.Tensor, high: torch.Tensor, slopes: None = None) -> Lines:
    """Slope and offset of a line below and of one above the sigmoid: sigmoid(x) = (1 + tanh(x/2)) / 2."""
    lower, lower_offset, upper, upper_offset = tanh_lines(low / 2, high / 2)
    return lower / 4, (1 + lower_offset) / 2, upper / 4, (1 + upper_offset) / 2


LINES = {"relu": relu_lines, "tanh": tanh_lines, "sigmoid": sigmoid_lines}
TANGENTS = 4  # steps towards a tangent point, to float64


def _above_tanh(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slope and offset of a line above tanh on [low, high], low < high.

    tanh is convex below 0 and concave above. The chord is above it if it is no steeper than tanh at `high`. Else a
    tangent at a d ≥ 0: above tanh on all x ≥ 0, and on [low, 0] too once lifted, where need be, to be above at `low`.
    So any d ≥ 0 is sound; the smallest area is left by the d in the middle of [low, high] or, if that is too far
    left, by the d* whose tangent meets tanh in `low`.
    """
    left, right = low.tanh(), high.tanh()
    chord = (right - left) / (high - low)
    # The chord from `low` to d is steepest at d*, where its slope is tanh's own. So the point where tanh has the slope
    # of the chord to any d is at or right of d*, and closes in on it quadratically.
    negative = low.clamp(max=-1e-8)
    level = negative.tanh()
    touching = torch.zeros_like(negative)
    for _ in range(TANGENTS):
        touching = ((touching - negative) / (touching.tanh() - level)).sqrt().clamp(min=1).acosh()
    touching = torch.maximum(touching, (low + high) / 2)
    straight = (high <= 0) | (chord <= high.cosh() ** -2)
    slope = torch.where(straight, chord, touching.cosh() ** -2)
    at_right = torch.where(straight, right - slope * high, touching.tanh() - slope * touching)
    return slope, torch.maximum(at_right, left - slope * low)


def pool_lines(
    lines: Callable[..., Lines],
    function: Callable[[torch.Tensor], torch.Tensor],
    low: torch.Tensor,
    high: torch.Tensor,
    slopes: torch.Tensor | None = None,
) -> Lines:
    """Slopes [..., units, pools] and offsets [..., 1, pools] of functions below and above max over units function(x).

    Below: the line below the function at one unit, the one with the highest middle. Above: only the unit with the
    highest upper bound can exceed the others' upper bounds, so the maximum is below its chord over that unit's
    function, exact where that unit is always the largest; and that function is below its line.
    """
    chosen, highest = _first_largest(low + high), _first_largest(high)
    rival = function(high.scatter(-2, highest, -torch.inf).amax(-2, keepdim=True))
    if slopes is not None:
        slopes = slopes.gather(-2, chosen.expand(*slopes.shape[:-2], -1, -1))
    lower, lower_offset, _, _ = lines(low.gather(-2, chosen), high.gather(-2, chosen), slopes)
    low, high = low.gather(-2, highest), high.gather(-2, highest)
    _, _, upper, upper_offset = lines(low, high)
    least, most = function(low), function(high)
    floor = torch.maximum(least, rival)
    share = torch.where(most > least, (most - floor) / (most - least), 1.0)
    unit = torch.arange(4, device=low.device)[:, None]
    return (
        torch.where(unit == chosen, lower, 0.0),
        lower_offset,
        torch.where(unit == highest, share * upper, 0.0),
        share * upper_offset + floor - share * least,
    )


def _first_largest(values: torch.Tensor) -> torch.Tensor:
    """argmax(-2, keepdim=True), the first of several; several times faster than torch's over so few."""
    count = values.shape[-2]
    places = torch.arange(count, device=values.device)[:, None]
    # NaN equals nothing: any place will do.
    first = torch.where(values == values.amax(-2, keepdim=True), places, count).amin(-2, keepdim=True)
    return first.clamp(max=count - 1)


# ---- CROWN ----


class _Relaxation(NamedTuple):
    """Two linear functions of what enters a stage's activation that enclose what leaves the stage.

    Slopes are [K, n, 1 or r, phases, outputs], a pool's zero but at one of its four units; offsets [K, n, outputs].
    `anchor` [K, n or 1, units] is the affine layer's bias, of the first stage its value at the ball's centre, from
    where neighbourhoods count.
    """

    lower: torch.Tensor
    lower_offset: torch.Tensor
    upper: torch.Tensor
    upper_offset: torch.Tensor
    anchor: torch.Tensor


def _relaxation(
    stage: _Stage, low: torch.Tensor, high: torch.Tensor, anchor: torch.Tensor, slopes: torch.Tensor | None = None
) -> _Relaxation:
    """Lines around a stage's activation and pool for inputs in [low, high] ([K, n, units])."""
    lines = LINES[stage.activation]
    low, high = (bound.unflatten(-1, (stage.phases, -1))[:, :, None] for bound in (low, high))
    if slopes is not None:
        slopes = slopes.unflatten(-1, (stage.phases, -1))
    if stage.phases > 1:
        found = pool_lines(lines, ACTIVATIONS[stage.activation], low, high, slopes)
    else:
        found = lines(low, high, slopes)
    lower, lower_offset, upper, upper_offset = found
    return _Relaxation(lower, lower_offset[:, :, 0, 0], upper, upper_offset[:, :, 0, 0], anchor)


@dataclass(frozen=True)
class _Windows:
    """Square windows of a feature map, one for each of m units of a later convolution: all that the unit sees.

    The window of the unit in row i and column j starts at stride i + start, stride j + start, and may reach beyond
    the map.
    """

    place: tuple[torch.Tensor, ...]  # network, point, row and column of each unit, broadcasting to [K, n, m]
    target: tuple[int, int]  # how many rows and columns the later convolution has
    start: int
    stride: int
    size: int

    def of(self, maps: torch.Tensor) -> torch.Tensor:
        """Windows of maps [K or 1, n or 1, channels, h, w], zero beyond: [K, n m, channels, size, size]."""
        bottom, right = (
            max(0, (count - 1) * self.stride + self.start + self.size - length)
            for count, length in zip(self.target, maps.shape[-2:], strict=True)
        )
        padded = functional.pad(maps, (-self.start, right, -self.start, bottom))
        windows = padded.unfold(-2, self.size, self.stride).unfold(-2, self.size, self.stride).movedim(2, 4)
        network, point, row, column = self.place
        return windows[network if len(maps) > 1 else 0, point if maps.shape[1] > 1 else 0, row, column].flatten(1, 2)

    def before(self, stage: _Stage) -> "_Windows":
        """What a stage reads for these windows of what leaves it."""
        return replace(
            self,
            start=stage.stride * self.start - (stage.layer.size - 1) // 2,
            stride=stage.stride * self.stride,
            size=stage.stride * self.size + stage.layer.size - 1,
        )

    def seen(self, stage: _Stage, relaxation: _Relaxation) -> _Relaxation:
        """A stage's relaxation, with units for points."""
        lower, lower_offset, upper, upper_offset, anchor = relaxation
        whole = (-1, *stage.shape[1:])
        lower, upper = (
            self.of(slopes[:, :, 0].flatten(2).unflatten(-1, whole)).flatten(2).unflatten(2, (1, stage.phases, -1))
            for slopes in (lower, upper)
        )
        lower_offset, upper_offset, anchor = (
            self.of(values.unflatten(-1, whole)).flatten(2) for values in (lower_offset, upper_offset, anchor)
        )
        return _Relaxation(lower, lower_offset, upper, upper_offset, anchor)

    def around(self, around: Neighbourhood) -> tuple[Neighbourhood, torch.Tensor]:
        """The balls around windows of the images, and which of their pixels [1 or K, n m, 1, d] lie in the image."""
        images = around.x if around.x.ndim == 5 else around.x[None]
        inside = self.of(torch.ones_like(images[:1, :1], dtype=torch.float64)).flatten(2)[:, :, None]
        radius = around.radius
        if isinstance(radius, torch.Tensor):
            radius = radius[..., None].expand(self.place[2].shape).flatten(1, 2)
        return replace(around, x=self.of(images), radius=radius), inside


def _bounds(stages: list[_Stage], around: Neighbourhood, by: str) -> tuple[Bounds, list[_Relaxation]]:
    """`layer_bounds` in this module's order, and the relaxations that follow from them (none by ibp)."""
    bounds, relaxations = [], []
    interval = tuple(around.centre + displacement for displacement in around.box)
    for index, stage in enumerate(stages[:-1]):
        middle, reach = stage.at((interval[0] + interval[1]) / 2), stage.magnitudes((interval[1] - interval[0]) / 2)
        low, high = middle - reach, middle + reach
        anchor = _anchor(stages, index, around)
        # Over a box intervals are exact for the first layer, over another ball its rows are.
        if index == 0:
            needed = None if isinstance(around, LinfBall) else torch.ones_like(low, dtype=torch.bool)
        else:
            needed = _needed(stage, low, high) if by == "crown" else None
        if needed is not None:
            low, high = _tightened(stages[: index + 1], relaxations, around, anchor, low, high, needed)
        bounds.append((low, high))
        if by == "crown":
            relaxations.append(_relaxation(stage, low, high, anchor))
        interval = tuple(_activated(stage, bound) for bound in (low, high))
    return bounds, relaxations


def _anchor(stages: list[_Stage], index: int, around: Neighbourhood) -> torch.Tensor:
    return stages[index].at(around.centre) if index == 0 else stages[index].bias[:, None]


def _needed(stage: _Stage, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Units [K, n, units] on whose bounds the stage's relaxation depends."""
    relu = stage.activation == "relu"
    if stage.phases == 1:
        return (low < 0) & (high > 0) if relu else torch.ones_like(low, dtype=torch.bool)
    low, high = (bound.unflatten(-1, (stage.phases, -1)) for bound in (low, high))
    rivals = high > low.amax(-2, keepdim=True)
    if relu:
        alone = rivals.sum(-2, keepdim=True) == 1
        rivals = rivals & (high > 0) & ~(alone & (low >= 0))
    return rivals.flatten(-2)


def _tightened(
    stages: list[_Stage],
    relaxations: list[_Relaxation],
    around: Neighbourhood,
    anchor: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    needed: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[low, high] of the last stage's units ([K, n, units]) cut by CROWN's bounds where `needed`."""
    networks, points, _ = low.shape
    count = int(needed.sum(-1).max())
    if not count:
        return low, high
    order = needed.to(torch.uint8).topk(count).indices
    step = max(1, ELEMENTS[low.device.type] // (2 * networks * points * _widest(stages, around)))
    for units in order.split(step, -1):
        lower, upper = _of_units(stages, relaxations, around, anchor.expand_as(low).gather(-1, units), units)
        # Where another point needs more units, others come along: a bound must not depend on its neighbours.
        wanted, before, after = (values.gather(-1, units) for values in (needed, low, high))
        low = low.scatter(-1, units, torch.where(wanted, torch.maximum(before, lower), before))
        high = high.scatter(-1, units, torch.where(wanted, torch.minimum(after, upper), after))
    return low, high


def _widest(stages: list[_Stage], around: Neighbourhood) -> int:
    """The most coefficients that a row of the last stage has on its way to the image."""
    if not isinstance(stages[-1].layer, Conv):
        return max([math.prod(around.x.shape[-3:]), *(stage.units for stage in stages[:-1])])
    size = stages[-1].layer.size
    widths = []
    for stage in reversed(stages[:-1]):
        widths.append(stage.phases * stage.shape[0] * size**2)
        size = stage.stride * size + stage.layer.size - 1
    return max([around.x.shape[-3] * size**2, *widths])


def _of_units(
    stages: list[_Stage],
    relaxations: list[_Relaxation],
    around: Neighbourhood,
    anchor: torch.Tensor,
    units: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """CROWN's bounds of some units [K, n, m] of the last stage, whose anchors are `anchor`."""
    networks, points, some = units.shape
    stage = stages[-1]
    network = torch.arange(networks, device=units.device)[:, None, None]
    if isinstance(stage.layer, Dense):
        kernel = stage.kernel.transpose(-1, -2)[network, units]
        rows, offset = torch.cat([kernel, -kernel], -2), torch.cat([anchor, -anchor], -1)
        found = _lower(stages[:-1], relaxations, around, rows, offset)
        return found[..., :some], -found[..., some:]
    point = torch.arange(points, device=units.device)[:, None]
    (filters, height, width), stride, size = stage.shape, stage.stride, stage.layer.size
    phase, row, column = units // (filters * height * width), units // width % height, units % width
    place = (network, point, stride * row + phase // stride, stride * column + phase % stride)
    windows = _Windows(place, (stride * height, stride * width), -((size - 1) // 2), 1, size)
    # The first phase's filters, without the zeros that shift them.
    kernel = stage.kernel[:, :filters, :, :size, :size].flatten(2)[network, units // (height * width) % filters]
    rows = torch.stack([kernel, -kernel], -2).flatten(1, 2)
    offset = torch.stack([anchor, -anchor], -1).flatten(1, 2)
    found = _lower(stages[:-1], relaxations, around, rows, offset, windows=windows).unflatten(1, (points, some))
    return found[..., 0], -found[..., 1]


def _of_rows(
    stages: list[_Stage],
    relaxations: list[_Relaxation],
    around: Neighbourhood,
    rows: torch.Tensor,
    multipliers: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Lower bounds [K, n, r] of rows [K, n, r, classes] · logits."""
    offset = _dot(rows, _anchor(stages, len(stages) - 1, around))
    return _lower(stages[:-1], relaxations, around, stages[-1].pulled(rows), offset, multipliers)


def _lower(
    stages: list[_Stage],
    relaxations: list[_Relaxation],
    around: Neighbourhood,
    coefficients: torch.Tensor,
    offset: torch.Tensor,
    multipliers: list[torch.Tensor] | None = None,
    windows: _Windows | None = None,
) -> torch.Tensor:
    """Lower bounds [K, n, r] of coefficients [K, n, r, outputs] · what leaves the last stage + offset [K, n, r].

    With windows, n counts units, each with coefficients of its window.
    """
    for index in reversed(range(len(stages))):
        stage, relaxation, size = stages[index], relaxations[index], None
        if windows:
            relaxation, size, windows = windows.seen(stage, relaxation), windows.size, windows.before(stage)
        positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
        offset = offset + _dot(positive, relaxation.lower_offset) + _dot(negative, relaxation.upper_offset)
        positive, negative = (one[..., None, :] for one in (positive, negative))
        coefficients = torch.addcmul(positive * relaxation.lower, negative, relaxation.upper).flatten(-2)
        if multipliers is not None:
            coefficients = coefficients + multipliers[index]
        offset = offset + _dot(coefficients, relaxation.anchor)
        coefficients = stage.pulled(coefficients, size)
    if windows:
        around, inside = windows.around(around)
        coefficients = coefficients * inside
    return offset + around.minimum(coefficients)


def _dot(coefficients: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[K, n, r, u] · [K, n or 1, u] → [K, n, r]; einsum is several times faster than matmul with a vector."""
    return torch.einsum("knru,knu->knr", coefficients, values.expand(*coefficients.shape[:2], -1))


def _differences(stages: list[_Stage], around: Neighbourhood, by: str, predicted: torch.Tensor | None) -> torch.Tensor:
    """`differences` of a chunk; `predicted` [K, n] are the classes whose row is asked (None: all)."""
    last, device = stages[-1], around.x.device
    networks, points, classes = len(last.bias), around.x.shape[-4], last.units
    one = torch.arange(classes, device=device)
    if predicted is None:
        pairs = torch.cartesian_prod(one, one)
        first, second = pairs[pairs[:, 0] != pairs[:, 1]].T[:, None, None].expand(-1, networks, points, -1)
    else:
        second = one[:-1] + (one[:-1] >= predicted[..., None])
        first = predicted[..., None].expand_as(second)
    identity = torch.eye(classes, dtype=torch.float64, device=device)
    rows = identity[first] - identity[second]
    bounds, relaxations = _bounds(stages, around, by)
    lower = _by_intervals(stages, around, bounds, rows)
    if by == "crown":
        lower = torch.maximum(lower, _of_rows(stages, relaxations, around, rows))
    error = _rounding(stages, around, bounds)
    lower = lower - error.gather(-1, first) - error.gather(-1, second)
    found = torch.full((networks, points, classes**2), -torch.inf, dtype=torch.float64, device=device)
    found = found.scatter(-1, first * (classes + 1), 0.0).scatter(-1, first * classes + second, lower)
    broken = ~error.isfinite().all(-1, keepdim=True)
    return found.masked_fill(broken, torch.nan).unflatten(-1, (classes, classes))


# ---- rounding ----


def _rounding(stages: list[_Stage], around: Neighbourhood, bounds: Bounds) -> torch.Tensor:
    size, variance = (around.centre + around.box[1]).clamp(max=1), None
    for index, stage in enumerate(stages):
        terms = stage.magnitudes(size) + stage.bias.abs()[:, None]
        own = (stage.fan_in + 1) * (UNIT * terms) ** 2
        own = torch.where(terms < torch.finfo(torch.float32).max, own, torch.inf)
        variance = own if variance is None else own + stage.scattered(variance)
        if stage.activation:
            if stage.activation != "relu":
                # The sigmoid's slope is at most 1/4; below 1 a unit in the last place is at most 2 u.
                slope = 1 / 4 if stage.activation == "sigmoid" else 1
                variance = slope**2 * variance + (4 * 2 * UNIT) ** 2
            variance = _largest(stage, variance)
            size = torch.maximum(*(_activated(stage, bound).abs() for bound in bounds[index]))
    return 6 * variance.sqrt()
