"""Bounds of many subproblems of branch and bound at once: of the points of one network, written as dense layers.

A subproblem is the part of a point's ball in which some units' inputs lie above or below the places where they were
split, and asks how small a linear function of the logits, a row, becomes there: by how much one class leads another,
for instance. CROWN bounds that from below. The lines'
free choices (α-CROWN, Xu et al. 2021, "Fast and complete") and Lagrange multipliers of the splits (β-CROWN, Wang et al.
2021; of any activation, Shi et al. 2024, "Neural network verification with branch-and-bound for general
nonlinearities") are improved by a few steps of Adam from where the parent left them.

The gradient needs no second backward pass. At the image that minimises the linear bound, by the lines in force, each
layer's inputs say how the bound moves with the lines and with the multipliers.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from deltaball.local.certificates.lines import CURVES, Lines, relu_lines
from deltaball.local.neighbourhoods import Neighbourhood
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.dense_form import Affine

STEPS = 5  # of Adam per subproblem; twice as many at the root

RATE = 0.2

NARROW = 1e-3  # intervals of an input that are split no further, where the activation is curved

STORED = torch.float16  # where a search begins and where units are split need few digits
LARGEST_STORED = 6e4  # multipliers are cut there, which no bound's soundness needs


class Subproblems(NamedTuple):
    """B subproblems of networks with N units, whose lines leave C choices each."""

    point: torch.Tensor  # int64 [B]
    row: torch.Tensor  # int64 [B] which of the point's rows
    low: torch.Tensor  # [B, N] what enters is no smaller, -inf where it was not split
    high: torch.Tensor  # [B, N]
    choices: torch.Tensor  # [B, C, N] in [0, 1]
    multipliers: torch.Tensor  # [B, N] in units of `Relaxations.sizes`: of `low` where positive, else of `high`

    def at(self, index: torch.Tensor) -> "Subproblems":
        return Subproblems(*(part[index] for part in self))

    def to(self, dtype: torch.dtype) -> "Subproblems":
        return Subproblems(self.point, self.row, *(part.to(dtype) for part in self[2:]))

    @classmethod
    def joined(cls, parts: Sequence["Subproblems"]) -> "Subproblems":
        return cls(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


class Bounded(NamedTuple):
    """What one backward pass gives."""

    value: torch.Tensor  # [B] lower bounds
    entering: torch.Tensor  # [B, N] coefficients of what leaves the units
    pixels: torch.Tensor  # [B, d] coefficients of the pixels


class Relaxations:
    """n points of one network: what bounds their subproblems.

    `affine` are the dense layers and `activations` those after all but the last; `low` and `high` [n, N] enclose what
    enters the units. `rows` [n, R, classes] are functions of the logits.
    """

    def __init__(
        self,
        affine: Affine,
        activations: Sequence[str],
        around: Neighbourhood,
        low: torch.Tensor,
        high: torch.Tensor,
        rows: torch.Tensor,
        dtype: torch.dtype,
    ) -> None:
        self.activations, self.around, self.dtype = activations, around, dtype
        self.low, self.high = low.to(dtype), high.to(dtype)
        self.kernels = [kernel.to(dtype) for kernel, _ in affine]
        self.transposed = [kernel.t().contiguous() if not kernel.is_sparse else kernel.t() for kernel in self.kernels]
        self.biases = [bias.to(dtype) for _, bias in affine]
        self.widths = [len(bias) for bias in self.biases[:-1]]
        rows = rows.to(dtype)
        # What leaves the last units enters the rows by these.
        self.rows, self.offsets = (
            _times(rows.flatten(0, 1), self.kernels[-1]).unflatten(0, rows.shape[:2]),
            rows @ self.biases[-1],
        )
        self.sizes = torch.ones_like(self.low)
        low, high = around.box
        self.middle = (around.centre + (low + high) / 2 if around.is_box else around.centre).to(dtype)
        self.reach = ((high - low) / 2).to(dtype)
        self.first = _times(self.middle, self.transposed[0]) + self.biases[0]

    @cached_property
    def curves(self) -> list:
        return [CURVES[name] for name in self.activations]

    @property
    def choices(self) -> int:
        """How many an input's lines leave at most; room for one if there are no units."""
        return 2 if set(self.activations) - {"relu"} else 1

    def roots(self, point: torch.Tensor, row: torch.Tensor) -> Subproblems:
        """The whole balls around points [B] for one of their rows [B] each, by the usual lines."""
        low, high = self.low[point], self.high[point]
        starts = [
            torch.stack(curve.free.starts(one, other), 1)
            for curve, one, other in zip(self.curves, self._parts(low), self._parts(high), strict=True)
        ]
        starts = [start.expand(-1, self.choices, -1) if start.shape[1] == 1 else start for start in starts]
        choices = torch.cat(starts, -1) if starts else low[:, None]
        unsplit = torch.full_like(low, torch.inf)
        return Subproblems(point, row, -unsplit, unsplit, choices, torch.zeros_like(low))

    @property
    def packed_size(self) -> int:
        """How many numbers of a subproblem are stored."""
        return self.low.shape[1] * (3 + self.choices)

    def packed(self, some: Subproblems) -> np.ndarray:
        """What is stored of B subproblems besides point and row, [B, numbers]."""
        multipliers = some.multipliers.clamp(-LARGEST_STORED, LARGEST_STORED)
        parts = (some.low, some.high, some.choices.flatten(1), multipliers)
        return torch.cat(parts, 1).to(STORED).cpu().numpy()

    def unpacked(self, points: Sequence[int], rows: Sequence[int], packed: Sequence[np.ndarray]) -> Subproblems:
        units = self.low.shape[1]
        numbers = torch.from_numpy(np.stack(packed)).to(self.low)
        low, high, choices, multipliers = numbers.split((units, units, units * self.choices, units), 1)
        point, row = (torch.tensor(one, device=numbers.device) for one in (points, rows))
        return Subproblems(point, row, low, high, choices.unflatten(1, (self.choices, units)), multipliers)

    def bounds(self, some: Subproblems) -> Bounded:
        return _Evaluation(self, some).bounds(some.choices, some.multipliers)

    def improved(self, some: Subproblems, steps: int, enough: torch.Tensor) -> tuple[Bounded, Subproblems]:
        """The best bounds within some steps of Adam on choices and multipliers, and where they were found.

        Fewer steps where all bounds exceed `enough` [B].
        """
        evaluation = _Evaluation(self, some)
        free = (some.choices, some.multipliers)
        least = torch.where(some.high < torch.inf, -torch.inf, 0.0).to(self.dtype)
        most = torch.where(some.low > -torch.inf, torch.inf, 0.0).to(self.dtype)
        ends = ((torch.zeros_like(free[0]), torch.ones_like(free[0])), (least, most))
        moments = [(torch.zeros_like(part), torch.zeros_like(part)) for part in free]
        best: tuple[Bounded, tuple[torch.Tensor, torch.Tensor]] | None = None
        for step in range(1, steps + 2):
            now = evaluation.bounds(*free)
            best = (now, free) if best is None else _better(best, (now, free))
            if step > steps or not self.widths or (best[0].value > enough).all():
                break
            length = RATE * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
            moved = []
            for part, gradient, (mean, square), (low, high) in zip(
                free, evaluation.gradients(), moments, ends, strict=True
            ):
                mean.lerp_(gradient, 0.1)
                square.lerp_(gradient.square_(), 0.001)
                moved.append((part + length * mean / (square.sqrt() + 1e-12)).clamp(low, high))
            free = tuple(moved)
        bounded, (choices, multipliers) = best
        return bounded, some._replace(choices=choices, multipliers=multipliers)

    def places(self, some: Subproblems) -> tuple[torch.Tensor, torch.Tensor]:
        """Where each unit would be split [B, N], and whether it can be."""
        low, high = (torch.maximum(self.low[some.point], some.low), torch.minimum(self.high[some.point], some.high))
        places, possible = [], []
        for name, one, other in zip(self.activations, self._parts(low), self._parts(high), strict=True):
            place = PLACES[name](one, other).to(STORED).to(self.dtype)
            wide = other - one > (0.0 if name == "relu" else NARROW)
            places.append(place)
            possible.append((one < place) & (place < other) & wide)
        if not places:
            return low, low.bool()
        return torch.cat(places, 1), torch.cat(possible, 1)

    def costs(self, some: Subproblems, entering: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """How far the lines that count are from the activation where it would be split, [B, N]."""
        evaluation, costs = _Evaluation(self, some), []
        lines = [lines(part) for lines, part in zip(evaluation.lines, evaluation.parts(some.choices), strict=True)]
        for name, (lower, lower_offset, upper, upper_offset), place, coefficients in zip(
            self.activations, lines, self._parts(places), self._parts(entering), strict=True
        ):
            value = ACTIVATIONS[name](place)
            above, below = upper * place + upper_offset - value, value - lower * place - lower_offset
            costs.append(coefficients.clamp(min=0) * below - coefficients.clamp(max=0) * above)
        return torch.cat(costs, 1) if costs else entering

    def _parts(self, units: torch.Tensor) -> Sequence[torch.Tensor]:
        return units.split(self.widths, -1)


class _Evaluation:
    """B subproblems, with what their bounds need at any choices and multipliers."""

    def __init__(self, relaxations: Relaxations, some: Subproblems) -> None:
        self.of, self.point = relaxations, some.point
        self.rows = relaxations.rows[some.point, some.row]
        self.offsets = relaxations.offsets[some.point, some.row]
        self.low = torch.maximum(relaxations.low[some.point], some.low)
        self.high = torch.minimum(relaxations.high[some.point], some.high)
        self.sizes = relaxations.sizes[some.point]
        self.lines = [
            LINES.get(name, _chosen(name))(low, high)
            for name, low, high in zip(
                relaxations.activations, self.parts(self.low), self.parts(self.high), strict=True
            )
        ]
        self.first = relaxations.first[some.point]
        self.reach = relaxations.reach[some.point]
        self.around = None if relaxations.around.is_box else relaxations.around.at(some.point)

    def parts(self, units: torch.Tensor) -> Sequence[torch.Tensor]:
        return units.split(self.of.widths, -1)

    def bounds(self, choices: torch.Tensor, multipliers: torch.Tensor) -> Bounded:
        """The bounds; what `gradients` needs is kept."""
        self.choices, self.multipliers = choices.detach(), multipliers
        self.choices = [part.contiguous().requires_grad_(self.of.widths != []) for part in self.parts(self.choices)]
        with torch.enable_grad():
            self.chosen = [lines(part) for lines, part in zip(self.lines, self.choices, strict=True)]
        scaled = multipliers * self.sizes
        coefficients, value = self.rows, self.offsets
        value = value + (scaled.clamp(min=0) * self.low + scaled.clamp(max=0) * self.high).sum(-1)
        entering: list[torch.Tensor] = []
        for index in reversed(range(len(self.chosen))):
            lower, lower_offset, upper, upper_offset = (part.detach() for part in self.chosen[index])
            entering.insert(0, coefficients)
            positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
            value = value + (positive * lower_offset + negative * upper_offset).sum(-1)
            coefficients = torch.addcmul(positive * lower, negative, upper) - self.parts(scaled)[index]
            if index:
                value = value + coefficients @ self.of.biases[index]
            else:
                value = value + (coefficients * self.first).sum(-1)
            coefficients = _times(coefficients, self.of.kernels[index])
        self.entering = entering
        if not entering:
            middle = self.of.middle[self.point]
            value = value + (coefficients * middle).sum(-1)
        if self.around is None:
            value = value - torch.einsum("bd,bd->b", coefficients.abs(), self.reach)
        else:
            value = value + self.around.minimum(coefficients[:, None].to(torch.float64))[:, 0].to(self.of.dtype)
        self.pixels = coefficients
        return Bounded(value, torch.cat([value.new_empty(len(value), 0), *entering], 1), coefficients)

    def gradients(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the bounds, by choices and multipliers."""
        if self.around is None:
            moved = -self.pixels.sign() * self.reach
        else:
            with torch.enable_grad():
                pixels = self.pixels[:, None].to(torch.float64).requires_grad_()
                least = self.around.minimum(pixels).sum()
            moved = torch.autograd.grad(least, pixels)[0][:, 0].to(self.of.dtype)
        inputs = self.first + _times(moved, self.of.transposed[0])
        of_choices, all_inputs = [], []
        for index, (coefficients, lines) in enumerate(zip(self.entering, self.chosen, strict=True)):
            if index:
                inputs = _times(inputs, self.of.transposed[index]) + self.of.biases[index]
            all_inputs.append(inputs)
            positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
            outward = (positive * inputs, positive, negative * inputs, negative)
            dependent = [(one, grad) for one, grad in zip(lines, outward, strict=True) if one.requires_grad]
            ends, outward = zip(*dependent, strict=True)
            (gradient,) = torch.autograd.grad(ends, self.choices[index], outward)
            of_choices.append(gradient)
            lower, lower_offset, upper, upper_offset = (part.detach() for part in lines)
            below, above = torch.addcmul(lower_offset, lower, inputs), torch.addcmul(upper_offset, upper, inputs)
            inputs = torch.where(coefficients >= 0, below, above)
        inputs = torch.cat(all_inputs, 1)
        anchor = torch.where(self.multipliers > 0, self.low, self.high)
        anchor = torch.where(self.multipliers == 0, inputs.clamp(self.low, self.high), anchor)
        return torch.cat(of_choices, -1), (anchor - inputs) * self.sizes


def _better(
    best: tuple[Bounded, tuple[torch.Tensor, torch.Tensor]], now: tuple[Bounded, tuple[torch.Tensor, torch.Tensor]]
) -> tuple[Bounded, tuple[torch.Tensor, torch.Tensor]]:
    larger = now[0].value > best[0].value

    def chosen(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        return torch.where(larger.view(-1, *[1] * (new.ndim - 1)), new, old)

    return Bounded(*map(chosen, now[0], best[0])), tuple(map(chosen, now[1], best[1]))


def _times(rows: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """rows [B, outputs] · kernel [inputs, outputs] transposed."""
    return torch.sparse.mm(kernel, rows.T).T if kernel.is_sparse else rows @ kernel.T


def _of_relu(low: torch.Tensor, high: torch.Tensor) -> Callable[[torch.Tensor], Lines]:
    """`relu_lines` by choices [B, 1, units]."""
    lower, lower_offset, upper, upper_offset = relu_lines(low, high)
    undecided = (low < 0) & (high > 0)

    def lines(choices: torch.Tensor) -> Lines:
        return torch.where(undecided, choices[:, 0], lower), lower_offset, upper, upper_offset

    return lines


def _chosen(name: str) -> Callable[[torch.Tensor, torch.Tensor], Callable[[torch.Tensor], Lines]]:
    def of_bounds(low: torch.Tensor, high: torch.Tensor) -> Callable[[torch.Tensor], Lines]:
        return lambda choices: CURVES[name].free.lines(low, high, choices.unbind(1))

    return of_bounds


LINES = {"relu": _of_relu}


def _halving_tanh(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return ((low.tanh() + high.tanh()) / 2).atanh()


# Where an input's interval is split: at the kink, or where both halves' outputs range equally.
PLACES = {
    "relu": lambda low, high: torch.zeros_like(low),
    "tanh": _halving_tanh,
    "sigmoid": lambda low, high: 2 * _halving_tanh(low / 2, high / 2),
}
