"""Exact answers as judges: the cheap first, and branch and bound for what they leave open."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from deltaball.local import exact, exact_distance
from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.certificates.certificate import Crown
from deltaball.local.judge import Judge, Verdict
from deltaball.local.notions import ClassChange, Margin, Notion
from deltaball.local.points import filled
from deltaball.networks.models import Layered
from deltaball.study.judges import PGD


@dataclass(frozen=True)
class Exact(Judge):
    """Whether the class changes: PGD finds most violations, CROWN proves most of the rest, the rest is solved.

    What `seconds` for each of the points that are left, all of them together, do not solve is given up as undecided.
    """

    seconds: float = 60.0

    def __call__(
        self,
        model: Layered,
        x: torch.Tensor,
        asked: Mapping[Ball, Sequence[Notion]],
        keys: Sequence[int],
        labels: torch.Tensor | None = None,
    ) -> Iterator[tuple[Ball, Notion, Verdict]]:
        for ball, notions in asked.items():
            for notion in notions:
                assert isinstance(notion, ClassChange), f"{notion} has no exact answer"
                kept = labels if notion.entry.needs_labels else None
                decided = [self._decided(model.one(k), x, ball, notion, keys, kept) for k in range(len(model))]
                outcomes, witnesses = (torch.stack(parts) for parts in zip(*decided, strict=True))
                yield ball, notion, Verdict(outcomes, witnesses)

    def _decided(
        self,
        network: Layered,
        x: torch.Tensor,
        ball: Ball,
        notion: Notion,
        keys: Sequence[int],
        labels: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Outcomes [n] for one network, and the images [n, h, w, c] that violate."""
        padded = filled(len(x))
        numbered = [keys[index] for index in padded]
        ((_, _, attacked),) = Pgd(**PGD)(network, x[padded], {ball: [notion]}, numbered, _at(labels, padded))
        values, images = attacked.outcome[0, : len(x)].clone(), attacked.perturbed[0, : len(x)].clone()
        images[values != 0] = torch.nan
        left = values.nonzero()[:, 0]
        if len(left):
            ((_, _, proven),) = Crown()(network, x[left], {ball: [notion]}, keys, _at(labels, left))
            left = left[proven.outcome[0] == 0]
        if len(left):
            solved = exact.decide(network, x[left], ball, self.seconds, _at(labels, left))
            values[left], images[left] = torch.from_numpy(solved.outcome).to(x.device), solved.witness
        return values, images


@dataclass(frozen=True)
class ExactDistance(Judge):
    """How far the closest image of another class is: bisection over exact answers, from the image that FMN finds on.

    The outcome is the distance of an image that was found, of which it is proven that none is nearer than `tolerance`,
    as a share, allows; or the radius of the ball if that has none. What an answer of `seconds` leaves wider is
    undecided.
    """

    tolerance: float = 0.01
    seconds: float = 60.0

    def __call__(
        self,
        model: Layered,
        x: torch.Tensor,
        asked: Mapping[Ball, Sequence[Notion]],
        keys: Sequence[int],
        labels: torch.Tensor | None = None,
    ) -> Iterator[tuple[Ball, Notion, Verdict]]:
        padded = filled(len(x))
        for ball, notions in asked.items():
            for notion in notions:
                assert isinstance(notion, Margin), f"{notion} is no distance"
                verdicts = Fmn()(model, x[padded], {ball: [notion]}, [keys[index] for index in padded])
                ((_, _, attacked),) = verdicts
                found = [self._found(model.one(k), x, ball, attacked.perturbed[k, : len(x)]) for k in range(len(model))]
                outcomes, witnesses = (torch.stack(parts) for parts in zip(*found, strict=True))
                yield ball, notion, Verdict(outcomes, witnesses)

    def _found(
        self, network: Layered, x: torch.Tensor, ball: Ball, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Outcomes [n] for one network, and the closest violations [n, h, w, c]; NaN where there is none."""
        found = exact_distance.distances(network, x, images, ball.norm, self.tolerance, self.seconds, most=ball.delta)
        lower, upper = found.lower, found.upper.clamp(max=ball.delta)
        known = upper - lower <= self.tolerance * upper * (1 + exact_distance.ROUNDING)
        witness = torch.where(found.upper.isinf()[:, None, None, None], torch.nan, found.witness)
        return upper.where(known, torch.nan).float(), witness


def _at(labels: torch.Tensor | None, points: torch.Tensor | list[int]) -> torch.Tensor | None:
    return None if labels is None else labels[points]
