"""The exact answer: is a point's class, or its label, the class in the whole ball? Of one network, many points at once.

Huang et al. 2017, "Safety verification of deep neural networks", and with them paper 004, search a discretised
neighbourhood exhaustively. That is complete only for the grid: a violation may lie between its points, and the grid
grows exponentially with the pixels. What stands here needs no grid: branch and bound on what enters the units.

A subproblem says of some units that their input is no smaller, or no larger, than a place where it was split: of ReLUs
their sign. `subproblems` bounds its margin from below. What stays open is split at the unit whose two halves have the
largest bounds on average, tried out for the units whose lines cost most (after De Palma et al. 2021, "Improved branch
and bound for neural network verification via Lagrangian decomposition": filtered smart branching). The image that
minimises a bound is a candidate for a violation, and from some of them PGD starts: that violates a network with
max-pools which 10,000 subproblems and PGD's usual starts leave open (`benchmarks/pools.py`). Where all signs are fixed
the network is linear, and a linear program gives the best multipliers. Max-pools become ReLUs: max(a, b) = a + relu(b -
a). Where one follows an activation, either may come first. A few subproblems may be enough in one order where the other
needs thousands, and neither is always the better one. So both are searched, in turns (`benchmarks/pools.py`).

All points share their time: each gets a few subproblems first, those still open four times as many, and so on, until
all are decided or the time is spent. The subproblems of many points are bounded together, in float32; what seems
proven is bounded once more in float64, and only that counts.

Bounds of the second layer's inputs by CROWN, made anew after every third or sixth split of the first layer's, were
measured too: on 2×128 at δ = 0.05 they were a sixteenth narrower, cost as much as the splits, and the smallest bounds
were lower in equal time. So they are as they are at the root.

A mixed-integer program over the same bounds, solved by HiGHS, was measured first (MNIST, δ = 0.03, one core): a median
of 1.7 s per open point of a 1×64 network and of 11 s of a 2×64 one, where this took 0.03 s and 0.04 s even one point
after the other (`benchmarks/deciding.py`). So there is none.

Outcomes. `violated`: an image in the ball and in [0, 1] violates in a forward pass in float32. `robust`: every
subproblem's bound exceeds what float32 rounding may hide (`certificates.rounding`), so no attack can find a violation.
`unknown`: the limit was reached, or the smallest margin is as small as that rounding; of tanh and sigmoid also, that
intervals became too narrow to split. Trusted are the float64 rounding of the bounds and what `certificates` trusts. Not
trusted is the linear program's solver: its multipliers are put into the same bound, which holds for any, and its image
is checked like any other.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import cache
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

import numpy as np
import torch

from deltaball.local import linear_programs
from deltaball.local.attacks.gradients import annealing, differentiated
from deltaball.local.balls import Ball
from deltaball.local.certificates.crown import layer_bounds
from deltaball.local.certificates.enclosures import enclosed
from deltaball.local.losses import margin, margin_loss
from deltaball.local.notions import ClassChange
from deltaball.local.references import Reference
from deltaball.local.subproblems import STEPS, Relaxations, Subproblems
from deltaball.networks.dense_form import Affine, affine_layers, as_dense, pools_first
from deltaball.networks.layers import Activation, Layers
from deltaball.networks.models import Layered
from deltaball.networks.packs import Pack

Form = tuple[Pack, Affine]

ROBUST, VIOLATED, UNKNOWN = 1.0, 0.0, math.nan

GROUP = 32  # points whose subproblems are bounded together

# Subproblems of a point in the first round; each later round has so many times as many.
FIRST, DEEPER = 64, 4

SHARE, MOST = 8, 128  # of a round's subproblems, this part is split at once, and no more than so many of a point

TRIED = 8  # units tried out per split

NUMBERS = 2**18  # of units or pixels of the subproblems that are bounded at once

# From how many of the images that minimise a point's bounds PGD starts: at first, for so many subproblems one more, and
# after each batch of them; its steps, and how many radii they are in all.
ATTACKS, ATTACK_EVERY, ATTACKS_AT_ONCE = 16, 64, 4
ATTACKING, TRAVELLED = 20, 2

LARGEST_HEAPS = 2**26  # numbers that a search keeps of a group's subproblems; the point with most is given up


class Decisions(NamedTuple):
    """The answers for n points."""

    outcome: np.ndarray  # float32 [n]: 1 robust, 0 violated, NaN unknown
    witness: torch.Tensor  # float32 [n, h, w, c]: an image that violates; NaN where there is none
    seconds: np.ndarray  # float64 [n]: each point's part of the time
    subproblems: np.ndarray  # int64 [n]: how many were bounded


@torch.no_grad()
def decide(
    model: Layered, x: torch.Tensor, ball: Ball, seconds: float, labels: torch.Tensor | None = None
) -> Decisions:
    """Whether the class stays the same (paper 004, Definition 1) in the balls around the float32 images x [n, h, w, c].

    With `labels`, int64 [n], whether it is the label everywhere (paper 001, Definition 1). `model` is one network. What
    is open after `seconds` for each point, all points together, is given up as unknown. Raises ValueError for L2 balls
    and networks too large to be written as dense layers.
    """
    assert len(model) == 1, f"one network at a time, not {len(model)}"
    if ball.norm == "l2":
        raise ValueError("l2 balls have no exact answer, its programs are linear; possible: linf, l1")
    swapped = pools_first(model.layers)
    orders = [model.layers] if swapped == model.layers else [model.layers, swapped]
    # The second form is not always needed, and may be large.
    forms = [cache(lambda order=order: _written(model, order)) for order in orders]
    forms[0]()
    deadline = time.monotonic() + seconds * len(x)
    groups = [
        _Group(model, forms, x[first : first + GROUP], ball, None if labels is None else labels[first : first + GROUP])
        for first in range(0, len(x), GROUP)
    ]
    budget = FIRST
    while any(group.open for group in groups) and time.monotonic() < deadline:
        for group in groups:
            group.advance(budget, deadline)
        budget *= DEEPER
    answers = [
        (group.outcome, group.witness, group.seconds, sum(search.bounded for search in group.searches))
        for group in groups
    ]
    outcomes, witnesses, used, subproblems = zip(*answers, strict=True) if answers else [()] * 4
    return Decisions(
        np.concatenate([np.empty(0, np.float32), *outcomes]),
        torch.cat([x[:0], *witnesses]),
        np.concatenate([np.empty(0), *used]),
        np.concatenate([np.empty(0, np.int64), *subproblems]),
    )


def _written(model: Layered, order: Layers) -> Form:
    dense = as_dense(Pack(order, tuple(model.weights)))
    return dense, affine_layers(dense)


class _Group:
    """Some points, their answers so far, and a search for each order of the layers."""

    def __init__(
        self,
        model: Layered,
        forms: Sequence[Callable[[], Form]],
        x: torch.Tensor,
        ball: Ball,
        labels: torch.Tensor | None,
    ) -> None:
        logits = model(x)
        reference = Reference.output(logits) if labels is None else Reference.label(logits, labels)
        self.outcome = np.full(len(x), UNKNOWN, np.float32)
        self.witness = torch.full_like(x, torch.nan)
        self.seconds = np.zeros(len(x))
        self.attacked = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.model, self.x, self.around, self.reference = model, x, ball.around(x), reference
        self.judge(torch.arange(len(x), device=x.device), x)
        self.searches = [_Search(self, form) for form in forms]

    @property
    def open(self) -> list[int]:
        """The points that some search may still decide."""
        given_up = np.all([search.given_up for search in self.searches], 0)
        return np.flatnonzero(np.isnan(self.outcome) & ~given_up).tolist()

    def advance(self, budget: int, deadline: float) -> None:
        """Up to so many subproblems of each open point, in each order of the layers."""
        for search in self.searches:
            search.advance(budget, deadline)

    def attack(self, points: torch.Tensor, images: torch.Tensor, bounded: np.ndarray) -> None:
        """Judge images [B, h, w, c] for the points [B], and where PGD leads from those with the smallest margins.

        It is worth a small part of what `bounded` subproblems [n] took.
        """
        if not len(images):
            return
        self.judge(points, images)
        margins = margin(self.model(images)[0], self.reference.chosen(points[None]).classes[0])
        order = margins.argsort(stable=True)
        order = order[points[order].argsort(stable=True)]
        points, images = points[order], images[order]
        rank = torch.arange(len(points), device=points.device) - torch.searchsorted(points, points)
        allowed = ATTACKS + torch.from_numpy(bounded // ATTACK_EVERY).to(points) - self.attacked
        chosen = rank < allowed.clamp(max=ATTACKS_AT_ONCE)[points]
        points, images = points[chosen], images[chosen][None]
        if not len(points):
            return
        self.attacked += torch.bincount(points, minlength=len(self.x))
        around, reference = self.around.at(points), self.reference.chosen(points[None])
        for step in range(ATTACKING):
            self.judge(points, images[0])
            _, gradient = differentiated(self.model, images, reference, margin_loss)
            length = TRAVELLED * self.around.radius * 2 * annealing(step, ATTACKING) / ATTACKING
            images = around.returned(around.stepped(images, gradient, length))
        self.judge(points, images[0])

    def judge(self, points: torch.Tensor, images: torch.Tensor) -> None:
        """Keep of images [B, h, w, c] for the points [B] those that violate most, judged in float32."""
        if not len(images):
            return
        logits, around = self.model(images), self.around.at(points)
        reference = self.reference.chosen(points[None])
        outcome = ClassChange().outcome(reference, logits, logits.new_zeros(()))[0]
        violates = (outcome == 0) & around.contains(images)
        if not violates.any():
            return
        margins = torch.where(violates, margin(logits, reference.classes)[0], torch.inf)
        # What is not a number violates too.
        for place in margins.nan_to_num(-torch.inf).argsort(stable=True)[: int(violates.sum())].tolist():
            point = int(points[place])
            if math.isnan(self.outcome[point]):
                self.outcome[point], self.witness[point] = VIOLATED, images[place]


class _Search:
    """Branch and bound of a group's points, by one order of the layers."""

    def __init__(self, group: _Group, form: Callable[[], Form]) -> None:
        self.group, self.form = group, form
        points = len(group.x)
        self.heaps: list[list] = [[] for _ in range(points)]
        self.bounded = np.zeros(points, np.int64)
        self.numbers = count()
        self.complete = np.ones(points, bool)  # whether all that is not kept is proven
        self.given_up = np.zeros(points, bool)
        self.relaxations: Relaxations | None = None

    def advance(self, budget: int, deadline: float) -> None:
        """Up to so many subproblems of each of the group's open points, or until the deadline."""
        at_once = min(budget // SHARE, MOST)
        while (left := self._left(budget)) and (started := time.monotonic()) < deadline:
            before = self.bounded.copy()
            if self.relaxations is None:
                self._begin(left)
            else:
                self._turn(left, at_once, deadline)
            shares = np.maximum(self.bounded - before, 1e-9)
            self.group.seconds += (time.monotonic() - started) * shares / shares.sum()

    def _left(self, budget: int) -> list[int]:
        return [one for one in self.group.open if not self.given_up[one] and self.bounded[one] < budget]

    def _begin(self, points: list[int]) -> None:
        """Bound the units, the rounding, and the whole balls."""
        group = self.group
        dense, self.affine = self.form()
        around = group.around
        error = enclosed(group.model, around, "crown").error[0]
        bounds = layer_bounds(dense, around, "crown")
        empty = error.new_empty(len(group.x), 0)
        low, high = (
            torch.cat([empty, *(bound[0] for bound in side)], -1)
            for side in (zip(*bounds, strict=True) if bounds else [[]] * 2)
        )
        activations = [layer.name for layer in dense.layers if isinstance(layer, Activation)]
        self.widest = max(low.shape[1], around.centre.shape[1])
        self.linear_pieces = set(activations) <= {"relu"}
        kept = group.reference.classes[0, :, 0]
        given = (self.affine, activations, around, low, high, kept)
        self.relaxations, self.exactly = (Relaxations(*given, dtype) for dtype in (torch.float32, torch.float64))
        others = torch.arange(error.shape[-1] - 1, device=error.device)
        self.enough = error.gather(-1, kept[:, None]) + error.gather(-1, others + (others >= kept[:, None]))
        # A forward pass in float32 may overflow.
        self.given_up |= ~error.isfinite().all(-1).cpu().numpy()
        left = torch.tensor([point for point in points if not self.given_up[point]], dtype=torch.int64)
        if not len(left):
            return
        roots = self.relaxations.roots(left.to(error.device))
        entering = self.relaxations.bounds(roots).entering.abs()
        sizes = [
            part.amax(-1).view(len(left), -1).amax(1)[:, None].clamp(min=1e-30).expand(-1, part.shape[1])
            for part in entering.split(self.relaxations.widths, -1)
            if part.shape[1]
        ]
        if sizes:
            self.relaxations.sizes[left] = torch.cat(sizes, 1)
        self.exactly.sizes = self.relaxations.sizes.to(torch.float64)
        self._count(roots)
        self._received(roots, 2 * STEPS, math.inf)

    def _turn(self, points: list[int], at_once: int, deadline: float) -> None:
        """Split the worst subproblems of each point."""
        parents, tried = [], []
        for point in points:
            heap = self.heaps[point]
            for _ in range(min(at_once, len(heap))):
                _, _, row, numbers, units = heappop(heap)
                parents.append((point, row, numbers))
                tried.append(units)
        whole = self.relaxations.unpacked(*zip(*parents, strict=True))
        step = max(1, NUMBERS // (TRIED * self.widest))
        children = [
            self._split(whole.at(slice(first, first + step)), whole.point.new_tensor(tried[first : first + step]))
            for first in range(0, len(parents), step)
        ]
        self._received(Subproblems.joined(children), STEPS, deadline)

    def _settle(self) -> None:
        """What is left with no subproblem is robust, if all were proven."""
        for outcome, heap in zip(self.group.outcome, self.heaps, strict=True):
            if not math.isnan(outcome):
                heap.clear()
        while sum(map(len, self.heaps)) * self.relaxations.packed_size > LARGEST_HEAPS:
            largest = max(range(len(self.heaps)), key=lambda point: len(self.heaps[point]))
            self.heaps[largest].clear()
            self.complete[largest] = False
        for point in self.group.open:
            if not self.heaps[point] and not self.given_up[point]:
                if self.complete[point]:
                    self.group.outcome[point] = ROBUST
                else:
                    self.given_up[point] = True

    def _count(self, some: Subproblems) -> None:
        self.bounded += np.bincount(some.point.cpu().numpy(), minlength=len(self.bounded))

    def _received(self, some: Subproblems, steps: int, deadline: float) -> None:
        """Improve subproblems; keep those that are not proven."""
        relaxations, group = self.relaxations, self.group
        step = max(1, NUMBERS // self.widest)
        for first in range(0, len(some.point), step):
            part = some.at(slice(first, first + step))
            bounded, part = relaxations.improved(part, steps, self._enough(part))
            left = ~self._proven(part, bounded.value)
            part = part.at(left)
            group.attack(part.point, self._corners(part.point, bounded.pixels[left]), self.bounded)
            self._push(part, bounded.value[left], bounded.entering[left], deadline)
        self._settle()

    def _push(self, some: Subproblems, value: torch.Tensor, entering: torch.Tensor, deadline: float) -> None:
        places, possible = self.relaxations.places(some)
        costs = torch.where(possible, self.relaxations.costs(some, entering, places), -1.0)
        tried = costs.topk(min(TRIED, costs.shape[1])).indices.tolist()
        splittable, packed = possible.any(1).tolist(), self.relaxations.packed(some)
        for index, (point, row, bound) in enumerate(
            zip(some.point.tolist(), some.row.tolist(), value.tolist(), strict=True)
        ):
            if not math.isnan(self.group.outcome[point]):
                continue
            if splittable[index]:
                kept = (bound, next(self.numbers), row, packed[index].copy(), tried[index])
                heappush(self.heaps[point], kept)
            else:
                self.complete[point] &= self._leaf(some.at(slice(index, index + 1)), deadline)

    def _enough(self, some: Subproblems) -> torch.Tensor:
        return self.enough[some.point, some.row]

    def _proven(self, some: Subproblems, value: torch.Tensor) -> torch.Tensor:
        """Which bounds exceed what is enough, in float64 too."""
        enough = self._enough(some)
        proven = value > enough
        if proven.any():
            proven[proven.clone()] = self.exactly.bounds(some.at(proven).to(torch.float64)).value > enough[proven]
        return proven

    def _split(self, parents: Subproblems, tried: torch.Tensor) -> Subproblems:
        """Both halves of B subproblems, at the best of their units `tried` [B, T]; without what is proven by that."""
        places, possible = (values.gather(1, tried) for values in self.relaxations.places(parents))
        each = torch.arange(len(tried), device=tried.device).repeat_interleave(tried.shape[1])
        units, at = tried.view(-1, 1), places.view(-1, 1)
        enough = self._enough(parents)[:, None]
        halves, reached = [], []
        for side in ("low", "high"):
            half = parents.at(each)
            half = half._replace(**{side: getattr(half, side).scatter(1, units, at)})
            halves.append(half)
            reached.append(self.relaxations.bounds(half).value.view(tried.shape))
        total = sum(bounds.clamp(max=enough) for bounds in reached)
        best = torch.where(possible, total, -torch.inf).argmax(1)
        kept = []
        for half, bounds in zip(halves, reached, strict=True):
            chosen = half.at(torch.arange(len(tried), device=tried.device) * tried.shape[1] + best)
            self._count(chosen)
            kept.append(chosen.at(~self._proven(chosen, bounds.gather(1, best[:, None])[:, 0])))
        return Subproblems.joined(kept)

    def _corners(self, points: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """The images [B, h, w, c] that minimise linear functions [B, d]."""
        shape = self.group.x.shape[1:]
        return self.group.around.at(points).steepest(-pixels.unflatten(-1, shape).to(self.group.x.dtype))

    def _leaf(self, subproblem: Subproblems, deadline: float) -> bool:
        """Whether a subproblem with nothing left to split is proven; looks for an image that violates there."""
        fixed = (subproblem.low[0] == 0) | (subproblem.high[0] == 0)
        if not self.linear_pieces or not fixed.any():
            return False  # curved, or its bound was the exact minimum
        point, around = subproblem.point, self.group.around.at(subproblem.point)
        sign = torch.where(subproblem.low[0] == 0, 1.0, -1.0).to(torch.float64)
        exactly = self.exactly
        active = torch.where(fixed, sign > 0, exactly.low[point[0]] >= 0).to(torch.float64)
        # Under these signs what enters the units, and the margin, are linear functions of the displacement.
        slopes, values, entering = torch.eye(around.centre.shape[1]).to(active), around.centre[0], []
        for (kernel, bias), on in zip(self.affine[:-1], active.split(exactly.widths), strict=True):
            slopes, values = slopes @ kernel.to_dense(), values @ kernel.to_dense() + bias
            entering.append((slopes, values))
            slopes, values = slopes * on, values * on
        at, offset = (torch.cat(parts, -1)[..., fixed] * sign[fixed] for parts in zip(*entering, strict=True))
        kept = exactly.kept[point]
        row = (exactly.columns[kept] - exactly.columns[subproblem.row + (subproblem.row >= kept)])[0]
        seconds = deadline - time.monotonic()
        solved, displacement = linear_programs.solve(around, slopes @ row, at.T, offset, seconds, row.abs().amax())
        multipliers = torch.zeros_like(subproblem.multipliers, dtype=torch.float64)
        multipliers[0, fixed] = solved * sign[fixed] / exactly.sizes[point[0], fixed]
        bounded = exactly.bounds(subproblem.to(torch.float64)._replace(multipliers=multipliers))
        image = (around.centre[0] + displacement).view(self.group.x.shape[1:])
        images = torch.cat([around.project(image).to(self.group.x.dtype), self._corners(point, bounded.pixels)])
        self.group.judge(point.expand(2), images)
        return bool(bounded.value > self._enough(subproblem))
