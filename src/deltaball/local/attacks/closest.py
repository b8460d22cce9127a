"""The closest violation: what attacks keep that look for it, and how they hand it back."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import torch

from deltaball.local.attacks.attack import Attack, Proposal, by_reference
from deltaball.local.attacks.left import Left
from deltaball.local.balls import GEOMETRY, Ball, Neighbourhood
from deltaball.local.losses import Loss, hair, margin_loss, shortage
from deltaball.local.neighbourhoods import over_pixels
from deltaball.local.notions import Notion
from deltaball.local.points import Points
from deltaball.local.references import Reference

# Radii along FGSM's direction, each half the one before, at which a start is looked for: in the norm, and in L∞ where
# every pixel moves.
HALVINGS = 10

# How often the line between a point and its closest violation is cut: at first where the lead would be 0 if it were
# linear, but no nearer to either end than this share; then in halves. Done is where so small a share of it is left.
FALSE_POSITIONS, HALVED, EDGE, NEAR_ENOUGH = 10, 20, 2.0**-10, 2.0**-20


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
        networks, count = self.x.shape[:2]
        rows = torch.arange(networks * count, device=self.x.device).view(networks, count)
        self._all = Left(rows, torch.ones_like(rows, dtype=torch.bool))
        self.images, self.distance = self.x.clone(), self.x.new_full(self.x.shape[:2], torch.inf)  # [K, n, h, w, c]
        self.tied, self.tied_distance = self.x.clone(), self.distance.clone()
        self.lead_there, self.tied_lead = torch.zeros_like(self.distance), torch.zeros_like(self.distance)
        self.largest = geometry.length(torch.ones_like(points.x[0])).item()

    def judge(
        self, images: torch.Tensor, logits: torch.Tensor, left: Left | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Lead of the point's class over where a violation begins, and distance from the point.

        Images and logits are those of the points that are `left` [K, m], or of all.
        """
        x, reference = (left.taken(self.x), self.reference.chosen(left.rows)) if left else (self.x, self.reference)
        left = left or self._all
        lead = shortage(logits, reference.classes, self.lead)
        length, clear = self.geometry.length(images - x), lead + hair(logits)
        for kept, shortest, least, bound in (
            (self.images, self.distance, self.lead_there, clear),
            (self.tied, self.tied_distance, self.tied_lead, lead),
        ):
            closer = ~(bound > 0) & (length < left.taken(shortest))
            for values, new in ((kept, images), (shortest, length), (least, bound)):
                left.put(values, new, closer)
        return clear, length

    def look(self, images: torch.Tensor) -> None:
        """Judge images of the points [K, n, h, w, c] where they are closer than what was found."""
        left = Left.of(self.geometry.length(images - self.x) < self.distance)
        if left:
            shown = left.taken(images)
            self.judge(shown, self.points.model(shown), left)

    def look_along_the_gradient(self) -> None:
        """Look at images along the point's own gradient, at HALVINGS radii in the norm and in L∞, the closest first."""
        for way, halving in product(dict.fromkeys((self.geometry, GEOMETRY["linf"])), reversed(range(HALVINGS))):
            radius = way.longest_step(self.points.x.shape[1:]) / 2**halving
            self.look(way.stepped(self.x, self.points.direction(self.reference).clone(), radius).clamp_(0, 1))

    def tightened(self) -> torch.Tensor:
        """The closest violation between the point and the closest found; of ties where nothing else is there.

        By the regula falsi (Illinois), and where that has not ended by bisection.
        """
        ties = self.distance.isinf()
        furthest = torch.where(over_pixels(ties), self.tied, self.images)
        near, far = torch.zeros_like(self.distance), torch.ones_like(self.distance)
        # The lead at either end, halved each time that the other end moves twice.
        at_near = self._lead(self.points.logits) + torch.where(ties, 0.0, hair(self.points.logits))
        at_far = torch.where(ties, self.tied_lead, self.lead_there)
        near_moved = torch.full_like(ties, False)
        far_moved, open_ = near_moved.clone(), self.tied_distance.isfinite()
        for cut in range(FALSE_POSITIONS + HALVED):
            left = Left.of(open_)
            if left is None:
                break
            share = torch.full_like(far, 0.5)
            if cut < FALSE_POSITIONS:
                falsely = (at_near / (at_near - at_far)).nan_to_num(0.5).clamp(EDGE, 1 - EDGE)
                share = torch.where(at_near > 0, falsely, share)
            middle = torch.lerp(near, far, share)
            shown = torch.lerp(left.taken(self.x), left.taken(furthest), over_pixels(left.taken(middle)))
            logits, lead = self.points.model(shown), torch.zeros_like(far)
            beyond_ties = torch.where(left.taken(ties), 0.0, hair(logits))
            left.put(lead, shortage(logits, self.reference.chosen(left.rows).classes, self.lead) + beyond_ties)
            keeps, leaves = open_ & (lead > 0), open_ & ~(lead > 0)
            at_near = torch.where(keeps, lead, torch.where(leaves & far_moved, at_near / 2, at_near))
            at_far = torch.where(leaves, lead, torch.where(keeps & near_moved, at_far / 2, at_far))
            near, far = torch.where(keeps, middle, near), torch.where(leaves, middle, far)
            near_moved, far_moved = keeps, leaves
            open_ = open_ & (far - near > NEAR_ENOUGH)
        return torch.lerp(self.x, furthest, over_pixels(far))

    @property
    def loss(self) -> Loss:
        """What an attack raises; its slopes by the logits are 1 at most, and so are its gradients to scale."""
        return (lambda reference, logits: -shortage(logits, reference.classes, self.lead)) if self.lead else margin_loss

    def _lead(self, logits: torch.Tensor) -> torch.Tensor:
        return shortage(logits, self.reference.classes, self.lead)
