"""Bounds by quadratic functions, which know that the inputs of many units cannot be extreme at once.

Lines around each activation are loose where many units are far from settled: each line is tight at its own image, and
the bound pays for all of them. A function g of one unit's input z lies above α z + β - κ (z - m)² / 2 with any α and
any κ ≥ 0, where β is the least value of g(z) - α z + κ (z - m)² / 2 in the interval; with a κ as large as the curvature
this touches g at m. What it pays, Σᵢ κᵢ (zᵢ - mᵢ)² / 2, is paid for all units of a layer together: these are a linear
function of what enters the layer, z - m = W (y - n), so that the sum is at most Σⱼ dⱼ (yⱼ - nⱼ)² / 2 for every d with
diag(d) ≥ Wᵀ diag(κ) W, such as dⱼ = λ sⱼ, where s > 0 and λ is the largest eigenvalue of √κ W diag(1 / s) Wᵀ √κ. What
is left is a sum of functions of one number each: of the layer before, where yⱼ is an activation of one input, or of
the pixels. Second-order bounds with κ fixed (Singla & Feizi 2020, "Second-order provable defenses against adversarial
attacks") and the semidefinite relaxation (Raghunathan et al. 2018, "Semidefinite relaxations for certifying robustness
to adversarial examples") have the same aim; here α, κ and s are chosen by a few hundred steps of Adam, without any
semidefinite program. With κ = 0 this is CROWN with the best lines.

Whatever is chosen, the bound holds. Minima over intervals are taken on a grid, less what a function of bounded
curvature can fall below its values at the ends of a cell.
"""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from deltaball.local.neighbourhoods import Neighbourhood
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.dense_form import Affine

# Of an activation: its largest second derivative, where it has one; a ReLU's grid has its kink.
CURVATURES = {"relu": 0.0, "tanh": 0.77, "sigmoid": 0.0963}

MOST_UNITS = 256  # of a layer, for the eigenvalues

# Steps of Adam between two looks at what is proven, and looks; lengths of the steps of slopes, log κ and log s.
STEPS, LOOKS = 50, 4
RATES = (0.02, 0.1, 0.03)

COARSE, FINE = 24, 512  # cells of an interval, while choosing and for the bound that counts

BEGINNING = 0.2  # of an activation's curvature, the first κ

NUMBERS = 2**22  # at once, of the bounds that count

SLACK = 1e-9  # of the numbers that make a bound, more than their rounding in float64


class Chosen(NamedTuple):
    """What is free of one layer, for B rows."""

    slopes: torch.Tensor  # [B, units] α is so many times the coefficient of what leaves the unit
    curvatures: torch.Tensor  # [B, units] log κ
    weights: torch.Tensor  # [B, inputs] log s


class Quadratics:
    """n points of one network, written as dense layers; `low` and `high` [n, N] enclose what enters the units."""

    def __init__(
        self,
        affine: Affine,
        activations: Sequence[str],
        around: Neighbourhood,
        low: torch.Tensor,
        high: torch.Tensor,
        dtype: torch.dtype,
    ) -> None:
        self.activations, self.dtype = activations, dtype
        self.kernels = [kernel.to(dtype) for kernel, _ in affine]
        self.biases = [bias.to(dtype) for _, bias in affine]
        widths = [len(bias) for bias in self.biases[:-1]]
        self.low, self.high = (side.to(dtype).split(widths, -1) for side in (low, high))
        least, most = around.box
        self.middles = [(around.centre + (least + most) / 2).to(dtype)]
        self.reaches = [((most - least) / 2).to(dtype)]
        self.inputs = []
        for name, kernel, bias, one, other in zip(
            activations, self.kernels, self.biases, self.low, self.high, strict=False
        ):
            entering = self.middles[-1] @ kernel + bias
            function = ACTIVATIONS[name]
            self.inputs.append(entering)
            self.middles.append(function(entering))
            ends = (function(one) - self.middles[-1]).abs(), (function(other) - self.middles[-1]).abs()
            self.reaches.append(torch.maximum(*ends))

    @staticmethod
    def takes(affine: Affine, activations: Sequence[str], around: Neighbourhood) -> bool:
        """Whether there are such bounds of a network in such balls."""
        kernels = [kernel for kernel, _ in affine]
        dense = not any(kernel.is_sparse for kernel in kernels)
        small = all(kernel.shape[1] <= MOST_UNITS for kernel in kernels)
        return bool(activations) and around.is_box and dense and small and set(activations) <= set(CURVATURES)

    def started(self, point: torch.Tensor, rows: torch.Tensor) -> list[Chosen]:
        """Where to begin for rows [B, classes] of points [B]: with chords and little curvature."""
        coefficients, found = rows.to(self.dtype) @ self.kernels[-1].T, []
        for index in reversed(range(len(self.activations))):
            name, low, high = self.activations[index], self.low[index][point], self.high[index][point]
            function = ACTIVATIONS[name]
            slopes = (function(high) - function(low)) / (high - low).clamp(min=1e-6)
            curvature = BEGINNING * (CURVATURES[name] or 1.0) * coefficients.abs() + 1e-4
            weights = torch.zeros(len(point), self.kernels[index].shape[0], dtype=self.dtype, device=rows.device)
            found.insert(0, Chosen(slopes, curvature.log(), weights))
            coefficients = (coefficients * slopes) @ self.kernels[index].T
        return found

    def bounds(
        self,
        point: torch.Tensor,
        rows: torch.Tensor,
        chosen: Sequence[Chosen],
        vectors: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Lower bounds [B] of rows [B, classes] · logits.

        With `vectors` [B, units] of each layer, eigenvalues are taken at these, which may be too small, and the grid
        is coarse: for choosing.
        """
        rows = rows.to(self.dtype)
        coefficients, value = rows @ self.kernels[-1].T, rows @ self.biases[-1]
        size = rows.abs() @ self.biases[-1].abs()
        squares = torch.zeros_like(coefficients)
        for index in reversed(range(len(self.activations))):
            own, kernel = chosen[index], self.kernels[index]
            slopes, curvatures = coefficients * own.slopes, own.curvatures.exp()
            least = self._least(index, point, coefficients, squares, slopes, curvatures, vectors is None)
            value = value + least.sum(-1) + slopes @ self.biases[index]
            size = size + least.abs().sum(-1) + slopes.abs() @ self.biases[index].abs()
            coefficients = slopes @ kernel.T
            reach = self.reaches[index][point]
            largest = self._largest(kernel, reach, curvatures, own.weights, None if vectors is None else vectors[index])
            paid = largest[:, None] * own.weights.exp() * (reach > 0)
            squares = paid / reach.square().clamp(min=1e-30)
        middle = (coefficients * self.middles[0][point]).sum(-1)
        linear = (coefficients.abs() * self.reaches[0][point]).sum(-1)
        value = value + middle - linear - paid.sum(-1) / 2
        size = size + (coefficients * self.middles[0][point]).abs().sum(-1) + linear + paid.sum(-1)
        return value - SLACK * size

    def certain(self, point: torch.Tensor, rows: torch.Tensor, chosen: Sequence[Chosen]) -> torch.Tensor:
        """Lower bounds [B], some at a time; -inf where numbers are too large."""
        largest = max(max(len(kernel), FINE) * kernel.shape[1] for kernel in self.kernels[:-1])
        parts = torch.arange(len(point), device=point.device).split(max(1, NUMBERS // largest))
        found = [
            self.bounds(
                point[some], rows[some], [Chosen(*(part[some].to(self.dtype) for part in own)) for own in chosen]
            )
            for some in parts
        ]
        return torch.cat(found).nan_to_num(-torch.inf, torch.inf, -torch.inf)

    def turned(
        self, point: torch.Tensor, chosen: Sequence[Chosen], vectors: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Vectors that are closer to those of the largest eigenvalues."""
        found = []
        for index, (own, vector) in enumerate(zip(chosen, vectors, strict=True)):
            root, kernel = (own.curvatures / 2).exp(), self.kernels[index]
            squares = self.reaches[index][point].square() / own.weights.exp()
            vector = root * ((((vector * root) @ kernel.T) * squares) @ kernel)
            found.append(vector / vector.norm(dim=-1, keepdim=True).clamp(min=1e-30))
        return found

    def _largest(
        self,
        kernel: torch.Tensor,
        reach: torch.Tensor,
        curvatures: torch.Tensor,
        weights: torch.Tensor,
        vector: torch.Tensor | None,
    ) -> torch.Tensor:
        """The largest eigenvalue λ [B], at `vector` if there is one."""
        root = curvatures.sqrt()
        if vector is not None:
            return (((vector * root) @ kernel.T * reach).square() / weights.exp()).sum(-1)
        scaled = kernel * (reach / (weights / 2).exp())[..., None] * root[:, None]
        products = scaled.mT @ scaled
        finite = products.isfinite().flatten(1).all(1)
        largest = torch.linalg.eigvalsh(products.where(finite[:, None, None], 0.0))[:, -1].clamp(min=0)
        return torch.where(finite, largest * (1 + SLACK), torch.inf)

    def _least(
        self,
        index: int,
        point: torch.Tensor,
        coefficients: torch.Tensor,
        squares: torch.Tensor,
        slopes: torch.Tensor,
        curvatures: torch.Tensor,
        certain: bool,
    ) -> torch.Tensor:
        """The least values [B, units] of c y - d (y - n)² / 2 + κ (z - m)² / 2 - α z, y being the activation of z."""
        name, low, high = self.activations[index], self.low[index][point], self.high[index][point]
        cells = FINE if certain else COARSE
        shares = torch.linspace(0, 1, cells + 1, dtype=self.dtype, device=low.device)[:, None]
        inputs = low[:, None] + (high - low)[:, None] * shares
        if name == "relu":
            inputs = torch.cat([inputs, torch.zeros_like(low).clamp(low, high)[:, None]], 1)
        leaving = ACTIVATIONS[name](inputs)
        apart = leaving - self.middles[index + 1][point][:, None]
        beyond = inputs - self.inputs[index][point][:, None]
        values = coefficients[:, None] * leaving - squares[:, None] / 2 * apart.square()
        least = (values + curvatures[:, None] / 2 * beyond.square() - slopes[:, None] * inputs).amin(1)
        if not certain:
            return least
        # A function falls below its chord by no more than its curvature times the square of the width, over 8.
        steepest = CURVATURES[name] * (coefficients.abs() + squares * self.reaches[index + 1][point]) + curvatures
        width = (high - low) / cells
        factors = slopes.abs() + coefficients.abs() + curvatures * (high - low)
        rounding = SLACK * (values.abs().amax(1) + factors * torch.maximum(low.abs(), high.abs()))
        return least - steepest * width.square() / 8 - rounding


def exceeding(
    affine: Affine,
    activations: Sequence[str],
    around: Neighbourhood,
    low: torch.Tensor,
    high: torch.Tensor,
    point: torch.Tensor,
    rows: torch.Tensor,
    enough: torch.Tensor,
    deadline: float,
) -> torch.Tensor:
    """The best lower bounds [B] of rows [B, classes] of points [B] that are found before `deadline` of processor time.

    What exceeds `enough` [B] is not improved further.
    """
    coarse, exactly = (
        Quadratics(affine, activations, around, low, high, one) for one in (torch.float32, torch.float64)
    )
    best = torch.full_like(enough, -torch.inf, dtype=torch.float64)
    left, chosen = torch.arange(len(point), device=point.device), coarse.started(point, rows)
    vectors = [torch.ones_like(own.curvatures) for own in chosen]
    moments = [[torch.zeros_like(part) for part in own] * 2 for own in chosen]
    step = 0
    for _ in range(LOOKS):
        for _ in range(STEPS):
            if time.process_time() > deadline:
                break
            step += 1
            vectors = coarse.turned(point[left], chosen, vectors)
            chosen, moments = _ascended(coarse, point[left], rows[left], chosen, vectors, moments, step)
        best[left] = torch.maximum(best[left], exactly.certain(point[left], rows[left], chosen))
        kept = best[left] <= enough[left]
        left = left[kept]
        if not len(left) or time.process_time() > deadline:
            break
        chosen = [Chosen(*(part[kept] for part in own)) for own in chosen]
        vectors = [one[kept] for one in vectors]
        moments = [[part[kept] for part in own] for own in moments]
    return best


def _ascended(
    of: Quadratics,
    point: torch.Tensor,
    rows: torch.Tensor,
    chosen: Sequence[Chosen],
    vectors: Sequence[torch.Tensor],
    moments: Sequence[list[torch.Tensor]],
    step: int,
) -> tuple[list[Chosen], list[list[torch.Tensor]]]:
    """One step of Adam."""
    with torch.enable_grad():
        free = [Chosen(*(part.detach().requires_grad_() for part in own)) for own in chosen]
        value = of.bounds(point, rows, free, vectors).sum()
        gradients = iter(torch.autograd.grad(value, [part for own in free for part in own]))
    correction = math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    moved, kept = [], []
    for own, before in zip(chosen, moments, strict=True):
        parts, after = [], []
        for place, (part, rate) in enumerate(zip(own, RATES, strict=True)):
            gradient = next(gradients)
            mean = before[place].lerp(gradient, 0.1)
            square = before[place + len(RATES)].lerp(gradient.square(), 0.001)
            parts.append(part + rate * correction * mean / (square.sqrt() + 1e-12))
            after.append((mean, square))
        moved.append(Chosen(*parts))
        kept.append([mean for mean, _ in after] + [square for _, square in after])
    return moved, kept
