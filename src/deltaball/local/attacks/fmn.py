"""The fast minimum-norm attack."""

from dataclasses import dataclass

import torch

from deltaball.local.attacks.closest import Closest, Nearest, NearestViolation
from deltaball.local.attacks.gradients import annealing, differentiated
from deltaball.local.balls import GEOMETRY
from deltaball.local.points import Points
from deltaball.local.references import Reference

# FMN: the share γ by which the radius shrinks and the step α, both annealed by a cosine (Pintor et al. 2021). Here α is
# a share of the radius, and a radius always grows to where the margin would be 0 if it were linear: simpler, not worse.
GAMMA, ALPHA = (0.05, 0.001), (0.5, 0.01)

# By the steps of which norm images are sought, in turn; each search begins at the closest image so far. In L1 the paper
# steps along the gradient, in lengths of L2: that spreads over many pixels, and steps in L1 then gather them.
WAYS = {"linf": ("linf",), "l2": ("l2",), "l1": ("l2", "l1")}


@dataclass(frozen=True)
class Fmn(NearestViolation):
    """The closest image of another class: fast minimum-norm attack (Pintor et al. 2021, Algorithm 1) on the margin.

    Starts from FGSM's direction where that leads to another class, else from the point. A line search between the
    point and the closest image found then tightens it. What is handed back lies a hair behind the border, and is a tie
    only where nothing else was found.
    """

    steps: int = 100

    def nearest(self, points: Points, norm: str, reference: Reference, lead: float) -> Nearest:
        found = Closest(points, GEOMETRY[norm], reference, lead)
        found.look_along_the_gradient()
        for way in WAYS[norm]:
            self._search(found, way)
        return Nearest(found.tightened())

    def _search(self, found: Closest, way: str) -> None:
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
