"""Lines around activations and max-pools, from which linear bounds are made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

Lines = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Choices = Sequence[torch.Tensor]


def relu_lines(low: torch.Tensor, high: torch.Tensor, slopes: torch.Tensor | None = None) -> Lines:
    """Slope and offset of a line below and of one above ReLU on [low, high]: the triangle's, elementwise.

    The lower slope is 0 or 1, whichever leaves the smaller area, or `slopes` where 0 is inside.
    """
    undecided = (low < 0) & (high > 0)
    on = (low >= 0).to(low.dtype)
    lower = torch.where(undecided, (high > -low).to(low.dtype) if slopes is None else slopes, on)
    upper = torch.where(undecided, high / (high - low), on)
    return lower, torch.zeros_like(low), upper, torch.where(undecided, -upper * low, 0.0)


def leaky_relu_lines(low: torch.Tensor, high: torch.Tensor, slopes: None = None, slope: float = 0.0) -> Lines:
    """Slope and offset of a line below and of one above the leaky ReLU with `slope` below 0, on [low, high]."""
    undecided = (low < 0) & (high > 0)
    kept, damped = torch.ones_like(low), torch.full_like(low, slope)
    decided = torch.where(low >= 0, kept, damped)
    upper = torch.where(undecided, (high - slope * low) / (high - low), decided)
    lower = torch.where(undecided, torch.where(upper > 0.5, kept, damped), decided)
    return lower, torch.zeros_like(low), upper, torch.where(undecided, (slope - upper) * low, 0.0)


def clamp_lines(
    low: torch.Tensor, high: torch.Tensor, slopes: None = None, least: float = 0.0, most: float = 1.0
) -> Lines:
    """Slope and offset of a line below and of one above clamp(x, least, most) on [low, high], of the smallest area."""
    upper, upper_offset = _above_clamp(low, high, least, most)
    lower, lower_offset = _above_clamp(-high, -low, -most, -least)
    return lower, -lower_offset, upper, upper_offset


def _above_clamp(low: torch.Tensor, high: torch.Tensor, least: float, most: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the two lines along the least concave function above it, which rises to `most` and stays, the lower one in the
    middle."""
    start, end = low.clamp(least, most), high.clamp(least, most)
    width = torch.minimum(high, end) - low
    rising = (end > start) & ~((high > most) & (low + high >= 2 * most))
    slope = torch.where(rising, (end - start) / torch.where(rising, width, 1.0), 0.0)
    return slope, torch.where(rising, start - slope * low, end)


def tanh_lines(
    low: torch.Tensor, high: torch.Tensor, slopes: None = None, step: float = 0.0, choices: Choices | None = None
) -> Lines:
    """Slope and offset of a line below and of one above tanh on [low, high], elementwise; no slopes to choose.

    With `step`, tangent points are those of an interval whose ends are the next multiples of it outwards. With two
    `choices` in [0, 1], below and above, they are so far on the way from the first that is tight to the interval's end.
    """
    low, high = _widened(low, high)
    below, above = choices or (None, None)
    upper, upper_offset = _above_tanh(low, high, step, above)
    lower, lower_offset = _above_tanh(-high, -low, step, below)
    return lower, -lower_offset, upper, upper_offset


LEAST_WIDTHS = {torch.float64: 1e-8, torch.float32: 3e-4}


def _widened(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Chords need a width; a wider interval is sound."""
    middle = (low + high) / 2
    least = LEAST_WIDTHS[low.dtype] * middle.abs().clamp(min=1)
    return torch.minimum(low, middle - least), torch.maximum(high, middle + least)


def sigmoid_lines(
    low: torch.Tensor, high: torch.Tensor, slopes: None = None, step: float = 0.0, choices: Choices | None = None
) -> Lines:
    """Slope and offset of a line below and of one above the sigmoid: sigmoid(x) = (1 + tanh(x/2)) / 2."""
    lower, lower_offset, upper, upper_offset = tanh_lines(low / 2, high / 2, step=step / 2, choices=choices)
    return lower / 4, (1 + lower_offset) / 2, upper / 4, (1 + upper_offset) / 2


@dataclass(frozen=True)
class Freedom:
    """What may be chosen of an activation's lines: numbers in [0, 1] for each of its inputs."""

    starts: Callable[[torch.Tensor, torch.Tensor], Choices]  # of bounds [low, high]: the choices that `lines` make
    lines: Callable[[torch.Tensor, torch.Tensor, Choices], Lines]  # of bounds and choices


def _leaky_relu_starts(low: torch.Tensor, high: torch.Tensor) -> Choices:
    return ((high > -low).to(low.dtype),)


def _leaky_relu_chosen(low: torch.Tensor, high: torch.Tensor, choices: Choices, slope: float) -> Lines:
    lower, lower_offset, upper, upper_offset = leaky_relu_lines(low, high, slope=slope)
    undecided = _across_zero(low, high)
    return torch.where(undecided, slope + (1 - slope) * choices[0], lower), lower_offset, upper, upper_offset


def leaky_relu_freedom(slope: float) -> Freedom:
    return Freedom(_leaky_relu_starts, partial(_leaky_relu_chosen, slope=slope))


def _tanh_starts(low: torch.Tensor, high: torch.Tensor) -> Choices:
    low, high = _widened(low, high)
    return _middle_share(-high, -low), _middle_share(low, high)


def _middle_share(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    first, last = _tangents(low, high, 0.0)
    return torch.where(last > first, (((low + high) / 2 - first) / (last - first)).clamp(0, 1), 0.0)


def _sigmoid_starts(low: torch.Tensor, high: torch.Tensor) -> Choices:
    return _tanh_starts(low / 2, high / 2)


def _tanh_chosen(low: torch.Tensor, high: torch.Tensor, choices: Choices) -> Lines:
    return tanh_lines(low, high, choices=choices)


def _sigmoid_chosen(low: torch.Tensor, high: torch.Tensor, choices: Choices) -> Lines:
    return sigmoid_lines(low, high, choices=choices)


def _across_zero(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return (low < 0) & (high > 0)


def _below_zero(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return high <= 0


def _everywhere(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(low, dtype=torch.bool)


def _nowhere(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(low, dtype=torch.bool)


@dataclass(frozen=True)
class Curve:
    """What certificates know of an activation. It does not fall anywhere, and what it gives is at most 1 if it rounds.

    `lines`, `curved` and `constant` are functions of bounds [low, high] of what enters it, elementwise.
    """

    lines: Callable[..., Lines]  # below and above it, from slopes too if there is a choice
    curved: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # where it is no line, so that tighter bounds help
    constant: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    steepest: float  # its largest slope
    last_places: int  # by how many units in the last place it may be off in float32
    others: Callable[..., Lines] | None = None  # lines that are better for some rows
    freedom: Freedom | None = None  # what may be chosen of its lines

    @property
    def free(self) -> Freedom:
        """What may be chosen, which may be nothing."""
        return self.freedom or Freedom(lambda low, high: (), lambda low, high, choices: self.lines(low, high))


TABLE = 0.01  # step of the table from which auto_LiRPA takes tangent points

# What certificates know of each activation.
CURVES = {
    "relu": Curve(relu_lines, _across_zero, _below_zero, 1, 0, freedom=leaky_relu_freedom(0.0)),
    "tanh": Curve(
        tanh_lines, _everywhere, _nowhere, 1, 4, partial(tanh_lines, step=TABLE), Freedom(_tanh_starts, _tanh_chosen)
    ),
    "sigmoid": Curve(
        sigmoid_lines,
        _everywhere,
        _nowhere,
        1 / 4,
        4,
        partial(sigmoid_lines, step=TABLE),
        Freedom(_sigmoid_starts, _sigmoid_chosen),
    ),
}


def leaky_relu_curve(slope: float) -> Curve:
    lines, constant = partial(leaky_relu_lines, slope=slope), _below_zero if not slope else _nowhere
    return Curve(lines, _across_zero, constant, 1, 1, freedom=leaky_relu_freedom(slope))


def clamp_curve(least: float, most: float) -> Curve:
    def curved(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        return (low < least) & (high > least) | (low < most) & (high > most)

    def constant(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        return (high <= least) | (low >= most)

    return Curve(partial(clamp_lines, least=least, most=most), curved, constant, 1, 1)


NOTHING = -1e300  # below all numbers: what a window sees where there is none

FARTHEST = 300.0  # tangents beyond are level, and their slopes no float64

TANGENTS = 4  # steps towards a tangent point, to float64


def _above_tanh(
    low: torch.Tensor, high: torch.Tensor, step: float, choice: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slope and offset of a line above tanh on [low, high], low < high.

    tanh is convex below 0 and concave above. The chord is above it if it is no steeper than tanh at `high`. Else a
    tangent at a d ≥ 0: above tanh on all x ≥ 0, and on [low, 0] too once lifted, where need be, to be above at `low`.
    So any d ≥ 0 is sound; the smallest area is left by the d in the middle of [low, high] or, if that is too far
    left, by the d* whose tangent meets tanh in `low`.
    """
    left, right = low.tanh(), high.tanh()
    chord = (right - left) / (high - low)
    if choice is None:
        touching = torch.maximum(_touching(low, step), (low + high) / 2)
    else:
        first, last = _tangents(low, high, step)
        touching = (first + choice * (last - first)).clamp(max=FARTHEST)
    straight = (high <= 0) | (chord <= high.cosh() ** -2)
    slope = torch.where(straight, chord, touching.cosh() ** -2)
    at_right = torch.where(straight, right - slope * high, touching.tanh() - slope * touching)
    return slope, torch.maximum(at_right, left - slope * low)


def _tangents(low: torch.Tensor, high: torch.Tensor, step: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The first and the last point at which a line above tanh on [low, high] may touch it, and be tight."""
    first = torch.maximum(_touching(low, step), low)
    return first, torch.maximum(first, high)


def _touching(low: torch.Tensor, step: float) -> torch.Tensor:
    """The point d* whose tangent meets tanh in `low`; about 0 if that is above 0."""
    # The chord from `low` to d is steepest at d*, where its slope is tanh's own. So the point where tanh has the slope
    # of the chord to any d is at or right of d*, and closes in on it quadratically.
    negative = low.clamp(max=-1e-8)
    if step:
        negative = -step * ((-negative / step).floor() + 1)
    level = negative.tanh()
    touching = torch.zeros_like(negative)
    for _ in range(TANGENTS):
        touching = ((touching - negative) / (touching.tanh() - level)).sqrt().clamp(min=1).acosh()
    return touching


def pool_lines(
    lines: Callable[..., Lines],
    function: Callable[[torch.Tensor], torch.Tensor],
    low: torch.Tensor,
    high: torch.Tensor,
    slopes: torch.Tensor | None = None,
) -> Lines:
    """Slopes [..., units, pools] and offsets [..., 1, pools] of functions below and above the largest function(x)."""
    central, lower, lower_offset, highest, upper, upper_offset = largest_lines(lines, function, low, high, slopes)
    unit = torch.arange(low.shape[-2], device=low.device)[:, None]
    return (
        torch.where(unit == central, lower, 0.0),
        lower_offset,
        torch.where(unit == highest, upper, 0.0),
        upper_offset,
    )


def largest_lines(
    lines: Callable[..., Lines],
    function: Callable[[torch.Tensor], torch.Tensor],
    low: torch.Tensor,
    high: torch.Tensor,
    slopes: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Unit, slope and offset, [..., 1, pools] each, of a function below and of one above the largest function(x).

    The largest is over the units, of [..., units, pools]. Below: the line below the function at one unit, the one with
    the highest middle. Above: only the unit with the highest upper bound can exceed the others' upper bounds, so the
    maximum is below its chord over that unit's function, exact where that unit is always the largest; and that function
    is below its line.
    """
    central, highest = _first_largest(low + high), _first_largest(high)
    rival = function(high.scatter(-2, highest, NOTHING).amax(-2, keepdim=True))
    if slopes is not None:
        slopes = slopes.gather(-2, central.expand(*slopes.shape[:-2], -1, -1))
    lower, lower_offset, _, _ = lines(low.gather(-2, central), high.gather(-2, central), slopes)
    low, high = low.gather(-2, highest), high.gather(-2, highest)
    _, _, upper, upper_offset = lines(low, high)
    least, most = function(low), function(high)
    floor = torch.maximum(least, rival)
    share = torch.where(most > least, (most - floor) / (most - least), 1.0)
    return central, lower, lower_offset, highest, share * upper, share * upper_offset + floor - share * least


def _first_largest(values: torch.Tensor) -> torch.Tensor:
    """argmax(-2, keepdim=True), the first of several; several times faster than torch's over so few."""
    count = values.shape[-2]
    places = torch.arange(count, device=values.device)[:, None]
    # NaN equals nothing: any place will do.
    first = torch.where(values == values.amax(-2, keepdim=True), places, count).amin(-2, keepdim=True)
    return first.clamp(max=count - 1)
