"""The attack by one linearisation, in the box."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from deltaball.local.attacks.closest import Closest, Nearest, NearestViolation
from deltaball.local.attacks.left import Left
from deltaball.local.balls import GEOMETRY
from deltaball.local.losses import hair
from deltaball.local.neighbourhoods import Neighbourhood
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
        """Show the networks images on the way to every other class, first to that which the linear network is next to.

        Only where they may be closer than the closest so far: images further on a way are further from the point.
        """
        around = found.geometry(found.points.x, found.largest)
        slopes, lacking = map(torch.stack, zip(*_ways(found), strict=True))
        # A hair behind the border, or no forward pass would see the change.
        levels = torch.stack(
            [around.level(*way) for way in zip(slopes, lacking + 2 * hair(found.points.logits), strict=True)]
        )
        for order in levels.argsort(0):
            slope, level = (_of_class(values, order) for values in (slopes, levels))
            self._follow(found, around, slope, level)

    def _follow(self, found: Closest, around: Neighbourhood, slope: torch.Tensor, level: torch.Tensor) -> None:
        """Look along one slope [K, n, h, w, c] from a level [K, n] on."""
        near, far = torch.zeros_like(level), torch.full_like(level, torch.inf)
        kept = torch.zeros_like(found.distance)  # the distance up to which the class was seen to stay
        for step in range(self.outwards + self.halvings):
            left = Left.of(kept < found.distance)
            if left is None:
                return
            here = left.taken(level)
            images = around.at(left.rows % len(around.x)).along(left.taken(slope), here)
            lead, length = found.judge(images, found.points.model(images), left)
            left.put(far, torch.minimum(left.taken(far), here), ~(lead > 0))
            left.put(near, torch.maximum(left.taken(near), here), lead > 0)
            left.put(kept, torch.maximum(left.taken(kept), length), lead > 0)
            halved = (near + far) / 2
            level = torch.where(far.isinf(), level * GROWTH, halved) if step < self.outwards else halved


def _of_class(values: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Those [K, n, ...] of values [classes, K, n, ...] that `which` [K, n] names for each point."""
    networks, points = which.shape
    places = torch.arange(networks * points, device=which.device).view(networks, points)
    return values.flatten(1, 2)[which, places]


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
