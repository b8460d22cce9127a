"""The closest violation: what attacks keep that look for it, and how they hand it back."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import torch

from deltaball.local.attacks.attack import Attack, Proposal, by_reference
from deltaball.local.attacks.gradients import replace_where
from deltaball.local.balls import GEOMETRY, Ball, Neighbourhood
from deltaball.local.losses import Loss, hair, margin_loss, shortage
from deltaball.local.neighbourhoods import over_pixels
from deltaball.local.notions import Notion
from deltaball.local.points import Points
from deltaball.local.references import Reference

# Radii along FGSM's direction, each half the one before, at which a start is looked for: in the norm, and in L∞ where
# every pixel moves.
HALVINGS = 10

BISECTIONS = 24


class Nearest(NamedTuple):
    """The closest violations that were found."""

    images: torch.Tensor  # [K, n, h, w, c]; the point itself where there is none
    found_by: torch.Tensor | None = None  # int8 [K, n], of several attacks: which one, by its place; -1 for none


class NearestViolation(Attack):
    """Looks for the closest image of another class.

    The search knows no radius, so one serves all balls of a norm; a ball in which the image does not lie gets the point
    itself.
    """

    def run(self, points: Points, asked: Mapping[Ball, Sequence[Notion]]) -> Iterator[Proposal]:
        nearest = cache(lambda norm, reference, lead: self.nearest(points, norm, reference, lead))
        for ball, notions in asked.items():
            for reference, against in by_reference(points, notions):
                for lead in dict.fromkeys(notion.lead for notion in against):
                    images, found_by = nearest(ball.norm, reference, lead)
                    inside = points.around(ball).contains(images)
                    served = [notion for notion in against if notion.lead == lead]
                    proposed = torch.where(inside[..., None, None, None], images, points.images)
                    yield Proposal(ball, served, proposed, None if found_by is None else found_by.where(inside, -1))

    @abstractmethod
    def nearest(self, points: Points, norm: str, reference: Reference, lead: float) -> Nearest:
        """The closest images in a norm of another class that leads every class by `lead`."""


class Closest:
    """The closest violation of each of K networks × n points so far, and the closest tie."""

    def __init__(self, points: Points, geometry: type[Neighbourhood], reference: Reference, lead: float = 0.0) -> None:
        self.points, self.geometry, self.x = points, geometry, points.images
        self.reference, self.lead = reference, lead
        self.rows = torch.arange(reference.classes.numel(), device=self.x.device)
        self.images, self.distance = self.x.clone(), self.x.new_full(self.x.shape[:2], torch.inf)  # [K, n, h, w, c]
        self.tied, self.tied_distance = self.x.clone(), self.distance.clone()
        self.largest = geometry.length(torch.ones_like(points.x[0])).item()

    def judge(self, images: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Lead of the point's class over where a violation begins, and distance from the point."""
        lead, length = self._lead(logits), self.geometry.length(images - self.x)
        clear = lead + hair(logits)
        for kept, shortest, bound in ((self.images, self.distance, clear), (self.tied, self.tied_distance, lead)):
            closer = ~(bound > 0) & (length < shortest)
            replace_where(kept.flatten(0, 1), self.rows, images.flatten(0, 1), closer.flatten())
            shortest.copy_(torch.where(closer, length, shortest))
        return clear, length

    def look_along_the_gradient(self) -> None:
        """Judge images along the point's own gradient, at HALVINGS radii in the norm and in L∞."""
        for way, halving in product(dict.fromkeys((self.geometry, GEOMETRY["linf"])), range(HALVINGS)):
            radius = way.longest_step(self.points.x.shape[1:]) / 2**halving
            images = way.stepped(self.x, self.points.direction(self.reference).clone(), radius).clamp_(0, 1)
            self.judge(images, self.points.model(images))

    def tightened(self) -> torch.Tensor:
        """The closest violation between the point and the closest found; of ties where nothing else is there."""
        ties = self.distance.isinf()
        furthest = torch.where(over_pixels(ties), self.tied, self.images)
        near, far = torch.zeros_like(self.distance), torch.ones_like(self.distance)
        for _ in range(BISECTIONS):
            middle = (near + far) / 2
            logits = self.points.model(torch.lerp(self.x, furthest, over_pixels(middle)))
            lead = self._lead(logits) + torch.where(ties, 0.0, hair(logits))
            near, far = torch.where(lead > 0, middle, near), torch.where(lead > 0, far, middle)
        return torch.lerp(self.x, furthest, over_pixels(far))

    @property
    def loss(self) -> Loss:
        """What an attack raises; its slopes by the logits are 1 at most, and so are its gradients to scale."""
        return (lambda reference, logits: -shortage(logits, reference.classes, self.lead)) if self.lead else margin_loss

    def _lead(self, logits: torch.Tensor) -> torch.Tensor:
        return shortage(logits, self.reference.classes, self.lead)
