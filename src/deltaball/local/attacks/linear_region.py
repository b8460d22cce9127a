"""The closest image of another class in the linear region of a point."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from deltaball.local.attacks.attack import Attack, by_reference
from deltaball.local.attacks.confirming import Confirming
from deltaball.local.balls import Ball
from deltaball.local.losses import hair, margin
from deltaball.local.nearest import Nearest, nearest
from deltaball.local.notions import Notion
from deltaball.local.points import Points
from deltaball.local.regions import Region, piecewise
from deltaball.networks.packs import Pack


@dataclass(frozen=True)
class LinearRegion(Attack):
    """ρ̂ of Bastani et al. 2016 (Equation 5): the closest image of another class in the point's own linear region.

    The other class is the runner-up, as in the paper, or the closest of so many `targets`, in the order of their logits
    at the point. It leads all others by at least α. With `rounded_to` 255 pixels are rounded as uint8 rounds them, and
    what is of the point's class again is lost.

    Where the region holds no such image ρ̂ is infinite. That is no robustness, and no error: there may be one in the
    next region. The point itself is handed back, as by any attack that finds nothing in a ball; so it is where the
    solver gives up, of which `Nearest` knows.

    In L∞ only. Linear programs are solved for one point of one network after the other, and for each ball anew.
    """

    alpha: float = 0.0
    targets: int = 1
    rounded_to: int = 0

    def run(
        self, points: Points, asked: Mapping[Ball, Sequence[Notion]]
    ) -> Iterator[tuple[Ball, Sequence[Notion], torch.Tensor]]:
        networks = [piecewise(points.model.one(k)) for k in range(len(points.model))]
        for ball, notions in asked.items():
            for reference, against in by_reference(points, notions):
                images = points.images.clone()
                leads = margin(reference.logits, reference.classes)
                for k, network in enumerate(networks):
                    confirming = Confirming(points.model.one(k), self.alpha, self.rounded_to)
                    found: dict[int, torch.Tensor] = {}  # by key, for points that fill up repeat others
                    for place, key in enumerate(points.keys):
                        if key not in found:
                            x, kept = points.x[place], int(reference.classes[k, place])
                            image = (
                                self._closest(network, confirming, x, kept, ball.delta) if leads[k, place] > 0 else None
                            )
                            found[key] = x if image is None else image
                        images[k, place] = found[key]
                inside = points.around(ball).contains(images)
                yield ball, against, torch.where(inside[..., None, None, None], images, points.images)

    def _closest(
        self, network: Pack, confirming: Confirming, x: torch.Tensor, kept: int, most: float
    ) -> torch.Tensor | None:
        """An image within `most` of x of another class than `kept`, which leads at x; None where none is found."""
        region, image = Region.around(network, x.cpu().to(torch.float64)), None
        for target in targets(region, kept)[: self.targets]:
            found = nearest(region, kept, target, self.alpha, most)
            confirmed = confirmed_image(confirming, region, x, found, kept, target, most)
            if confirmed is not None:
                most, image = found.distance, confirmed
        return image


def targets(region: Region, kept: int) -> list[int]:
    """The other classes, from the runner-up on."""
    return [one for one in region.logits.argsort(descending=True).tolist() if one != kept]


def confirmed_image(
    confirming: Confirming, region: Region, x: torch.Tensor, found: Nearest, kept: int, target: int, most: float
) -> torch.Tensor | None:
    """The image that a solution is, or close to it; None if there is none, or float32 sees no other class there."""
    if found.displacement.isnan().any():
        return None
    image = confirming.stepped_out(x, found.displacement, target)
    if image is None:
        # The ray leaves the region where the solution does. A little lead more is found within it.
        more = confirming.alpha + 4 * float(hair(region.logits))
        found = nearest(region, kept, target, more, most, found.holding)
        if not found.displacement.isnan().any():
            image = confirming.stepped_out(x, found.displacement, target)
    return image
