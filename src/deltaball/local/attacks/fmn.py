"""The fast minimum-norm attack."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import torch

from deltaball.local.attacks.attack import Attack, by_reference
from deltaball.local.attacks.gradients import annealing, differentiated, replace_where
from deltaball.local.balls import GEOMETRY, Ball, Neighbourhood
from deltaball.local.losses import Loss, hair, margin_loss, shortage
from deltaball.local.neighbourhoods import over_pixels
from deltaball.local.notions import Notion
from deltaball.local.points import Points
from deltaball.local.references import Reference

# FMN: the share γ by which the radius shrinks and the step α, both annealed by a cosine (Pintor et al. 2021). Here α is
# a share of the radius, and a radius always grows to where the margin would be 0 if it were linear: simpler, not worse.
GAMMA, ALPHA = (0.05, 0.001), (0.5, 0.01)

# Radii along FGSM's direction, each half the one before, at which FMN looks for a start: in the norm, and in L∞ where
# every pixel moves.
HALVINGS = 10

BISECTIONS = 24

# By the steps of which norm images are sought, in turn; each search begins at the closest image so far. In L1 the paper
# steps along the gradient, in lengths of L2: that spreads over many pixels, and steps in L1 then gather them.
WAYS = {"linf": ("linf",), "l2": ("l2",), "l1": ("l2", "l1")}


@dataclass(frozen=True)
class Fmn(Attack):
    """The closest image of another class: fast minimum-norm attack (Pintor et al. 2021, Algorithm 1) on the margin.

    Starts from FGSM's direction where that leads to another class, else from the point. A line search between the
    point and the closest image found then tightens it. What is handed back lies a hair behind the border, and is a tie
    only where nothing else was found. The search knows no radius, so one serves all balls of a norm; a ball in which
    the image does not lie gets the point itself.
    """

    steps: int = 100

    def run(
        self, points: Points, asked: Mapping[Ball, Sequence[Notion]]
    ) -> Iterator[tuple[Ball, Sequence[Notion], torch.Tensor]]:
        closest = cache(lambda norm, reference, lead: self._closest(points, norm, reference, lead))
        for ball, notions in asked.items():
            for reference, against in by_reference(points, notions):
                for lead in dict.fromkeys(notion.lead for notion in against):
                    image = closest(ball.norm, reference, lead)
                    inside = points.around(ball).contains(image)
                    served = [notion for notion in against if notion.lead == lead]
                    yield ball, served, torch.where(inside[..., None, None, None], image, points.images)

    def _closest(self, points: Points, norm: str, reference: Reference, lead: float) -> torch.Tensor:
        """[K, n, h, w, c]; the point itself where no other class was found that leads by `lead`."""
        found = Closest(points, GEOMETRY[norm], reference, lead)
        found.look_along_the_gradient()
        for way in WAYS[norm]:
            self._search(found, way)
        return found.tightened()

    def _search(self, found: "Closest", way: str) -> None:
        """Steps from the closest image so far, with a radius that shrinks around violations and grows elsewhere."""
        geometry, stepped, own = found.geometry, GEOMETRY[way].stepped, GEOMETRY[way] is found.geometry
        images, radius = found.images.clone(), found.distance.clone()
        for step in range(self.steps):
            annealed = annealing(step, self.steps)
            gamma, alpha = (end + (begin - end) * annealed for begin, end in (GAMMA, ALPHA))
            logits, gradient = differentiated(found.points.model, images, found.reference, found.loss)
            lead, length = found.judge(images, logits)
            outwards = length + lead / geometry.dual_length(gradient)
            inwards = torch.minimum(radius * (1 - gamma), found.distance)
            radius = torch.where(lead > 0, outwards, inwards).clamp(max=found.largest)
            reach = alpha * radius if own else alpha
            images = geometry.retracted(stepped(images, gradient, reach), found.x, radius)


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
