"""The fast gradient sign method, and its like for L2 and L1 balls."""

from collections.abc import Iterator, Mapping, Sequence

import torch

from deltaball.local.attacks.attack import Attack, by_reference
from deltaball.local.balls import Ball
from deltaball.local.notions import Notion
from deltaball.local.points import Points


class Fgsm(Attack):
    """The image of the ball that lies furthest along the gradient of the attacked class's cross-entropy.

    For L∞ x + δ sign(gradient) (Goodfellow et al. 2014; paper 004, Section 4.2). One gradient serves all balls. Where
    it is 0 in float32 (a saturated network) the margin's is taken.
    """

    def run(
        self, points: Points, asked: Mapping[Ball, Sequence[Notion]]
    ) -> Iterator[tuple[Ball, Sequence[Notion], torch.Tensor]]:
        for ball, notions in asked.items():
            for reference, against in by_reference(points, notions):
                yield ball, against, points.around(ball).steepest(points.direction(reference))
