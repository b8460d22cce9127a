"""Attacks: perturbed points that are meant to violate robustness, for K networks × n points at once.

An attack only proposes; the base class judges. A proposal is brought into the ball, and its outcome comes from one
more forward pass on exactly the point that is handed back. The attacked class is the predicted one, never the label.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from deltaball.local.balls import Ball
from deltaball.local.notions import ClassChange, Margin, Notion, SoftmaxVariation, VariationAbove
from deltaball.local.points import Points, Predict


@dataclass(frozen=True)
class Found:
    """What an attack found for K networks × n points, for one ball and notion."""

    perturbed: torch.Tensor  # [K, n, h, w, c] float32, in the ball and in [0, 1]: the worst point found
    outcome: torch.Tensor  # [K, n] float32, from a forward pass on exactly `perturbed`
    no_gradient: torch.Tensor  # [K, n] bool: the cross-entropy's gradient at the point is 0 in every pixel


class Attack(ABC):
    """A way to look for violations. Calling it judges whatever `run` proposes."""

    notions: ClassVar[tuple[type[Notion], ...]] = (ClassChange, SoftmaxVariation, VariationAbove)

    @torch.no_grad()
    def __call__(
        self,
        predict: Predict,
        x: torch.Tensor,
        networks: int,
        asked: Mapping[Ball, Sequence[Notion]],
        keys: Sequence[int],
    ) -> Iterator[tuple[Ball, Notion, Found]]:
        """What is found for each of the notions `asked` of a ball around the float32 images x [n, h, w, c] in [0, 1].

        `predict` maps images [K, n, h, w, c] to logits [K, n, classes], network k seeing images [k]. `keys` [n] are
        the points' own numbers, from which everything random is drawn. What is found for a point depends neither on
        the points and networks beside it (as long as n is a multiple of IMAGES_MULTIPLE), nor on the other balls and
        notions.
        """
        assert x.ndim == 4, f"images are [n, h, w, c], not {tuple(x.shape)}"
        assert x.dtype == torch.float32
        assert len(keys) == len(x)
        for notions in asked.values():
            assert all(isinstance(notion, self.notions) for notion in notions), f"{self} does not serve {notions}"
        points = Points(predict, x, networks, keys)
        for ball, served, candidate in self.run(points, asked):
            perturbed = _contained(candidate, points, ball)
            logits = predict(perturbed)
            distance = logits.new_tensor(ball.delta)
            if any(isinstance(notion, Margin) for notion in served):
                distance = points.around(ball).distance(perturbed)
            for notion in served:
                outcome = notion.outcome(points.logits, logits, distance)
                yield ball, notion, Found(perturbed, outcome, points.no_gradient)

    @abstractmethod
    def run(
        self, points: Points, asked: Mapping[Ball, Sequence[Notion]]
    ) -> Iterator[tuple[Ball, Sequence[Notion], torch.Tensor]]:
        """Candidates [K, n, h, w, c], each with the ball and the notions that it is for."""


def _contained(candidate: torch.Tensor, points: Points, ball: Ball) -> torch.Tensor:
    """The candidate [K, n, h, w, c], brought into the ball where it is not inside."""
    assert candidate.shape == points.images.shape
    around = points.around(ball)
    inside = around.contains(candidate)
    if not inside.all():
        # A NaN from a broken gradient is no perturbation; clamp would let it through.
        projected = around.project(torch.where(candidate.isnan(), points.images, candidate))
        candidate = torch.where(inside[..., None, None, None], candidate, projected)
        assert around.contains(candidate).all(), f"a perturbed point left {ball}"
    return candidate
