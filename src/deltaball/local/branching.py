"""Branch and bound over what enters the units: how small do some rows become, of one network, many points at once?

A row is a linear function of the logits, such as the lead of one class over another. `subproblems` bounds it from below
where some units' inputs lie to one side of the places where they were split: of ReLUs of a known sign. What is not
large enough is split at the unit whose two halves have the largest bounds on average, tried out for the units whose
lines cost most (after De Palma et al. 2021, "Improved branch and bound for neural network verification via Lagrangian
decomposition": filtered smart branching). The image that minimises a bound is a candidate for a violation, and from
some of them gradients lead on: that violates a network with max-pools which 10,000 subproblems and PGD's usual starts
leave open (`benchmarks/pools.py`). Where all signs are fixed the network is linear, and a linear program gives the best
multipliers. Max-pools become ReLUs: max(a, b) = a + relu(b - a). Where one follows an activation, either may come
first. A few subproblems may be enough in one order where the other needs thousands, and neither is always the better
one. So both are searched, in turns (`benchmarks/pools.py`).

All points share their time: each gets a few subproblems first, those still open four times as many, and so on, until
all are closed or the time is spent. The subproblems of many points are bounded together, in float32; what seems large
enough is bounded once more in float64, and only that counts.

Before that, quadratic functions bound what CROWN does not prove (`quadratics`); of a network with many undecided units
they prove in a tenth of a second what splits do not in minutes. Of a network with few units the first round is faster,
and comes first. Convolutions are bounded by quadratic functions as they are; written as dense layers, they have
thousands of units, and few subproblems fit into a second.

Bounds of the second layer's inputs by CROWN, made anew after every third or sixth split of the first layer's, were
measured too: on 2×128 at δ = 0.05 they were a sixteenth narrower, cost as much as the splits, and the smallest bounds
were lower in equal time. So they are as they are at the root. There, α-CROWN's in their place were 0.7 % narrower on
2×64, decided the sign of no more units, and saved 3 % of the subproblems for 0.06 s per point.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from heapq import heappop, heappush
from itertools import count
from typing import ClassVar

import numpy as np
import torch

from deltaball.local import linear_programs
from deltaball.local.attacks.gradients import annealing
from deltaball.local.balls import Ball
from deltaball.local.certificates.crown import layer_bounds
from deltaball.local.certificates.enclosures import enclosed
from deltaball.local.certificates.passages import Enclosure
from deltaball.local.coupling import exceeding
from deltaball.local.forms import Form, hidden_units
from deltaball.local.quadratics import quadratics, taken
from deltaball.local.subproblems import STEPS, Relaxations, Subproblems
from deltaball.networks.layers import Activation
from deltaball.networks.models import Layered

GROUP = 32  # points whose subproblems are bounded together

# Subproblems of a point in the first round; each later round has so many times as many.
FIRST, DEEPER = 64, 4

SHARE, MOST = 8, 128  # of a round's subproblems, this part is split at once, and no more than so many of a point

FEW = 32  # of a network of no more units the first round comes before quadratic bounds

COUPLED = 0.9  # of the time, at most, goes to quadratic bounds

TRIED = 8  # units tried out per split

NUMBERS = 2**18  # of units or pixels of the subproblems that are bounded at once

# From how many of the images that minimise a point's bounds gradients start: at first, for so many subproblems one
# more, and after each batch of them; their steps, and how many radii these are in all.
ATTACKS, ATTACK_EVERY, ATTACKS_AT_ONCE = 16, 64, 4
ATTACKING, TRAVELLED = 20, 2

LARGEST_HEAPS = 2**26  # numbers that a search keeps of a group's subproblems; the point with most is given up


def search(groups: Sequence["Group"], seconds: float) -> None:
    """Deeper and deeper, until all points are closed, or for so many seconds of processor time for each of them.

    By the wall clock a busy machine would leave more open than an idle one.
    """
    budget, deadline = FIRST, time.process_time() + seconds * sum(len(group.x) for group in groups)
    for index, group in enumerate(groups):
        if group.units <= FEW:
            group.advance(FIRST, deadline)
        now = time.process_time()
        group.couple(now + COUPLED * (deadline - now) / (len(groups) - index))
    while any(group.open for group in groups) and time.process_time() < deadline:
        for group in groups:
            group.advance(budget, deadline)
        budget *= DEEPER


class Group(ABC):
    """Some points x [n, h, w, c], their rows [n, R, classes], and a search for each order of the layers.

    What the logits in float32 give by a row is to exceed `above` [n, R] in the whole ball; -inf where nothing is asked.
    """

    partly: ClassVar[bool]  # whether bounds count that are lower than what rows are to exceed

    def __init__(
        self,
        model: Layered,
        forms: Sequence[Callable[[], Form]],
        x: torch.Tensor,
        ball: Ball,
        rows: torch.Tensor,
        above: torch.Tensor,
    ) -> None:
        self.model, self.x, self.around = model, x, ball.around(x)
        self.rows, self.above = rows.to(torch.float64), above.to(torch.float64)
        self.closed = np.zeros(len(x), bool)  # whether nothing more is to be found out of a point
        self.seconds = np.zeros(len(x))
        self.attacked = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.coupled = torch.full_like(self.above, -torch.inf)  # lower bounds of rows by quadratic functions
        self.searches = [_Search(self, form) for form in forms]
        self.asked = self.above > -torch.inf  # what is not proven without subproblems

    @property
    def open(self) -> list[int]:
        """The points that some search may still close."""
        given_up = np.all([search.given_up for search in self.searches], 0)
        return np.flatnonzero(~self.closed & ~given_up).tolist()

    @property
    def units(self) -> int:
        """How many units the network has, written as dense layers."""
        return hidden_units(self.searches[0].form())

    @cached_property
    def enclosure(self) -> Enclosure:
        """CROWN's bounds of the logits."""
        return enclosed(self.model, self.around, "crown")

    @cached_property
    def error(self) -> torch.Tensor:
        """By how much float32 may be off in each row, [n, R]."""
        return (self.rows.abs() * self.enclosure.error[0][:, None]).sum(-1)

    @property
    def broken(self) -> torch.Tensor:
        """Around which points [n] a forward pass in float32 may overflow."""
        return ~self.enclosure.error[0].isfinite().all(-1)

    @abstractmethod
    def judge(self, points: torch.Tensor, images: torch.Tensor) -> None:
        """Learn from images [B, h, w, c] in [0, 1] of the points [B]."""

    @abstractmethod
    def proven(self, point: int) -> None:
        """All rows of a point exceed what they are to."""

    @abstractmethod
    def least(self, points: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """What images with logits [B, classes] should make small, [B]."""

    def advance(self, budget: int, deadline: float) -> None:
        """Up to so many subproblems of each open point, in each order of the layers."""
        for search in self.searches:
            search.advance(budget, deadline)

    def couple(self, deadline: float) -> None:
        """Bound by quadratic functions what CROWN does not prove."""
        started = time.process_time()
        network = taken(self.model, self.searches[0].form, self.around)
        if network is None or started > deadline:
            return
        self._found(self.enclosure.lower(self.rows[None])[0])
        left = self.asked & torch.from_numpy(~self.closed).to(self.asked.device)[:, None]
        point, row = (left & self.error.isfinite()).nonzero(as_tuple=True)
        if len(point):
            enough = (self.above + self.error)[point, row]
            asked = quadratics(network, self.around, point, self.rows[point, row])
            coupled = exceeding(*asked, enough, deadline, self.partly)
            found = torch.full_like(self.above, -torch.inf)
            found[point, row] = coupled
            self._found(found)
        shares = np.bincount(point.cpu().numpy(), minlength=len(self.x)) + 1e-9
        self.seconds += (time.process_time() - started) * shares / shares.sum()

    def _found(self, lower: torch.Tensor) -> None:
        """Lower bounds of rows, [n, R]."""
        self.coupled = torch.fmax(self.coupled, lower)
        self.asked &= ~(lower > self.above + self.error)
        for point in (~self.asked.any(-1)).nonzero()[:, 0].tolist():
            if not self.closed[point]:
                self.proven(point)

    def attack(self, points: torch.Tensor, images: torch.Tensor, bounded: np.ndarray) -> None:
        """Judge images [B, h, w, c] for the points [B], and where gradients lead from the best of them.

        It is worth a small part of what `bounded` subproblems [n] took.
        """
        if not len(images):
            return
        self.judge(points, images)
        order = self.least(points, self.model(images)[0]).argsort(stable=True)
        order = order[points[order].argsort(stable=True)]
        points, images = points[order], images[order]
        rank = torch.arange(len(points), device=points.device) - torch.searchsorted(points, points)
        allowed = ATTACKS + torch.from_numpy(bounded // ATTACK_EVERY).to(points) - self.attacked
        chosen = rank < allowed.clamp(max=ATTACKS_AT_ONCE)[points]
        points, images = points[chosen], images[chosen][None]
        if not len(points):
            return
        self.attacked += torch.bincount(points, minlength=len(self.x))
        around = self.around.at(points)
        for step in range(ATTACKING):
            self.judge(points, images[0])
            length = TRAVELLED * self.around.radius * 2 * annealing(step, ATTACKING) / ATTACKING
            images = around.returned(around.stepped(images, self._downhill(points, images), length))
        self.judge(points, images[0])

    def _downhill(self, points: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            loss = -self.least(points, self.model(leaf)[0]).sum()
        return torch.autograd.grad(loss, leaf)[0]


class _Search:
    """Branch and bound of a group's points, by one order of the layers."""

    def __init__(self, group: Group, form: Callable[[], Form]) -> None:
        self.group, self.form = group, form
        points = len(group.x)
        self.heaps: list[list] = [[] for _ in range(points)]
        self.bounded = np.zeros(points, np.int64)
        self.numbers = count()
        # What is proven of each row by subproblems that are no longer kept, though it is not enough.
        self.floor = torch.full(group.above.shape, torch.inf, dtype=torch.float64, device=group.x.device)
        self.complete = np.ones(points, bool)  # whether all that is not kept is large enough
        self.given_up = np.zeros(points, bool)
        self.relaxations: Relaxations | None = None

    def advance(self, budget: int, deadline: float) -> None:
        """Up to so many subproblems of each of the group's open points, or until the deadline."""
        at_once = min(budget // SHARE, MOST)
        while (left := self._left(budget)) and (started := time.process_time()) < deadline:
            before = self.bounded.copy()
            if self.relaxations is None:
                self._begin(left, deadline)
            else:
                self._turn(left, at_once, deadline)
            shares = np.maximum(self.bounded - before, 1e-9)
            self.group.seconds += (time.process_time() - started) * shares / shares.sum()

    def _left(self, budget: int) -> list[int]:
        return [one for one in self.group.open if not self.given_up[one] and self.bounded[one] < budget]

    def _begin(self, points: list[int], deadline: float) -> None:
        """Bound the units and the whole balls."""
        group = self.group
        dense, self.affine = self.form()
        around = group.around
        bounds = layer_bounds(dense, around, "crown", deadline)
        empty = group.rows.new_empty(len(group.x), 0)
        low, high = (
            torch.cat([empty, *(bound[0] for bound in side)], -1)
            for side in (zip(*bounds, strict=True) if bounds else [[]] * 2)
        )
        activations = [layer.name for layer in dense.layers if isinstance(layer, Activation)]
        self.widest = max(low.shape[1], around.centre.shape[1])
        self.linear_pieces = set(activations) <= {"relu"}
        given = (self.affine, activations, around, low, high, group.rows)
        self.relaxations, self.exactly = (Relaxations(*given, dtype) for dtype in (torch.float32, torch.float64))
        self.given_up |= group.broken.cpu().numpy()
        left = torch.tensor([point for point in points if not self.given_up[point]], dtype=torch.int64)
        if not len(left):
            return
        left = left.to(group.asked.device)
        place, row = group.asked[left].nonzero(as_tuple=True)
        roots = self.relaxations.roots(left[place], row)
        entering = self.relaxations.bounds(roots).entering.abs()
        parts = [part.amax(-1) for part in entering.split(self.relaxations.widths, -1) if part.shape[1]]
        for units, part in zip(self.relaxations.sizes.split(self.relaxations.widths, -1), parts, strict=True):
            units.copy_(
                part.new_zeros(len(group.x)).scatter_reduce(0, roots.point, part, "amax").clamp(min=1e-30)[:, None]
            )
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
        """Of what is left with no subproblem all rows are large enough, if all subproblems were."""
        for closed, heap in zip(self.group.closed, self.heaps, strict=True):
            if closed:
                heap.clear()
        while sum(map(len, self.heaps)) * self.relaxations.packed_size > LARGEST_HEAPS:
            largest = max(range(len(self.heaps)), key=lambda point: len(self.heaps[point]))
            self._drop(largest)
            self.complete[largest] = False
        for point in self.group.open:
            if not self.heaps[point] and not self.given_up[point]:
                if self.complete[point]:
                    self.group.proven(point)
                else:
                    self.given_up[point] = True

    def _drop(self, point: int) -> None:
        """Keep of a point's subproblems no more than what they prove of its rows."""
        kept, self.heaps[point] = self.heaps[point], []
        step = max(1, NUMBERS // self.widest)
        for first in range(0, len(kept), step):
            _, _, rows, numbers, _ = zip(*kept[first : first + step], strict=True)
            some = self.relaxations.unpacked([point] * len(rows), rows, numbers).to(torch.float64)
            self._unproven(some, self.exactly.bounds(some).value)

    def _unproven(self, some: Subproblems, value: torch.Tensor) -> None:
        """Note float64 bounds [B] of subproblems that are not kept."""
        value = value.nan_to_num(-torch.inf, torch.inf, -torch.inf)
        self.floor.view(-1).scatter_reduce_(0, some.point * self.floor.shape[1] + some.row, value, "amin")

    def reached(self) -> torch.Tensor:
        """Lower bounds [n, R] of the rows, as float32 logits give them; of those of which nothing is asked, too, inf.

        Ends the search.
        """
        group, found = self.group, self.group.coupled
        if self.relaxations is not None:
            for point in range(len(self.heaps)):
                self._drop(point)
            found = torch.maximum(self.floor, found)
        at_most = torch.minimum(found, group.above + group.error) - group.error
        return torch.where(group.broken[:, None], -torch.inf, at_most).where(group.above > -torch.inf, torch.inf)

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
        enough = self._enough(some).tolist()
        for index, (point, row, bound) in enumerate(
            zip(some.point.tolist(), some.row.tolist(), value.tolist(), strict=True)
        ):
            if self.group.closed[point]:
                continue
            if splittable[index]:
                kept = (bound - enough[index], next(self.numbers), row, packed[index].copy(), tried[index])
                heappush(self.heaps[point], kept)
            else:
                self.complete[point] &= self._leaf(some.at(slice(index, index + 1)), deadline)

    def _enough(self, some: Subproblems) -> torch.Tensor:
        return self.group.above[some.point, some.row] + self.group.error[some.point, some.row]

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
        if not self.linear_pieces or not fixed.any():  # curved, or its bound was the exact minimum
            self._unproven(subproblem, self.exactly.bounds(subproblem.to(torch.float64)).value)
            return False
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
        row = exactly.rows[point[0], subproblem.row[0]]
        seconds = deadline - time.process_time()
        solved, displacement = linear_programs.solve(around, slopes @ row, at.T, offset, seconds, row.abs().amax())
        multipliers = torch.zeros_like(subproblem.multipliers, dtype=torch.float64)
        multipliers[0, fixed] = solved * sign[fixed] / exactly.sizes[point[0], fixed]
        bounded = exactly.bounds(subproblem.to(torch.float64)._replace(multipliers=multipliers))
        image = (around.centre[0] + displacement).view(self.group.x.shape[1:])
        images = torch.cat([around.project(image).to(self.group.x.dtype), self._corners(point, bounded.pixels)])
        self.group.judge(point.expand(2), images)
        proven = bool(bounded.value > self._enough(subproblem))
        if not proven:
            self._unproven(subproblem, bounded.value)
        return proven
