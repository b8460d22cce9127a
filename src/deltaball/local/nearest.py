"""The nearest image of a class in a linear region, by a linear program with rows that are added as they are needed.

In the region an image x + d has the slacks a·d + c ≥ 0, each with its gradient a and its value c at x, and so do the
leads of the target over the other classes, with α subtracted; pixels stay in [0, 1]. The smallest ‖d‖∞ is ρ̂ of
Bastani et al. 2016 ("Measuring neural net robustness with constraints", Equation 5; their D(x) sets an inactive unit to
0, not an active one). With d = t u and s = 1 / t the program is

    maximise s subject to a·u + c s ≥ 0 for every row, and |u| ≤ 1,

which has no rows for |d| ≤ t, a solution always (u = 0, s = 0), and the distance t = 1 / s. It begins with the classes'
rows, and where the strongest of them alone would have the image. A pixel that ends at 0 or 1 there needs a bound and no
row, with v = u - r s in place of u, where r is its end; its |u| ≤ 1 is then a row, seldom violated. Rows that a
solution violates are added until there are none: the last solution is that of all rows.

The solver is not trusted: its multipliers bound s from above by weak duality, and where that bound and its s differ the
program is solved again from nothing (HiGHS was seen to end at a wrong optimum after a hot start). What is found is an
image that a forward pass has to confirm.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import highspy
import numpy as np
import torch

from deltaball.local.linear_programs import OPTIONS
from deltaball.local.regions import Region

# Rows that are added at once: those that the solution violates most, for the size of their layer. Where max-pools tie
# on a constant background there are thousands; those that end the way to the solution first took 3 to 12 times as long.
ADDED = 80

# Simplex iterations of one search, some seconds, after which it ends without an answer. On MNIST FCN 2×256 takes a
# median of 100, and of LeNet's images within 20/255 few take more than 1,000.
ITERATIONS = 20_000

# Slacks of less than this share of their layer's largest are likely to be violated by the next solution.
HARDLY_KEPT = 0.005

# A slack counts as violated by more than this share of its layer's largest; a pixel by this much.
VIOLATED, OUTSIDE = 1e-8, 1e-9

# By how much s may differ from what its multipliers prove.
GAP = 1e-6

# Multipliers, of 1 in all, from which a row holds the solution.
HOLDS = 1e-7


# Of a variable or row in a basis: at its lower end, in between, at its upper end.
STATES = [highspy.HighsBasisStatus.kLower, highspy.HighsBasisStatus.kBasic, highspy.HighsBasisStatus.kUpper]


class Nearest(NamedTuple):
    """The nearest image of the target in a region."""

    displacement: torch.Tensor  # float64 [h, w, c]; NaN where there is none
    # Its largest pixel; infinite where the region has no image of the target within `most`; NaN without an answer.
    distance: float
    holding: list[int]  # the region's slacks that keep it from being nearer, the strongest first
    rows: int  # of the last program, classes and pixels included
    programs: int  # that were solved
    cold: int  # of these, from nothing, for the first solution was not proven
    iterations: int  # of the simplex method, in all


def nearest(
    region: Region,
    kept: int,
    target: int,
    alpha: float = 0.0,
    most: float = 1.0,
    begin: Sequence[int] = (),
    every_row: bool = False,
    hot: bool = True,
    iterations: int = ITERATIONS,
) -> Nearest:
    """The nearest image to region.x at which `target` leads `kept` and all other classes by at least α.

    No further than `most`, in L∞, and in [0, 1]. The first program has the slacks `begin`, or `every_row`. Without
    `hot` each one is solved from nothing. x need not lie in the region; where it does and is of the target, there is
    none to be found. The search gives up after so many `iterations`, and where the solver's last word is not proven.
    """
    classes = len(region.logits)
    others = [kept, *(one for one in range(classes) if one not in (kept, target))]
    gradients = region.logit_gradients()
    rows, leads = gradients[target] - gradients[others], region.logits[target] - region.logits[others] - alpha
    search = _Search(region, most, hot, iterations)
    violated = search.violated(region.slacks.numpy())  # of a region in which x does not lie
    needed, lacking = torch.cat([rows, region.gradients(violated)]), torch.cat([leads, region.slacks[violated]])
    bounds = [
        (_least(row, -value, *search.room), place)
        for place, (row, value) in enumerate(zip(needed.numpy(), lacking.tolist(), strict=True))
        if value < 0
    ]
    least, strongest = max(bounds, default=(math.inf, 0))
    if not least <= most:
        return search.none(math.inf)
    search.least = least
    if every_row:
        every = np.ones(len(search.room[0]), bool)
        search.start(rows.numpy(), leads.numpy())
        search.add(range(len(region.slacks)), (every, every, ~every))
    else:
        search.cut(needed[strongest].numpy())
        search.start(rows.numpy(), leads.numpy())
        search.begin(needed[strongest].numpy(), strongest, [*violated.tolist(), *begin])
    return search.solved()


class _Search:
    """The program as far as it is written.

    Its variables are s, as a share of the largest possible, and the pixels' u; where a pixel is cut, u less its end.
    """

    def __init__(self, region: Region, most: float, hot: bool, iterations: int) -> None:
        self.region, self.most, self.hot, self.left = region, most, hot, iterations
        x = region.x.flatten().numpy()
        self.room = x, 1 - x  # how far each pixel can fall, and rise
        self.values = region.slacks.numpy()
        sizes = [region.slacks[:0], *region.slacks.split(region.sizes)][1:]
        largest = [part.abs().amax().clamp(min=1e-30).expand(len(part)) for part in sizes]
        self.scales = torch.cat(largest).numpy() if largest else self.values
        self.slacks: list[int] = []  # row by row, -1 for those of classes and pixels
        self.within = np.zeros(len(self.values), bool)
        # Of which pixels it is written that they stay above 0, that they stay below 1, and that |u| ≤ 1.
        self.bounded = np.zeros(len(x), bool), np.zeros(len(x), bool), np.ones(len(x), bool)
        self.ends = np.zeros(len(x))  # where pixels are cut, at the largest s
        self.least = 0.0  # the distance is known to be no smaller
        self.matrix: list[np.ndarray] = []  # [rows, d + 1], and the least value of each row
        self.floors: list[np.ndarray] = []
        self.programs = self.cold = self.iterations = 0

    def none(self, distance: float) -> Nearest:
        return self._ended(torch.full_like(self.region.x, torch.nan), distance, [])

    def _ended(self, displacement: torch.Tensor, distance: float, holding: list[int]) -> Nearest:
        effort = len(self.slacks), self.programs, self.cold, self.iterations
        return Nearest(displacement, distance, holding, *effort)

    def violated(self, slacks: np.ndarray) -> torch.Tensor:
        """Of the slacks that are violated, and have no row, those that are furthest below 0, in ascending order.

        With them come some that are hardly kept.
        """
        shares = slacks / self.scales
        shares[self.within] = np.inf
        which = np.flatnonzero(shares < (HARDLY_KEPT if shares.min(initial=np.inf) < -VIOLATED else -VIOLATED))
        if len(which) > ADDED:
            which = np.sort(which[np.argpartition(shares[which], ADDED)[:ADDED]])
        return torch.from_numpy(which)

    def cut(self, strongest: np.ndarray) -> None:
        """Cut the pixels that end at 0 or 1 in the nearest image that keeps the `strongest` row alone."""
        ways = (-1.0, strongest < 0), (1.0, strongest > 0)
        for (sign, moves), room, bounded in zip(ways, self.room, self.bounded, strict=False):
            cut = moves & (room > 0) & (room < self.least)
            self.ends[cut] = sign * room[cut] / self.least
            bounded[cut], self.bounded[2][cut] = True, False

    def start(self, rows: np.ndarray, leads: np.ndarray) -> None:
        """Write the classes' rows."""
        pixels, (low, high) = len(self.ends), (np.where(room > 0, 1.0, 0.0) for room in self.room)
        low = np.where(self.ends < 0, 0.0, -low - self.ends.clip(min=0))
        high = np.where(self.ends > 0, 0.0, high - self.ends.clip(max=0))
        self.low, self.high = np.append(low, 0.0), np.append(high, 1.0)
        self.solver = highspy.Highs()
        for option, value in OPTIONS.items():
            self.solver.setOptionValue(option, value)
        self.solver.setOptionValue("presolve", "off")  # which a hot start goes without, too
        self.solver.setOptionValue("objective_bound", -self.least / self.most * (1 - GAP))
        self.solver.addVars(pixels + 1, self.low, self.high)
        self.solver.changeColCost(pixels, -1.0)
        self._write(rows, leads, [-1] * len(rows))

    def begin(self, strongest: np.ndarray, place: int, which: Sequence[int]) -> None:
        """Begin at the nearest image that keeps one row alone, and write what that image violates, and some slacks.

        The row is the `strongest`, `place` of the classes' rows or, after them, of `which`. Without the other rows the
        image is optimal, so the dual simplex method starts there.
        """
        displacement = np.clip(self.least * np.sign(strongest), -self.room[0], self.room[1])
        classes, none = len(self.slacks), np.zeros(len(strongest), bool)
        self.add([*which, *self.violated(self.slacks_at(displacement)).tolist()], (none, none, none))
        held = np.ones(len(self.slacks), int)
        held[place if place < classes else self.slacks.index(which[place - classes])] = 0
        ends = np.append(np.where(strongest > 0, 2, 0), 1)
        start = highspy.HighsBasis()
        start.col_status, start.row_status = ([STATES[one] for one in part.tolist()] for part in (ends, held))
        self.solver.setBasis(start)

    def add(self, which: Sequence[int] | torch.Tensor, pixels: Sequence[np.ndarray]) -> None:
        """Write some slacks, and for some pixels [3, d] what `bounded` says."""
        rows, values, slacks = [], [], []
        signs, rooms = (1.0, -1.0, np.sign(self.ends)), (*self.room, np.ones(len(self.ends)))
        for sign, room, some, bounded in zip(signs, rooms, pixels, self.bounded, strict=True):
            places = np.flatnonzero(some & ~bounded & (room > 0))
            bounded[places] = True
            rows.append(np.zeros((len(places), len(room))))
            rows[-1][np.arange(len(places)), places] = np.broadcast_to(sign, room.shape)[places]
            values.append(room[places])
            slacks += [-1] * len(places)
        long = len(rows[2])
        values[2] = np.zeros(long)
        chosen = np.unique(np.asarray(which, np.int64))
        chosen = chosen[~self.within[chosen]]
        self.within[chosen] = True
        rows.append(self.region.gradients(torch.from_numpy(chosen)).numpy())
        floors = [np.zeros(len(slacks) - long), np.full(long, -1.0), np.zeros(len(chosen))]
        values.append(self.values[chosen])
        self._write(np.concatenate(rows), np.concatenate(values), [*slacks, *chosen.tolist()], np.concatenate(floors))

    def slacks_at(self, displacement: np.ndarray) -> np.ndarray:
        """The slacks [N] of the region's affine functions at the image that is moved by `displacement` [d]."""
        image = self.region.x + torch.from_numpy(displacement).view_as(self.region.x)
        return self.region.at(image)[1].numpy()

    def solved(self) -> Nearest:
        shape = self.region.x.shape
        while True:
            solution = self._solve()
            if isinstance(solution, float):
                return self.none(solution)
            values, multipliers = solution
            if not self.least <= self.most * (1 + GAP) * values[-1]:
                return self.none(math.inf)
            distance = self.least / values[-1]
            moved = values[:-1] + self.ends * values[-1]
            displacement = distance * moved
            violated = self.violated(self.slacks_at(displacement))
            outside = [-displacement > self.room[0] + OUTSIDE, displacement > self.room[1] + OUTSIDE]
            outside.append(np.abs(moved) > 1 + OUTSIDE)
            outside = [which & ~bounded for which, bounded in zip(outside, self.bounded, strict=True)]
            if not len(violated) and not any(which.any() for which in outside):
                break
            self.add(violated, outside)
        holding = [slack for slack in np.argsort(-multipliers) if multipliers[slack] > HOLDS]
        found = [self.slacks[row] for row in holding if self.slacks[row] >= 0]
        return self._ended(torch.from_numpy(displacement).view(shape), distance, found)

    def _write(self, rows: np.ndarray, values: np.ndarray, slacks: list[int], floors: np.ndarray | float = 0.0) -> None:
        """Add rows · u + values · s ≥ floors, each scaled to 1."""
        matrix = np.concatenate([rows, (values / self.least + rows @ self.ends)[:, None]], 1)
        largest = np.abs(matrix).max(1, initial=1e-30, keepdims=True)
        matrix /= largest
        self.matrix.append(matrix)
        self.floors.append(floors / largest[:, 0])
        self.slacks += slacks
        (height, width), places = matrix.shape, np.flatnonzero(matrix)
        starts, ends = np.searchsorted(places, np.arange(height) * width), (self.floors[-1], np.full(height, np.inf))
        self.solver.addRows(height, *ends, len(places), starts, places % width, matrix.ravel()[places])

    def _solve(self) -> tuple[np.ndarray, np.ndarray] | float:
        """Variables [d + 1] and multipliers [rows]; infinite where s is surely too small; NaN without an answer."""
        self.programs += 1
        for cold in (not self.hot, True):
            if cold:
                self.solver.clearSolver()
            self.solver.setOptionValue("simplex_iteration_limit", self.left - self.iterations)
            self.solver.run()
            self.iterations += self.solver.getInfo().simplex_iteration_count
            if self.solver.getModelStatus() == highspy.HighsModelStatus.kObjectiveBound:
                return math.inf
            solution = self.solver.getSolution()
            values, duals = np.array(solution.col_value), np.array(solution.row_dual)
            if self._proven(values, duals):
                return values, np.abs(duals)
            self.cold += 1
        return math.nan

    def _proven(self, values: np.ndarray, duals: np.ndarray) -> bool:
        """Whether a solution keeps all rows, and none can be larger."""
        if self.solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return False
        kept = all((rows @ values > least - GAP).all() for rows, least in zip(self.matrix, self.floors, strict=True))
        kept = kept and (values > self.low - GAP).all() and (values < self.high + GAP).all()
        parts = np.split(np.maximum(duals, 0), np.cumsum([len(rows) for rows in self.matrix])[:-1])
        reduced = sum(part @ rows for part, rows in zip(parts, self.matrix, strict=True))
        reduced[-1] += 1
        largest = np.maximum(reduced * self.low, reduced * self.high).sum()
        largest -= sum(part @ least for part, least in zip(parts, self.floors, strict=True))
        return kept and largest - values[-1] < GAP


def _least(row: np.ndarray, lacking: float, fall: np.ndarray, rise: np.ndarray) -> float:
    """The smallest ‖d‖∞ with row · d ≥ lacking, where no pixel falls or rises by more than it can; else infinite."""
    order = np.argsort(room := np.where(row < 0, fall, rise))
    slopes, room = np.abs(row)[order], room[order]
    free = slopes.sum() - slopes.cumsum() + slopes  # of the pixels that can still move
    gained = (free * np.diff(room, prepend=0.0)).cumsum()
    place = np.searchsorted(gained, lacking)
    if place == len(gained):
        return math.inf
    return float(room[place] - (gained[place] - lacking) / free[place]) if free[place] > 0 else float(room[place])
