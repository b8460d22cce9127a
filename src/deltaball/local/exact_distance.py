"""How far the closest violation is, by exact answers: bisection over the radius of a ball."""

import math
from typing import NamedTuple

import torch

from deltaball.local.balls import GEOMETRY, Ball
from deltaball.local.exact import ROBUST, VIOLATED, decide
from deltaball.networks.models import Layered

# Of the difference of two radii.
ROUNDING = 1e-9


class Distances(NamedTuple):
    """Of n points: the closest violation is further than `lower`, and no further than `upper`."""

    lower: torch.Tensor  # float64 [n]
    upper: torch.Tensor  # float64 [n]; infinite where no violation is known
    witness: torch.Tensor  # float32 [n, h, w, c]: the violation at `upper`; the point itself where none is known
    answers: torch.Tensor  # int64 [n]: how many balls were decided


def distances(
    model: Layered,
    x: torch.Tensor,
    found: torch.Tensor,
    norm: str,
    share: float,
    seconds: float,
    labels: torch.Tensor | None = None,
    most: float = math.inf,
) -> Distances:
    """Between what distances the closest violations of class lie around the float32 images x [n, h, w, c].

    `found` [n, h, w, c] are violations, the nearer the better, or the points themselves where none is known. First the
    ball is decided that is smaller than that distance by `share` of it; where that does not settle it, balls in
    between, until the ends differ by no more than that share of the upper one, or an answer takes longer than
    `seconds`. Nothing is sought beyond `most`, and outside [0, 1] there is nothing. `model` and `labels` are as of
    `exact.decide`, and so is what is raised.
    """
    geometry = GEOMETRY[norm]
    largest = min(most, geometry.length(torch.ones_like(x[0])).item())
    upper, witness = geometry.length(found - x).double(), found.clone()
    none = (upper == 0) | (upper > largest)
    upper[none], witness[none] = torch.inf, x[none]
    lower, answers = torch.zeros_like(upper), torch.zeros(len(x), dtype=torch.int64)
    for place in range(len(x)):
        point, label = x[place : place + 1], None if labels is None else labels[place : place + 1]
        radius = min(largest, (1 - share) * upper[place].item())
        while upper[place] - lower[place] > share * min(largest, upper[place].item()) * (1 + ROUNDING):
            decided = decide(model, point, Ball(norm, radius), seconds, label)
            answers[place] += 1
            if decided.outcome[0] == ROBUST:
                lower[place] = radius
            elif decided.outcome[0] == VIOLATED:
                witness[place] = decided.witness[0]
                upper[place] = min(radius, geometry.length(witness[place] - point[0]).item())
            if decided.outcome[0] not in (ROBUST, VIOLATED) or lower[place] >= largest:
                break
            radius = (lower[place].item() + min(largest, upper[place].item())) / 2
    return Distances(lower, upper, witness, answers)
