"""The attack by one linearisation, in the box."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from deltaball.local.attacks.closest import Closest, Nearest, NearestViolation
from deltaball.local.balls import GEOMETRY
from deltaball.local.losses import hair
from deltaball.local.points import Points
from deltaball.local.references import Reference

# How far out along a way a class is looked for: by this factor further each time.
GROWTH = 1.5


@dataclass(frozen=True)
class Bg(NearestViolation):
    """Linearised once at the point, and solved in [0, 1] for each other class (Hein & Andriushchenko 2017, Section 4).

    With class k at f_k and the point's at f_c, the linear network reaches class k at the closest d with
    ⟨∇f_k - ∇f_c, d⟩ = f_c - f_k and x + d in [0, 1], which is found by sorting. The network itself may change its class
    sooner or later on that way: it is followed by `outwards` steps, each GROWTH times as far, and from the first image
    of another class the way back is halved `halvings` times. The paper's code takes the likeliest other class alone;
    here all are tried, and the closest image counts.
    """

    outwards: int = 6
    halvings: int = 5

    def nearest(self, points: Points, norm: str, reference: Reference, lead: float) -> Nearest:
        found = Closest(points, GEOMETRY[norm], reference, lead)
        self.look(found)
        return Nearest(found.tightened())

    def look(self, found: Closest) -> None:
        """Show the networks images on the way to every other class."""
        around = found.geometry(found.points.x, found.largest)
        for slope, lacking in _ways(found):
            # A hair behind the border, or no forward pass would see the change.
            linear = around.level(slope, lacking + 2 * hair(found.points.logits))
            near, far = torch.zeros_like(linear), torch.full_like(linear, torch.inf)
            level = linear
            for step in range(self.outwards + self.halvings):
                images = around.along(slope, level)
                changed = ~(found.judge(images, found.points.model(images))[0] > 0)
                far = torch.where(changed, torch.minimum(far, level), far)
                near = torch.where(changed, near, torch.maximum(near, level))
                halved = (near + far) / 2
                level = torch.where(far.isinf(), level * GROWTH, halved) if step < self.outwards else halved


def _ways(found: Closest) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """By how much each other class falls short at the points [K, n], and the slope [K, n, h, w, c] of its lead."""
    leaf = found.x.clone().requires_grad_()
    with torch.enable_grad():
        logits = found.points.model(leaf)
    own = found.reference.classes
    for place in range(logits.shape[-1] - 1):
        other = place + (own <= place).to(own.dtype)
        with torch.enable_grad():
            lead = (logits.gather(-1, other) - logits.gather(-1, own))[..., 0]
            (slope,) = torch.autograd.grad(lead.sum(), leaf, retain_graph=True)
        yield slope.nan_to_num(0.0, 0.0, 0.0), (found.lead - lead.detach()).nan_to_num(0.0, 0.0, 0.0)
