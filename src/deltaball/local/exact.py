"""The exact answer: is a point's class, or its label, the class in the whole ball? For one ReLU network, by point.

Huang et al. 2017, "Safety verification of deep neural networks", and with them paper 004, search a discretised
neighbourhood exhaustively. That is complete only for the grid: a violation may lie between its points, and the grid
grows exponentially with the pixels. What stands here is complete for the real ball, without a grid: branch and bound
on the signs of what enters the ReLUs.

A subproblem fixes some of these signs. CROWN bounds its margin from below; the lower lines' slopes (α-CROWN, Xu et al.
2021, "Fast and complete") and Lagrange multipliers of the signs (β-CROWN, Wang et al. 2021) are improved by a few
steps of Adam from where the parent left them. What stays open is split at the unit whose two halves have the largest
bounds on average, tried out for the units whose upper line costs most (after De Palma et al. 2021, "Improved branch
and bound for neural network verification via Lagrangian decomposition": filtered smart branching). The image that
minimises a bound is a candidate for a violation. Where all signs are fixed the network is linear, and a linear program
gives the best multipliers. Max-pools become ReLUs: max(a, b) = a + relu(b - a). Where one follows a ReLU, either may
come first. A few subproblems may be enough in one order where the other needs thousands, and neither is always the
better one. So both are searched, in turns (`benchmarks/pools.py`).

A mixed-integer program over the same bounds, solved by HiGHS, was measured first (MNIST, δ = 0.03, one core): a median
of 1.7 s per open point of a 1×64 network and of 11 s of a 2×64 one, where this takes 0.03 s and 0.04 s
(`benchmarks/deciding.py`). So there is none.

Outcomes. `violated`: an image in the ball and in [0, 1] violates in a forward pass in float32. `robust`: every
subproblem's bound exceeds what float32 rounding may hide (`certificates.rounding`), so no attack can find a violation.
`unknown`: the limit was reached, or the smallest margin is as small as that rounding. Trusted are the float64 rounding
of the bounds and what `certificates` trusts. Not trusted is the linear program's solver: its multipliers are put into
the same bound, which holds for any, and its image is checked like any other.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

import numpy as np
import torch

from deltaball.local import linear_programs
from deltaball.local.balls import Ball
from deltaball.local.certificates.crown import layer_bounds
from deltaball.local.certificates.enclosures import enclosed
from deltaball.local.certificates.lines import relu_lines
from deltaball.local.losses import margin
from deltaball.local.notions import ClassChange
from deltaball.local.references import Reference
from deltaball.networks.dense_form import Affine, affine_layers, as_dense, pools_first
from deltaball.networks.layers import Layers
from deltaball.networks.models import Layered
from deltaball.networks.packs import Pack

Form = tuple[Pack, Affine]

ROBUST, VIOLATED, UNKNOWN = 1.0, 0.0, math.nan

BATCH = 64  # subproblems split at once

TRIED = 16  # units tried out per split

STEPS = 5  # of Adam per subproblem; twice as many at the root

RATE = 0.2


class Decisions(NamedTuple):
    """The answers for n points."""

    outcome: np.ndarray  # float32 [n]: 1 robust, 0 violated, NaN unknown
    witness: torch.Tensor  # float32 [n, h, w, c]: an image that violates; NaN where there is none
    seconds: np.ndarray  # float64 [n]
    subproblems: np.ndarray  # int64 [n]: how many were bounded


@torch.no_grad()
def decide(
    model: Layered, x: torch.Tensor, ball: Ball, seconds: float, labels: torch.Tensor | None = None
) -> Decisions:
    """Whether the class stays the same (paper 004, Definition 1) in the balls around the float32 images x [n, h, w, c].

    With `labels`, int64 [n], whether it is the label everywhere (paper 001, Definition 1). `model` is one network. Each
    point is given up, as unknown, once `seconds` have passed. Raises ValueError for L2 balls, activations other than
    ReLU, and networks too large to be written as dense layers.
    """
    assert len(model) == 1, f"one network at a time, not {len(model)}"
    if ball.norm == "l2":
        raise ValueError("l2 balls have no exact answer, its programs are linear; possible: linf, l1")
    swapped = pools_first(model.layers)
    orders = [model.layers] if swapped == model.layers else [model.layers, swapped]
    # The second form is not always needed, and may be large.
    forms = [cache(lambda order=order: _written(model, order)) for order in orders]
    forms[0]()
    answers = []
    for index in range(len(x)):
        started, point = time.monotonic(), x[index : index + 1]
        logits = model(point)
        kept = Reference.output(logits) if labels is None else Reference.label(logits, labels[index : index + 1])
        searches = [_Search(model, form, point, ball, kept) for form in forms]
        outcome, witness = _first(searches, started + seconds)
        answers.append((outcome, witness, time.monotonic() - started, sum(one.bounded for one in searches)))
    outcomes, witnesses, used, subproblems = zip(*answers, strict=True) if answers else [()] * 4
    return Decisions(
        np.array(outcomes, np.float32),
        torch.cat([x[:0], *witnesses]),
        np.array(used, np.float64),
        np.array(subproblems, np.int64),
    )


def _written(model: Layered, order: Layers) -> Form:
    dense = as_dense(Pack(order, tuple(model.weights)))
    return dense, affine_layers(dense)


def _first(searches: Sequence["_Search"], deadline: float) -> tuple[float, torch.Tensor]:
    """What the first search to end says: the outcome, and an image that violates (NaN if none does).

    They take turns. A later one begins only where those before it did not end in their first turn.
    """
    turns = [one.turns(deadline) for one in searches]
    while turns:
        for turn in [*turns]:
            outcome, witness = next(turn, None) or (None, None)
            if outcome is None:
                turns.remove(turn)
            elif not math.isnan(outcome):
                return outcome, witness
    return UNKNOWN, torch.full_like(searches[0].x, torch.nan)


class _Subproblems(NamedTuple):
    """B subproblems: the class that is kept against class `row`, with the signs of some of the N units fixed."""

    row: torch.Tensor  # [B] among the other classes
    sign: torch.Tensor  # [B, N] float64: 1 for ≥ 0, -1 for ≤ 0, 0 for not fixed
    slopes: torch.Tensor  # [B, N] of the lower lines, in [0, 1]
    multipliers: torch.Tensor  # [B, N] of the signs, ≥ 0

    def at(self, index: torch.Tensor) -> "_Subproblems":
        return _Subproblems(*(part[index] for part in self))


class _Search:
    """Branch and bound for one point. Its N units are those of all hidden layers of the dense network."""

    def __init__(
        self, model: Layered, form: Callable[[], Form], x: torch.Tensor, ball: Ball, reference: Reference
    ) -> None:
        self.model, self.form, self.reference = model, form, reference
        self.x, self.around = x, ball.around(x)
        self.bounded = 0

    def turns(self, deadline: float) -> Iterator[tuple[float, torch.Tensor]]:
        """After each batch of subproblems the outcome, and the image that violates (NaN if none does).

        It is unknown while there are more, and where some are proven neither way.
        """
        if self._witness(self.x) is not None:
            yield VIOLATED, self.x
        elif time.monotonic() < deadline and self._prepared():
            none = torch.full_like(self.x, torch.nan)
            for outcome, witness in self._searched(deadline):
                yield outcome, none if witness is None else witness

    def _prepared(self) -> bool:
        """Bound the units and the rounding; False where a forward pass in float32 may overflow."""
        dense, self.affine = self.form()
        self.widths = [len(bias) for _, bias in self.affine[:-1]]
        classes, kept = self.reference.target.shape[-1], int(self.reference.classes)
        error = enclosed(self.model, self.around, "crown").error[0, 0]
        if not error.isfinite().all():
            return False
        bounds = layer_bounds(dense, self.around, "crown")
        empty = error.new_empty(0)
        self.low, self.high = (
            torch.cat([empty, *(bound[0, 0] for bound in side)])
            for side in (zip(*bounds, strict=True) if bounds else [[]] * 2)
        )
        others = [j for j in range(classes) if j != kept]
        columns, bias = self.affine[-1][0].to_dense().T, self.affine[-1][1]
        self.rows = columns[kept] - columns[others]
        self.offsets = bias[kept] - bias[others]
        self.enough = error[kept] + error[others]
        return True

    def _searched(self, deadline: float) -> Iterator[tuple[float, torch.Tensor | None]]:
        others, units = len(self.rows), len(self.low)
        slopes = (self.high > -self.low).to(torch.float64).expand(others, -1)
        current = _Subproblems(torch.arange(others, device=self.x.device), slopes * 0, slopes, slopes * 0)
        _, entering, _ = self._bounds(current)
        sizes = [part.abs().amax().clamp(min=1e-30).expand(part.shape[1]) for part in entering.split(self.widths, 1)]
        self.sizes = torch.cat([slopes.new_empty(0), *sizes])
        self.bounded = others
        numbers, heap, steps, complete = count(), [], 2 * STEPS, True
        while True:
            if time.monotonic() >= deadline:
                return
            lower, current, entering, pixels = self._improved(current, steps)
            if (witness := self._witness(self._corners(pixels))) is not None:
                yield VIOLATED, witness
                return
            undecided = self._undecided(current)
            # What the upper line of an undecided unit costs.
            costs = -entering.clamp(max=0) * relu_lines(self.low, self.high)[3]
            tried = torch.where(undecided, costs, -1.0).topk(min(TRIED, units)).indices
            for index in (~(lower > self.enough[current.row])).nonzero().flatten().tolist():
                unproven = current.at(slice(index, index + 1))
                if undecided[index].any():
                    heappush(heap, (lower[index].item(), next(numbers), unproven, tried[index]))
                    continue
                proven, witness = self._leaf(unproven, deadline)
                if witness is not None:
                    yield VIOLATED, witness
                    return
                complete &= proven
            if not heap:
                yield ROBUST if complete else UNKNOWN, None
                return
            yield UNKNOWN, None
            if time.monotonic() >= deadline:
                return
            worst = [heappop(heap)[2:] for _ in range(min(BATCH, len(heap)))]
            parents = _Subproblems(*(torch.cat(parts) for parts in zip(*(parent for parent, _ in worst), strict=True)))
            current, steps = self._split(parents, torch.stack([tried for _, tried in worst])), STEPS

    def _bounds(self, subproblems: _Subproblems) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """CROWN: lower bounds [B], and the coefficients of what leaves the units [B, N] and of the pixels [B, d]."""
        low, high = torch.where(subproblems.sign > 0, 0.0, self.low), torch.where(subproblems.sign < 0, 0.0, self.high)
        lower, _, upper, offset = relu_lines(low, high, subproblems.slopes)
        parts = (lower, upper, offset, subproblems.multipliers * subproblems.sign)
        relaxed = zip(self.affine[:-1], *(part.split(self.widths, 1) for part in parts), strict=True)
        coefficients, value, entering = self.rows[subproblems.row], self.offsets[subproblems.row], []
        for (kernel, bias), lower, upper, offset, added in reversed([*relaxed]):
            entering.insert(0, coefficients)
            positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
            value = value + (negative * offset).sum(-1)
            coefficients = positive * lower + negative * upper - added
            value = value + coefficients @ bias
            product = torch.sparse.mm if kernel.is_sparse else torch.matmul
            coefficients = product(kernel, coefficients.T).T
        value = value + coefficients @ self.around.centre[0] + self.around.minimum(coefficients[None])[0]
        return value, torch.cat([value.new_empty(len(value), 0), *entering], 1), coefficients

    def _improved(
        self, subproblems: _Subproblems, steps: int
    ) -> tuple[torch.Tensor, _Subproblems, torch.Tensor, torch.Tensor]:
        """The best of `_bounds` within some steps of Adam on slopes and multipliers, and where it was found."""
        units = len(self.low)
        # Multipliers compete with the coefficients of what leaves the units, so these are their unit of length.
        free = torch.cat([subproblems.slopes, subproblems.multipliers / self.sizes], 1)
        most = torch.cat([torch.ones_like(self.low), torch.full_like(self.low, torch.inf)])
        mean, square = torch.zeros_like(free), torch.zeros_like(free)
        best: tuple[torch.Tensor, ...] = ()
        for step in range(1, steps + 2):
            free.requires_grad_()
            with torch.enable_grad():
                now = subproblems._replace(slopes=free[:, :units], multipliers=free[:, units:] * self.sizes)
                value, entering, pixels = self._bounds(now)
            reached = tuple(part.detach() for part in (value, now.slopes, now.multipliers, entering, pixels))
            better = value > best[0] if best else torch.ones_like(value, dtype=torch.bool)
            best = tuple(
                torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip(reached, best or reached, strict=True)
            )
            if step > steps or not units or (best[0] > self.enough[subproblems.row]).all():
                break
            (gradient,) = torch.autograd.grad(value, free, torch.ones_like(value))
            mean.lerp_(gradient, 0.1)
            square.lerp_(gradient.square(), 0.001)
            length = RATE * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
            free = torch.minimum((free.detach() + length * mean / (square.sqrt() + 1e-12)).clamp(min=0), most)
        lower, slopes, multipliers, entering, pixels = best
        return lower, subproblems._replace(slopes=slopes, multipliers=multipliers), entering, pixels

    def _split(self, parents: _Subproblems, tried: torch.Tensor) -> _Subproblems:
        """Both halves of B subproblems, at the best of their units `tried` [B, T]; without what is proven by that."""
        enough = self.enough[parents.row][:, None]
        each = torch.arange(len(tried), device=tried.device).repeat_interleave(tried.shape[1])
        halves, reached = [], []
        for sign in (1.0, -1.0):
            half = parents.at(each)
            halves.append(half._replace(sign=half.sign.scatter(1, tried.view(-1, 1), sign)))
            reached.append(self._bounds(halves[-1])[0].view(tried.shape))
        total = sum(bounds.clamp(max=enough) for bounds in reached)
        possible = self._undecided(parents).gather(1, tried)
        best = torch.where(possible, total, -torch.inf).argmax(1)
        self.bounded += 2 * len(tried)
        kept = []
        for half, bounds in zip(halves, reached, strict=True):
            open_still = (~(bounds > enough)).gather(1, best[:, None])[:, 0].nonzero()[:, 0]
            kept.append(half.at(open_still * tried.shape[1] + best[open_still]))
        return _Subproblems(*(torch.cat(pair) for pair in zip(*kept, strict=True)))

    def _undecided(self, subproblems: _Subproblems) -> torch.Tensor:
        return (self.low < 0) & (self.high > 0) & (subproblems.sign == 0)

    def _corners(self, pixels: torch.Tensor) -> torch.Tensor:
        """The images [B, h, w, c] that minimise linear functions [B, d]."""
        return self.around.steepest(-pixels.unflatten(-1, self.x.shape).to(self.x.dtype)).squeeze(1)

    def _witness(self, images: torch.Tensor) -> torch.Tensor | None:
        """Of images [B, h, w, c] the one [1, h, w, c] that violates most, judged in float32; None if none does."""
        logits = self.model(images)
        reference = self.reference.expand_as(logits)
        outcome = ClassChange().outcome(reference, logits, logits.new_zeros(()))[0]
        violates = (outcome == 0) & self.around.contains(images[:, None])[:, 0]
        if not violates.any():
            return None
        margins = margin(logits, reference.classes)[0]
        place = torch.where(violates, margins, torch.inf).argmin()
        return images[place][None]

    def _leaf(self, subproblem: _Subproblems, deadline: float) -> tuple[bool, torch.Tensor | None]:
        """Whether a subproblem with nothing left to split is proven, and an image that violates there, if any."""
        fixed = subproblem.sign[0] != 0
        if not fixed.any():
            return False, None  # its bound was the exact minimum
        active = torch.where(fixed, subproblem.sign[0] > 0, self.low >= 0).to(torch.float64)
        # Under these signs what enters the units, and the margin, are linear functions of the displacement.
        slopes, values, entering = torch.eye(self.around.centre.shape[1]).to(active), self.around.centre[0], []
        for (kernel, bias), on in zip(self.affine[:-1], active.split(self.widths), strict=True):
            slopes, values = slopes @ kernel.to_dense(), values @ kernel.to_dense() + bias
            entering.append((slopes, values))
            slopes, values = slopes * on, values * on
        at, offset = (
            torch.cat(parts, -1)[..., fixed] * subproblem.sign[0, fixed] for parts in zip(*entering, strict=True)
        )
        row, seconds = self.rows[subproblem.row[0]], deadline - time.monotonic()
        solved, displacement = linear_programs.solve(self.around, slopes @ row, at.T, offset, seconds, row.abs().amax())
        multipliers = torch.zeros_like(subproblem.multipliers)
        multipliers[0, fixed] = solved
        lower, _, pixels = self._bounds(subproblem._replace(multipliers=multipliers))
        image = (self.around.centre[0] + displacement).view(self.x.shape)
        witness = self._witness(torch.cat([self.around.project(image).to(self.x.dtype), self._corners(pixels)]))
        return bool(lower > self.enough[subproblem.row]), witness
