"""Attacks: perturbed points that are meant to violate robustness, for K networks × n points at once.

An attack only proposes; the base class judges. A proposal is brought into the ball, and its outcome comes from one
more forward pass on exactly the point that is handed back. The attacked class is that of the notion's
reference: the predicted one, or the label.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from deltaball.local.balls import Ball
from deltaball.local.judge import Judge, Verdict
from deltaball.local.notions import Notion
from deltaball.local.points import Points
from deltaball.local.references import Reference
from deltaball.networks.models import Model


class Proposal(NamedTuple):
    """Images that an attack proposes for one ball."""

    ball: Ball
    notions: Sequence[Notion]  # which they are for
    images: torch.Tensor  # [K, n, h, w, c]
    found_by: torch.Tensor | None = None  # int8 [K, n], of several attacks: which one, by its place; -1 for none


class Attack(Judge):
    """A way to look for violations. Calling it judges whatever `run` proposes."""

    @torch.no_grad()
    def __call__(
        self,
        model: Model,
        x: torch.Tensor,
        asked: Mapping[Ball, Sequence[Notion]],
        keys: Sequence[int],
        labels: torch.Tensor | None = None,
    ) -> Iterator[tuple[Ball, Notion, Verdict]]:
        """What is found for each of the notions `asked` of a ball around the float32 images x [n, h, w, c] in [0, 1].

        What is found for a point depends neither on the points and networks beside it (as long as n is a multiple of
        IMAGES_MULTIPLE), nor on the other balls and notions.
        """
        assert x.ndim == 4, f"images are [n, h, w, c], not {tuple(x.shape)}"
        assert x.dtype == torch.float32
        assert len(keys) == len(x)
        points = Points(model, x, keys, labels)
        for ball, served, candidate, found_by in (Proposal(*proposed) for proposed in self.run(points, asked)):
            perturbed = contained(candidate, points, ball)
            logits = model(perturbed)
            distance = logits.new_tensor(ball.delta)
            if any(notion.entry.compares_distances for notion in served):
                distance = points.around(ball).distance(perturbed)
            for notion in served:
                reference = points.reference(notion)
                outcome = notion.outcome(reference, logits, distance)
                yield ball, notion, Verdict(outcome, perturbed, points.no_gradient(reference), found_by)

    @abstractmethod
    def run(
        self, points: Points, asked: Mapping[Ball, Sequence[Notion]]
    ) -> Iterator[Proposal | tuple[Ball, Sequence[Notion], torch.Tensor]]:
        """Candidates [K, n, h, w, c], each with the ball and the notions that it is for."""


def by_reference(points: Points, notions: Sequence[Notion]) -> Iterator[tuple[Reference, list[Notion]]]:
    """The references of notions, each with the notions that share it."""
    groups: dict[Reference, list[Notion]] = defaultdict(list)
    for notion in notions:
        groups[points.reference(notion)].append(notion)
    yield from groups.items()


def contained(candidate: torch.Tensor, points: Points, ball: Ball) -> torch.Tensor:
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
