"""The fast minimum-norm attack."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch

from deltaball.local.attacks.attack import Attack
from deltaball.local.attacks.gradients import annealing, differentiated, replace_where
from deltaball.local.balls import GEOMETRY, Ball
from deltaball.local.losses import margin, margin_loss
from deltaball.local.neighbourhoods import over_pixels
from deltaball.local.notions import Notion
from deltaball.local.points import Points

# FMN: the share γ by which the radius shrinks and the step α, both annealed by a cosine (Pintor et al. 2021). Here α is
# a share of the radius, and a radius always grows to where the margin would be 0 if it were linear: simpler, not worse.
GAMMA, ALPHA = (0.05, 0.001), (0.5, 0.01)

# Radii along FGSM's direction, each half the one before, at which FMN looks for a start: in the norm, and in L∞ where
# every pixel moves.
HALVINGS = 10

BISECTIONS = 24


@dataclass(frozen=True)
class Fmn(Attack):
    """The closest image of another class: fast minimum-norm attack (Pintor et al. 2021, Algorithm 1) on the margin.

    Starts from FGSM's direction where that leads to another class, else from the point. A line search between the
    point and the closest image found then tightens it. The search knows no radius, so one serves all balls of a norm;
    a ball in which the image does not lie gets the point itself.
    """

    steps: int = 100

    def run(
        self, points: Points, asked: Mapping[Ball, Sequence[Notion]]
    ) -> Iterator[tuple[Ball, Sequence[Notion], torch.Tensor]]:
        closest = {norm: self._closest(points, norm) for norm in dict.fromkeys(ball.norm for ball in asked)}
        for ball, notions in asked.items():
            inside = points.around(ball).contains(closest[ball.norm])
            yield ball, notions, torch.where(inside[..., None, None, None], closest[ball.norm], points.images)

    def _closest(self, points: Points, norm: str) -> torch.Tensor:
        """[K, n, h, w, c]; the point itself where no other class was found."""
        geometry = GEOMETRY[norm]
        x, reference = points.images, points.logits.argmax(-1, keepdim=True)
        rows = torch.arange(reference.numel(), device=x.device)
        closest, distance = x.clone(), x.new_full(x.shape[:2], torch.inf)

        def judge(images: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Lead of the point's class, and distance from the point; the closest is kept."""
            lead, length = margin(logits, reference), geometry.length(images - x)
            closer = ~(lead > 0) & (length < distance)
            replace_where(closest.flatten(0, 1), rows, images.flatten(0, 1), closer.flatten())
            distance.copy_(torch.where(closer, length, distance))
            return lead, length

        largest = geometry.length(torch.ones_like(points.x[0])).item()
        for way, halving in product(dict.fromkeys((geometry, GEOMETRY["linf"])), range(HALVINGS)):
            radius = way.longest_step(points.x.shape[1:]) / 2**halving
            images = way.stepped(x, points.direction.clone(), radius).clamp_(0, 1)
            judge(images, points.model(images))
        images, radius = closest.clone(), distance.clone()
        for step in range(self.steps):
            annealed = annealing(step, self.steps)
            gamma, alpha = (end + (begin - end) * annealed for begin, end in (GAMMA, ALPHA))
            logits, gradient = differentiated(points.model, images, points.logits, margin_loss)
            lead, length = judge(images, logits)
            outwards = length + lead / geometry.dual_length(gradient)
            inwards = torch.minimum(radius * (1 - gamma), distance)
            radius = torch.where(lead > 0, outwards, inwards).clamp(max=largest)
            images = geometry.retracted(geometry.stepped(images, gradient, alpha * radius), x, radius)
        near, far = torch.zeros_like(distance), torch.ones_like(distance)
        for _ in range(BISECTIONS):
            middle = (near + far) / 2
            lead = margin(points.model(torch.lerp(x, closest, over_pixels(middle))), reference)
            near, far = torch.where(lead > 0, middle, near), torch.where(lead > 0, far, middle)
        return torch.lerp(x, closest, over_pixels(far))
