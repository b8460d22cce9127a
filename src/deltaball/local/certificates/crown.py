"""Backward linear bounds (CROWN), and intervals where they are enough."""

import math
import time
from collections.abc import Sequence

import torch

from deltaball.local.certificates.layered import stages_of
from deltaball.local.certificates.lines import pool_lines
from deltaball.local.certificates.stages import ELEMENTS, Bounds, Stage
from deltaball.local.certificates.windows import Relaxation, Windows
from deltaball.local.neighbourhoods import Neighbourhood
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.models import Layered


def layer_bounds(model: Layered, around: Neighbourhood, by: str, deadline: float = math.inf) -> Bounds:
    """Lower and upper bounds of what enters each Activation layer: float64 [K, n, units] each, flat.

    The first layer's are exact. `by` crown, the others are intersections of intervals with CROWN's bounds; these are
    computed only for the units on whose bounds a relaxation depends: of a ReLU those that intervals leave undecided,
    of a max-pool those that may be the largest. Units that a max-pool drops, which nothing reads, get wide ones.
    Points are not chunked, rows are. From `deadline` of processor time on intervals are all there is.
    """
    stages = stages_of(model)
    bounds, _ = bounded(stages, stages[0].arranged(around), by, deadline=deadline)
    bounds_of_layers, size = [], around.x.new_ones(around.x.shape[-4], dtype=torch.float64)
    for stage, (low, high) in zip(stages, bounds, strict=False):
        total = stage.kernel.abs().flatten(2).sum(-1).amax(-1, keepdim=True)
        wide = total * size + stage.bias.abs().amax(-1, keepdim=True)
        bounds_of_layers.append((stage.outer(low, -wide), stage.outer(high, wide)))
        size = torch.maximum(*(stage.activated(bound).abs().amax(-1) for bound in (low, high)))
    return bounds_of_layers


def backward(
    model: Layered,
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
    stages = stages_of(model)
    around = stages[0].arranged(around)
    relaxations = []
    for index, stage in enumerate(stages[:-1]):
        low, high = (stage.inner(bound) for bound in bounds[index])
        own = None if slopes is None else stage.inner(slopes[index])
        relaxations.append(_relaxation(stage, low, high, _anchor(stages, index, around), own))
    added = None if multipliers is None else [stage.inner(own) for stage, own in zip(stages, multipliers, strict=False)]
    return of_rows(stages, relaxations, around, rows, added)


def by_intervals(stages: list[Stage], around: Neighbourhood, bounds: Bounds, rows: torch.Tensor) -> torch.Tensor:
    """Lower bounds of rows · logits, the rows merged with the last layer; exact where that is the only one."""
    last = stages[-1]
    if len(stages) == 1:
        return of_rows(stages, [], around, rows, None)
    coefficients = last.pulled(rows)
    low, high = (stages[-2].activated(bound) for bound in bounds[-1])
    inner = _dot(coefficients.clamp(min=0), low) + _dot(coefficients.clamp(max=0), high)
    return inner + _dot(rows, last.bias[:, None])


def _relaxation(
    stage: Stage,
    low: torch.Tensor,
    high: torch.Tensor,
    anchor: torch.Tensor,
    slopes: torch.Tensor | None = None,
    others: bool = False,
) -> Relaxation:
    """Lines around a stage's activation and pool for inputs in [low, high] ([K, n, units]), or its curve's others."""
    lines = stage.curve.others if others and stage.curve.others else stage.curve.lines
    low, high = (bound.unflatten(-1, (stage.phases, -1))[:, :, None] for bound in (low, high))
    if slopes is not None:
        slopes = slopes.unflatten(-1, (stage.phases, -1))
    if stage.phases > 1:
        enclosing = pool_lines(lines, ACTIVATIONS[stage.activation], low, high, slopes)
    else:
        enclosing = lines(low, high, slopes)
    lower, lower_offset, upper, upper_offset = enclosing
    return Relaxation(lower, lower_offset[:, :, 0, 0], upper, upper_offset[:, :, 0, 0], anchor)


def bounded(
    stages: list[Stage], around: Neighbourhood, by: str, others: bool = False, deadline: float = math.inf
) -> tuple[Bounds, list[Relaxation]]:
    """`layer_bounds` in this module's order, and the relaxations that follow from them (none by ibp).

    With `others`, of the activations' other lines, where they have some.
    """
    bounds, relaxations = [], []
    interval = tuple(around.centre + displacement for displacement in around.box)
    for index, stage in enumerate(stages[:-1]):
        middle, reach = stage.at((interval[0] + interval[1]) / 2), stage.magnitudes((interval[1] - interval[0]) / 2)
        low, high = middle - reach, middle + reach
        anchor = _anchor(stages, index, around)
        # Over a box intervals are exact for the first layer, over another ball its rows are.
        if index == 0:
            wanted = None if around.is_box else torch.ones_like(low, dtype=torch.bool)
        else:
            wanted = needed(stage, low, high) if by == "crown" else None
        if wanted is not None:
            low, high = _tightened(stages[: index + 1], relaxations, around, anchor, low, high, wanted, deadline)
        bounds.append((low, high))
        if by == "crown":
            relaxations.append(_relaxation(stage, low, high, anchor, others=others))
        interval = tuple(stage.activated(bound) for bound in (low, high))
    return bounds, relaxations


def _anchor(stages: list[Stage], index: int, around: Neighbourhood) -> torch.Tensor:
    return stages[index].at(around.centre) if index == 0 else stages[index].bias[:, None]


def needed(stage: Stage, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Units [K, n, units], within [low, high], on whose bounds the stage's relaxation depends."""
    curved = stage.curve.curved(low, high)
    if stage.phases == 1:
        return curved
    low, high, curved = (values.unflatten(-1, (stage.phases, -1)) for values in (low, high, curved))
    rivals = high > low.amax(-2, keepdim=True)
    alone = rivals.sum(-2, keepdim=True) == 1
    return (rivals & ~stage.curve.constant(low, high) & (curved | ~alone)).flatten(-2)


def _tightened(
    stages: list[Stage],
    relaxations: list[Relaxation],
    around: Neighbourhood,
    anchor: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    wanted: torch.Tensor,
    deadline: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[low, high] of the last stage's units ([K, n, units]) cut by CROWN's bounds where `wanted`."""
    networks, points, _ = low.shape
    count = int(wanted.sum(-1).max())
    if not count:
        return low, high
    order = wanted.to(torch.uint8).topk(count).indices
    widest = stages[-1].widest_row(stages[:-1], around.x.shape[-3:])
    step = max(1, ELEMENTS[low.device.type] // (2 * networks * points * widest))
    for units in order.split(step, -1):
        if time.process_time() > deadline:
            break
        lower, upper = _of_units(stages, relaxations, around, anchor.expand_as(low).gather(-1, units), units)
        # Where another point needs more units, others come along: a bound must not depend on its neighbours.
        own, before, after = (values.gather(-1, units) for values in (wanted, low, high))
        low = low.scatter(-1, units, torch.where(own, torch.maximum(before, lower), before))
        high = high.scatter(-1, units, torch.where(own, torch.minimum(after, upper), after))
    return low, high


def _of_units(
    stages: list[Stage],
    relaxations: list[Relaxation],
    around: Neighbourhood,
    anchor: torch.Tensor,
    units: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """CROWN's bounds of some units [K, n, m] of the last stage, whose anchors are `anchor`."""
    rows, windows = stages[-1].rows_of(units)
    offset = anchor.reshape(rows.shape[:-1])
    both = torch.cat([rows, -rows], -2), torch.cat([offset, -offset], -1)
    lower, upper = _lower(stages[:-1], relaxations, around, *both, windows=windows).chunk(2, -1)
    return lower.reshape(units.shape), -upper.reshape(units.shape)


def of_rows(
    stages: list[Stage],
    relaxations: list[Relaxation],
    around: Neighbourhood,
    rows: torch.Tensor,
    multipliers: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Lower bounds [K, n, r] of rows [K, n, r, classes] · logits."""
    offset = _dot(rows, _anchor(stages, len(stages) - 1, around))
    return _lower(stages[:-1], relaxations, around, stages[-1].pulled(rows), offset, multipliers)


def _lower(
    stages: list[Stage],
    relaxations: list[Relaxation],
    around: Neighbourhood,
    coefficients: torch.Tensor,
    offset: torch.Tensor,
    multipliers: list[torch.Tensor] | None = None,
    windows: Windows | None = None,
) -> torch.Tensor:
    """Lower bounds [K, n, r] of coefficients [K, n, r, outputs] · what leaves the last stage + offset [K, n, r].

    With windows, n counts units, each with coefficients of its window.
    """
    for index in reversed(range(len(stages))):
        stage, relaxation, size = stages[index], relaxations[index], None
        if windows:
            relaxation, size, windows = stage.seen(windows, relaxation), windows.size, stage.window_before(windows)
        positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
        offset = offset + _dot(positive, relaxation.lower_offset) + _dot(negative, relaxation.upper_offset)
        positive, negative = (part[..., None, :] for part in (positive, negative))
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
