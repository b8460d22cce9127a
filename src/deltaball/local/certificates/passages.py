"""Bounds through networks of any layers, one layer after the other: what is known of each between its bounds.

The general way beside the fused `stages`, which are faster and know fewer layers. Layers are passed as they are in the
network, batch normalisation too, so that what is allowed for float32 is what its forward pass does. Numbers per image
are [K, n, *shape] and coefficients [K, n, r, *shape], in the layers' own order, in float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch

from deltaball.local.certificates.optimised import Choices, ascended
from deltaball.local.certificates.stages import ELEMENTS

Pulled = tuple[torch.Tensor, torch.Tensor]


class Enclosure(NamedTuple):
    """K networks over the balls around n points."""

    lower: Callable[[torch.Tensor], torch.Tensor]  # lower bounds [K, n, r] of rows [K, n, r, classes] · logits
    error: torch.Tensor  # [K, n, classes]: how far float32 logits may be from the real ones; not finite: anywhere


class Interval(NamedTuple):
    """Bounds of what lies between two layers."""

    low: torch.Tensor
    high: torch.Tensor
    exact: bool  # whether each bound is attained
    box: bool  # whether all of them are, in any combination

    @property
    def size(self) -> torch.Tensor:
        return torch.maximum(self.low.abs(), self.high.abs())


@dataclass(frozen=True)
class Before:
    """What is known of what enters a layer."""

    interval: Interval
    # Lower bounds over the ball [K, n, r] of coefficients [K, n, r, *shape], by lines that may be chosen.
    lower: Callable[[torch.Tensor, Choices], torch.Tensor]
    linear: bool  # whether it is a linear function of the image
    by: str  # ibp, crown or alpha_crown
    others: bool  # whether activations take their other lines
    widest: int  # how many numbers a layer has at most
    starts: Choices = ()  # of the lines before, all that may be chosen: [K, n, ...] in [0, 1]

    @property
    def optimises(self) -> bool:
        return self.by == "alpha_crown"

    def best(self, coefficients: torch.Tensor) -> torch.Tensor:
        """The lower bounds [K, n, r] by the best lines that are found."""
        if not self.starts:
            return self.lower(coefficients, ())
        rows = coefficients.shape[2]
        step = max(
            1, ELEMENTS[coefficients.device.type] // (coefficients.shape[0] * coefficients.shape[1] * self.widest)
        )
        parts = coefficients.split(min(step, rows), 2)
        found = [ascended(partial(self.lower, part), self.starts, part.shape[2]) for part in parts]
        return torch.cat(found, 2)

    def tightened(self, wanted: torch.Tensor | None = None, by_best: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Bounds of what enters, cut by those of single units: of all if it is linear, else of those `wanted`.

        `by_best` lines, if not by the usual ones.
        """
        low, high, exact, _ = self.interval
        if exact or (wanted is None and not self.linear):
            return low, high
        flat = torch.ones_like(low).flatten(2).bool() if self.linear else wanted.flatten(2)
        count = int(flat.sum(-1).max())
        if not count:
            return low, high
        shape, (networks, points) = low.shape[2:], low.shape[:2]
        low, high = low.flatten(2), high.flatten(2)
        step = max(1, ELEMENTS[low.device.type] // (2 * networks * points * self.widest))
        for units in flat.to(torch.uint8).topk(count).indices.split(step, -1):
            rows = low.new_zeros(*units.shape, low.shape[-1]).scatter(-1, units[..., None], 1.0).unflatten(-1, shape)
            both = torch.cat([rows, -rows], 2)
            lower, upper = (self.best(both) if by_best else self.lower(both, ())).chunk(2, -1)
            # Where another point needs more units, others come along: a bound must not depend on its neighbours.
            own, before, after = (values.gather(-1, units) for values in (flat, low, high))
            low = low.scatter(-1, units, torch.where(own, torch.maximum(before, lower), before))
            high = high.scatter(-1, units, torch.where(own, torch.minimum(after, -upper), after))
        return low.unflatten(-1, shape), high.unflatten(-1, shape)

    def tightened_where(
        self, needed: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of the units that are `needed`, which bounds so far say: as tight as they are asked."""
        low, high, exact, box = self.interval
        wanted = None if self.by == "ibp" or self.linear else needed(low, high)
        low, high = self.tightened(wanted)
        if self.optimises and self.starts:
            cut = replace(self, interval=Interval(low, high, exact, box))
            low, high = cut.tightened(needed(low, high), by_best=True)
        return low, high


@dataclass(frozen=True)
class Passage:
    """A layer between the bounds of what enters it and of what leaves it."""

    leaving: Interval
    pulled: Callable[
        [torch.Tensor], Pulled
    ]  # from coefficients of what leaves: those of what enters, and offsets [K, n, r]
    scattered: Callable[[torch.Tensor], torch.Tensor]  # variances of its float32 errors, given those of what enters
    linear: bool
    starts: Choices = ()  # where lines may be chosen: those of `pulled`, [K, n, ...] in [0, 1]
    chosen: Callable[[torch.Tensor, Choices], Pulled] | None = None  # `pulled` by other choices, [K, n, r, ...]


def pulled(passages: Sequence[Passage], coefficients: torch.Tensor, choices: Choices = ()) -> Pulled:
    """A linear function of what leaves the last, as one below it of what enters the first.

    By lines of `choices`, those of all passages in their order; none for the usual lines.
    """
    offset, end = coefficients.new_zeros(coefficients.shape[:3]), len(choices)
    for passage in reversed(passages):
        count = len(passage.starts)
        if choices and passage.chosen:
            coefficients, more = passage.chosen(coefficients, choices[end - count : end])
            end -= count
        else:
            coefficients, more = passage.pulled(coefficients)
        offset = offset + more
    return coefficients, offset


def after(before: Before, passages: Sequence[Passage]) -> Before:
    """What is known of what leaves the last."""
    if not passages:
        return before

    own = [start for passage in passages for start in passage.starts]

    def lower(coefficients: torch.Tensor, choices: Choices = ()) -> torch.Tensor:
        start = len(choices) - len(own) if choices else 0
        coefficients, offset = pulled(passages, coefficients, choices[start:])
        return offset + before.lower(coefficients, choices[:start])

    linear = before.linear and all(passage.linear for passage in passages)
    return replace(before, interval=passages[-1].leaving, lower=lower, linear=linear, starts=(*before.starts, *own))


def dot(coefficients: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[K, n, r, *shape] · [K, n, *shape] → [K, n, r]."""
    values = values.expand(*coefficients.shape[:2], *values.shape[2:])
    return torch.einsum("knru,knu->knr", coefficients.flatten(3), values.flatten(2))


def least(coefficients: torch.Tensor, interval: Interval) -> torch.Tensor:
    """The minimum of coefficients · what lies in the interval."""
    return dot(coefficients.clamp(min=0), interval.low) + dot(coefficients.clamp(max=0), interval.high)
