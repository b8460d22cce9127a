"""Bounds by quadratic functions, which know that the inputs of many units cannot be extreme at once.

Lines around each activation are loose where many units are far from settled: each line is tight at its own image, and
the bound pays for all of them. A function g of one unit's input z lies above α z + β - κ (z - m)² / 2 with any α and
any κ ≥ 0, where β is the least value of g(z) - α z + κ (z - m)² / 2 in the interval; with a κ as large as the curvature
this touches g at m. What it pays, Σᵢ κᵢ (zᵢ - mᵢ)² / 2, is paid for all units of a layer together: these are a linear
function of what enters the layer, z - m = W (y - n), so that the sum is at most Σⱼ dⱼ (yⱼ - nⱼ)² / 2 for every d with
diag(d) ≥ Wᵀ diag(κ) W, such as dⱼ = λ sⱼ, where s > 0 and λ is the largest eigenvalue of √κ W diag(1 / s) Wᵀ √κ. The
centre n is free, and m = W n + b follows from it. Little is paid near n, so n is best where the whole is lowest. What
is left is a sum of functions of one number each: of the layer before, where yⱼ is an activation of one input, or of the
pixels. Second-order bounds with κ fixed (Singla & Feizi 2020, "Second-order provable defenses against adversarial
attacks") and the semidefinite relaxation (Raghunathan et al. 2018, "Semidefinite relaxations for certifying robustness
to adversarial examples") have the same aim; here α, κ, s and n are chosen by a few hundred steps of Adam (`coupling`),
without any semidefinite program. With κ = 0 this is CROWN with the best lines.

Convolutions have κ = 0: each unit sees few pixels, which can well be extreme at once. Where a κ for each, with its
centre, was tried (5 filters of 3×3), many more steps, and dearer ones, gained little. What leaves a pool is one number
of its window, and what a dense layer pays for that is known exactly.

Whatever is chosen, the bound holds. Minima over intervals are taken on a grid, less what a function of bounded
curvature can fall below its values at the ends of a cell.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from deltaball.local.certificates.crown import bounded
from deltaball.local.certificates.layered import fused, stages_of
from deltaball.local.certificates.lines import pool_lines
from deltaball.local.certificates.stages import ConvStage, DenseStage, Stage
from deltaball.local.forms import Form
from deltaball.local.neighbourhoods import Neighbourhood
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.models import Layered

# Of an activation: its largest second derivative, where it has one; a ReLU's grid has its kink.
CURVATURES = {"relu": 0.0, "tanh": 0.77, "sigmoid": 0.0963}

MOST_UNITS = 256  # of a dense layer, for the eigenvalues

COARSE, FINE = 24, 512  # cells of an interval, while choosing and for the bound that counts

# Where Adam begins, close to where it ended on trained networks. κ is a share of the curvature of what the unit adds,
# one share where that is concave and one where it is convex, and a share of the d of the layer behind. s is a power of
# how far an input moves what enters the units.
CONCAVE, CONVEX, PASSED, MOVED = 0.6, 0.1, 2.0, 0.5

TURNS = 8  # steps of the power iteration for the largest eigenvalue before Adam's first

NUMBERS = 2**22  # at once, of the bounds that count

SLACK = 1e-9  # of the numbers that make a bound, more than their rounding in float64


class Chosen(NamedTuple):
    """What is free of one layer, for B rows; of a convolution slopes alone, and the others are empty."""

    slopes: torch.Tensor  # [B, units] α is so many times the coefficient of what leaves the unit
    curvatures: torch.Tensor  # [B, units] log κ
    weights: torch.Tensor  # [B, inputs] log s
    centres: torch.Tensor  # [B, inputs] n, from the middle, in reaches


class Started(NamedTuple):
    """Where the choices of a layer begin, and about what they leave to the layer before."""

    chosen: Chosen
    vector: torch.Tensor  # [B, units]
    coefficients: torch.Tensor  # [B, inputs] c
    squares: torch.Tensor  # [B, inputs] d


class Passed(NamedTuple):
    """A sum of functions of what enters a layer, below a row of B: value + c y - Σ d (y - n)² / 2."""

    value: torch.Tensor  # [B]
    size: torch.Tensor  # [B] how large the numbers are that made it
    coefficients: torch.Tensor  # [B, inputs] c
    squares: torch.Tensor  # [B, inputs] d
    centres: torch.Tensor  # [B, inputs] n

    def on(self, value: torch.Tensor, size: torch.Tensor, *entering: torch.Tensor) -> "Passed":
        """The same sum one layer further on: with `value` and `size` added, and of what is `entering`."""
        return Passed(self.value + value, self.size + size, *entering)


class Part(ABC):
    """A layer with its activation, around n points whose inputs lie within `reach` of `middle` [n, inputs].

    After `at` there is a row for each of B rows, of the points where they are asked.
    """

    def __init__(
        self, stage: Stage, low: torch.Tensor, high: torch.Tensor, middle: torch.Tensor, reach: torch.Tensor
    ) -> None:
        self.stage, self.low, self.high, self.middle, self.reach = stage, low, high, middle, reach
        self.entering = stage.at(middle)[0]
        self.leaving = stage.activated(self.entering)
        ends = (stage.activated(end) for end in (low, high))
        self.reach_leaving = torch.stack([(end - self.leaving).abs() for end in ends]).amax(0)

    def at(self, index: torch.Tensor) -> "Part":
        """The part at some of its rows."""
        chosen = copy(self)
        for name in ("low", "high", "middle", "reach", "entering", "leaving", "reach_leaving"):
            setattr(chosen, name, getattr(self, name)[index])
        return chosen

    @abstractmethod
    def started(self, coefficients: torch.Tensor, squares: torch.Tensor) -> Started:
        """What to begin with for c and d [B, units] of what leaves."""

    @abstractmethod
    def turned(self, own: Chosen, vector: torch.Tensor) -> torch.Tensor:
        """A vector [B, units] that is closer to that of the largest eigenvalue."""

    @abstractmethod
    def passed(self, after: Passed, own: Chosen, vector: torch.Tensor | None) -> Passed:
        """What is below functions of what leaves: functions of what enters.

        With a `vector` [B, units], the eigenvalue is taken at it, which may be too small, and grids are coarse.
        """

    def pulled(self, slopes: torch.Tensor) -> torch.Tensor:
        """Slopes [B, units] of what goes into the activations, as those of what enters [B, inputs]."""
        return self.stage.pulled(slopes[None, :, None])[0, :, 0]


class Coupled(Part):
    """A dense layer."""

    def started(self, coefficients: torch.Tensor, squares: torch.Tensor) -> Started:
        name, function = self.stage.activation, ACTIVATIONS[self.stage.activation]
        slopes = (function(self.high) - function(self.low)) / (self.high - self.low).clamp(min=1e-6)
        bent = (CURVATURES[name] or 1.0) * coefficients.abs()
        concave = coefficients < 0 if name == "relu" else coefficients * self.entering > 0
        curvatures = torch.where(concave, CONCAVE, CONVEX) * bent + PASSED * squares * slopes.square() + 1e-4
        moved = curvatures @ self.stage.kernel[0].square().T * self.reach.square()
        moved = moved / moved.mean(-1, keepdim=True).clamp(min=1e-30)
        weights = MOVED * moved.clamp(min=1e-6).log()
        own = Chosen(slopes, curvatures.log(), weights, torch.zeros_like(weights))
        vector = torch.ones_like(slopes)
        for _ in range(TURNS):
            vector = self.turned(own, vector)
        return Started(own, vector, self.pulled(coefficients * slopes), self._squares(own, vector))

    def turned(self, own: Chosen, vector: torch.Tensor) -> torch.Tensor:
        root, kernel = (own.curvatures / 2).exp(), self.stage.kernel[0]
        squares = self.reach.square() / own.weights.exp()
        vector = root * ((((vector * root) @ kernel.T) * squares) @ kernel)
        return vector / vector.norm(dim=-1, keepdim=True).clamp(min=1e-30)

    def passed(self, after: Passed, own: Chosen, vector: torch.Tensor | None) -> Passed:
        slopes, curvatures = after.coefficients * own.slopes, own.curvatures.exp()
        moved = self.reach * own.centres
        least = self._least(after, slopes, curvatures, self.entering + moved @ self.stage.kernel[0], vector is None)
        bias = self.stage.bias[0]
        size = least.abs().sum(-1) + slopes.abs() @ bias.abs()
        squares = self._squares(own, vector)
        return after.on(least.sum(-1) + slopes @ bias, size, self.pulled(slopes), squares, self.middle + moved)

    def _squares(self, own: Chosen, vector: torch.Tensor | None) -> torch.Tensor:
        """d [B, inputs]."""
        paid = self._largest(own, vector)[:, None] * own.weights.exp() * (self.reach > 0)
        return paid / self.reach.square().clamp(min=1e-30)

    def _largest(self, own: Chosen, vector: torch.Tensor | None) -> torch.Tensor:
        """The largest eigenvalue λ [B], at `vector` if there is one."""
        root, kernel, reach, weights = own.curvatures.exp().sqrt(), self.stage.kernel[0], self.reach, own.weights
        if vector is not None:
            return (((vector * root) @ kernel.T * reach).square() / weights.exp()).sum(-1)
        scaled = kernel * (reach / (weights / 2).exp())[..., None] * root[:, None]
        products = scaled.mT @ scaled
        finite = products.isfinite().flatten(1).all(1)
        largest = torch.linalg.eigvalsh(products.where(finite[:, None, None], 0.0))[:, -1].clamp(min=0)
        return torch.where(finite, largest * (1 + SLACK), torch.inf)

    def _least(
        self, after: Passed, slopes: torch.Tensor, curvatures: torch.Tensor, touching: torch.Tensor, certain: bool
    ) -> torch.Tensor:
        """The least values [B, units] of c y - d (y - n)² / 2 + κ (z - m)² / 2 - α z, where y is the activation of z.

        The slopes are α, `touching` is m.
        """
        name, low, high = self.stage.activation, self.low, self.high
        cells = FINE if certain else COARSE
        shares = torch.linspace(0, 1, cells + 1, dtype=low.dtype, device=low.device)[:, None]
        inputs = low[:, None] + (high - low)[:, None] * shares
        if name == "relu":
            inputs = torch.cat([inputs, torch.zeros_like(low).clamp(low, high)[:, None]], 1)
        with torch.no_grad():
            values = self._values(after, slopes, curvatures, touching, inputs)
        if not certain:
            return self._values(after, slopes, curvatures, touching, _least_at(inputs, values))[:, 0]
        # A function falls below its chord by no more than its curvature times the square of the width, over 8.
        farthest = self.reach_leaving + (after.centres - self.leaving).abs()
        steepest = CURVATURES[name] * (after.coefficients.abs() + after.squares * farthest) + curvatures
        width, farthest = (high - low) / cells, torch.maximum((low - touching).abs(), (high - touching).abs())
        factors = slopes.abs() + after.coefficients.abs() + curvatures * farthest
        rounding = SLACK * (values.abs().amax(1) + factors * (torch.maximum(low.abs(), high.abs()) + farthest))
        return values.amin(1) - steepest * width.square() / 8 - rounding

    def _values(
        self,
        after: Passed,
        slopes: torch.Tensor,
        curvatures: torch.Tensor,
        touching: torch.Tensor,
        inputs: torch.Tensor,
    ) -> torch.Tensor:
        """The values at inputs [B, some, units]."""
        leaving = ACTIVATIONS[self.stage.activation](inputs)
        apart = leaving - after.centres[:, None]
        beyond = inputs - touching[:, None]
        values = after.coefficients[:, None] * leaving - after.squares[:, None] / 2 * apart.square()
        return values + curvatures[:, None] / 2 * beyond.square() - slopes[:, None] * inputs


class Windowed(Part):
    """A convolution with ReLUs, and with a max-pool or none."""

    def started(self, coefficients: torch.Tensor, squares: torch.Tensor) -> Started:
        ends = (end.to(torch.float64) for end in self._ends())
        below, _, above, _ = pool_lines(self.stage.curve.lines, ACTIVATIONS["relu"], *ends)
        slopes = torch.where(coefficients[:, None] > 0, below, above).flatten(1).to(coefficients.dtype)
        nothing, entering = slopes[:, :0], self.pulled(self._repeated(coefficients) * slopes)
        return Started(Chosen(slopes, *[nothing] * 3), nothing, entering, torch.zeros_like(entering))

    def turned(self, own: Chosen, vector: torch.Tensor) -> torch.Tensor:
        return vector

    def passed(self, after: Passed, own: Chosen, vector: torch.Tensor | None) -> Passed:
        slopes, bias = self._repeated(after.coefficients) * own.slopes, self.stage.bias[0]
        least, size = self._least(after, slopes.unflatten(1, (self.stage.phases, -1)))
        entering = self.pulled(slopes)
        size = size + slopes.abs() @ bias.abs()
        nothing = torch.zeros_like(entering)
        return after.on(least + slopes @ bias, size, entering, nothing, nothing)

    def _least(self, after: Passed, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum [B] over pools of the least values of c y - d (y - n)² / 2 - Σᵢ αᵢ zᵢ, y being the largest of 0 and
        of the zᵢ, and the sizes of its terms.

        At a given y all zᵢ are at most y, and unless y is 0 one of them is y. So each takes the better end of what is
        left to it, and one moves up to y. As a function of y that is concave between the places where some zᵢ can
        follow no further, so that the least value is at one of these.
        """
        low, high = self._ends()
        floor = low.amax(1, keepdim=True).clamp(min=0)
        candidates = torch.cat([floor, torch.maximum(high, floor)], 1)
        with torch.no_grad():
            values = [self._values(after, slopes, low, high, largest) for largest in candidates.unbind(1)]
            best = _least_at(candidates, torch.stack(values, 1))[:, 0]
        least = self._values(after, slopes, low, high, best)
        farthest = self.reach_leaving + (after.centres - self.leaving).abs()
        size = after.coefficients.abs() * candidates.amax(1) + after.squares * farthest.square()
        return least.sum(-1), size.sum(-1) + 2 * (slopes.abs() * torch.maximum(low.abs(), high.abs())).sum((1, 2))

    def _values(
        self,
        after: Passed,
        slopes: torch.Tensor,
        low: torch.Tensor,
        high: torch.Tensor,
        largest: torch.Tensor,
    ) -> torch.Tensor:
        """The least values [B, pools] where y is `largest` [B, pools]."""
        apart, y = largest - after.centres, largest[:, None]
        falling, rising = slopes.clamp(max=0), slopes.clamp(min=0)
        free = (rising * torch.minimum(high, y) + falling * low).sum(1)
        moved = (falling * (low - y)).masked_fill(high < y, torch.inf).amin(1).masked_fill(largest <= 0, 0.0)
        return after.coefficients * largest - after.squares / 2 * apart.square() - free + moved

    def _ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        phases = (self.stage.phases, -1)
        return self.low.unflatten(1, phases), self.high.unflatten(1, phases)

    def _repeated(self, coefficients: torch.Tensor) -> torch.Tensor:
        return coefficients.repeat(1, self.stage.phases)


def _least_at(inputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The inputs of the least values along the second axis; several times faster than argmin over so few."""
    return torch.where(values == values.amin(1, keepdim=True), inputs, torch.inf).amin(1, keepdim=True)


PARTS = {DenseStage: Coupled, ConvStage: Windowed}


@dataclass(frozen=True)
class Quadratics:
    """B rows of the logits of one network, each around its point.

    `rows` [B, classes]; `middle` and `reach` [B, pixels] of the boxes; `last` is the affine layer behind the `parts`.
    """

    rows: torch.Tensor
    parts: Sequence[Part]
    last: Stage
    middle: torch.Tensor
    reach: torch.Tensor

    @staticmethod
    def take(model: Layered, around: Neighbourhood) -> bool:
        """Whether there are such bounds of a network in such balls."""
        if not around.is_box or not fused(model.layers):
            return False
        *inner, _ = stages_of(model)
        return inner != [] and all(
            stage.activation == "relu"
            if isinstance(stage, ConvStage)
            else stage.activation in CURVATURES and stage.units <= MOST_UNITS
            for stage in inner
        )

    @classmethod
    def of(
        cls,
        stages: Sequence[Stage],
        bounds: Sequence[tuple[torch.Tensor, torch.Tensor]],
        around: Neighbourhood,
        point: torch.Tensor,
        rows: torch.Tensor,
        dtype: torch.dtype,
    ) -> "Quadratics":
        """Rows of points [B], of which `bounds` enclose what enters each stage but the last."""
        *inner, last = [replace(stage, kernel=stage.kernel.to(dtype), bias=stage.bias.to(dtype)) for stage in stages]
        least, most = around.box
        ends = (around.centre + (least + most) / 2).to(dtype), ((most - least) / 2).to(dtype)
        (middle, reach), parts = ends, []
        for stage, (low, high) in zip(inner, bounds, strict=True):
            parts.append(PARTS[type(stage)](stage, low[0].to(dtype), high[0].to(dtype), middle, reach))
            middle, reach = parts[-1].leaving, parts[-1].reach_leaving
        middle, reach = (end[point] for end in ends)
        return cls(rows.to(dtype), [part.at(point) for part in parts], last, middle, reach)

    def at(self, index: torch.Tensor) -> "Quadratics":
        """The same of some of the rows."""
        rows, middle, reach = (own[index] for own in (self.rows, self.middle, self.reach))
        return Quadratics(rows, [part.at(index) for part in self.parts], self.last, middle, reach)

    def started(self) -> tuple[list[Chosen], list[torch.Tensor]]:
        """Where to begin, and vectors near those of the largest eigenvalues."""
        coefficients, found = self._pulled, []
        squares = torch.zeros_like(coefficients)
        for part in reversed(self.parts):
            own, vector, coefficients, squares = part.started(coefficients, squares)
            found.insert(0, (own, vector))
        return [own for own, _ in found], [vector for _, vector in found]

    def bounds(self, chosen: Sequence[Chosen], vectors: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """Lower bounds [B].

        With `vectors` [B, units] of each layer, eigenvalues are taken at these, which may be too small, and grids are
        coarse: for choosing.
        """
        rows, bias, coefficients = self.rows, self.last.bias[0], self._pulled
        nothing = torch.zeros_like(coefficients)
        passed = Passed(rows @ bias, rows.abs() @ bias.abs(), coefficients, nothing, nothing)
        for index in reversed(range(len(self.parts))):
            vector = None if vectors is None else vectors[index]
            passed = self.parts[index].passed(passed, chosen[index], vector)
        ends = [self.middle - self.reach, self.middle + self.reach]
        least, most = (passed.coefficients * end - passed.squares / 2 * (end - passed.centres).square() for end in ends)
        lowest = torch.minimum(least, most)
        return passed.value + lowest.sum(-1) - SLACK * (passed.size + (least.abs() + most.abs()).sum(-1))

    def certain(self, chosen: Sequence[Chosen]) -> torch.Tensor:
        """Lower bounds [B], some at a time; -inf where numbers are too large."""
        largest = max(max(part.stage.fan_in, FINE) * part.stage.units for part in self.parts)
        parts = torch.arange(len(self.rows), device=self.rows.device).split(max(1, NUMBERS // largest))
        found = [
            self.at(some).bounds([Chosen(*(part[some].to(self.rows) for part in own)) for own in chosen])
            for some in parts
        ]
        return torch.cat(found).nan_to_num(-torch.inf, torch.inf, -torch.inf)

    def turned(self, chosen: Sequence[Chosen], vectors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Vectors that are closer to those of the largest eigenvalues."""
        return [part.turned(*given) for part, *given in zip(self.parts, chosen, vectors, strict=True)]

    @property
    def _pulled(self) -> torch.Tensor:
        return self.last.pulled(self.rows[None, :, None])[0, :, 0]


def taken(model: Layered, form: Callable[[], Form], around: Neighbourhood) -> Layered | None:
    """The model, or what it is as dense layers, whichever there are quadratic bounds of; None of neither."""
    if Quadratics.take(model, around):
        return model
    dense, _ = form()
    return dense if Quadratics.take(dense, around) else None


def quadratics(
    model: Layered, around: Neighbourhood, point: torch.Tensor, rows: torch.Tensor
) -> tuple[Quadratics, Quadratics]:
    """Of one network, in float32 to choose by and in float64; what enters its units is enclosed by CROWN."""
    stages = stages_of(model)
    around = stages[0].arranged(around)
    bounds, _ = bounded(stages, around, "crown")
    given = (stages, bounds, around, point, rows)
    return Quadratics.of(*given, torch.float32), Quadratics.of(*given, torch.float64)
