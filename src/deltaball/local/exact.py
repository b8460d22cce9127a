"""The exact answer: is a point's class, or its label, the class in the whole ball? Of one network, many points at once.

Huang et al. 2017, "Safety verification of deep neural networks", and with them paper 004, search a discretised
neighbourhood exhaustively. That is complete only for the grid: a violation may lie between its points, and the grid
grows exponentially with the pixels. What stands here needs no grid: branch and bound on what enters the units.

So it is asked whether each row by which the class leads another one stays above 0 (`branching`).

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
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from deltaball.local.balls import Ball
from deltaball.local.branching import GROUP, Group, search
from deltaball.local.forms import Form, forms_of, refuse
from deltaball.local.losses import margin
from deltaball.local.notions import ClassChange
from deltaball.local.references import Reference
from deltaball.networks.models import Layered

ROBUST, VIOLATED, UNKNOWN = 1.0, 0.0, math.nan


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
    is open after `seconds` of processor time for each point, all points together, is given up as unknown. Raises
    ValueError for L2 balls and networks too large to be written as dense layers.
    """
    refuse(ball)
    forms = forms_of(model)
    groups = [
        _Answers(model, forms, x[some], ball, None if labels is None else labels[some])
        for some in (slice(first, first + GROUP) for first in range(0, len(x), GROUP))
    ]
    search(groups, seconds)
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


class _Answers(Group):
    """Whether the class stays the same around some points, and a violation where it does not."""

    partly = False

    def __init__(
        self,
        model: Layered,
        forms: Sequence[Callable[[], Form]],
        x: torch.Tensor,
        ball: Ball,
        labels: torch.Tensor | None,
    ) -> None:
        logits = model(x)
        self.reference = Reference.output(logits) if labels is None else Reference.label(logits, labels)
        self.outcome = np.full(len(x), UNKNOWN, np.float32)
        self.witness = torch.full_like(x, torch.nan)
        rows = leads(self.reference.classes[0, :, 0], logits.shape[-1])
        super().__init__(model, forms, x, ball, rows, rows.new_zeros(rows.shape[:2]))
        self.judge(torch.arange(len(x), device=x.device), x)

    def judge(self, points: torch.Tensor, images: torch.Tensor) -> None:
        """Keep of images those that violate most, judged in float32."""
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
            if not self.closed[point]:
                self.outcome[point], self.witness[point], self.closed[point] = VIOLATED, images[place], True

    def proven(self, point: int) -> None:
        self.outcome[point], self.closed[point] = ROBUST, True

    def least(self, points: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return margin(logits, self.reference.chosen(points[None]).classes[0])


def leads(kept: torch.Tensor, classes: int) -> torch.Tensor:
    """The rows [n, classes - 1, classes] by which the class that is kept [n] leads each other one."""
    identity = torch.eye(classes, dtype=torch.float64, device=kept.device)
    others = torch.arange(classes - 1, device=kept.device)
    return identity[kept][:, None] - identity[others + (others >= kept[:, None])]
