"""The closest image of another class in linear regions that follow each other, from that of FMN's image on."""

from dataclasses import dataclass

import torch

from deltaball.local.attacks.closest import Nearest, NearestViolation
from deltaball.local.attacks.confirming import Confirming
from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.linear_region import confirmed_image, targets
from deltaball.local.losses import margin
from deltaball.local.nearest import nearest
from deltaball.local.points import Points
from deltaball.local.references import Reference
from deltaball.local.regions import Pieces, Region, piecewise
from deltaball.networks.packs import Pack

# What is nearer by a smaller share than this is no progress.
PROGRESS = 1e-4


@dataclass(frozen=True)
class Walk(NearestViolation):
    """The linear program of `LinearRegion` in one region after the other (after Croce and Hein 2018, "A randomized
    gradient-free attack on ReLU networks").

    It begins with the point's own region, and the region of the image that FMN finds. Where the nearest image of a
    region is nearer than all before, the regions follow on the other side of what holds it, the strongest first. So
    many `programs` are solved for each point, and what is handed back is no further than what `LinearRegion` finds of
    the runner-up, or FMN.

    In L∞ only, for one point of one network after the other.
    """

    programs: int = 20
    steps: int = 100

    def nearest(self, points: Points, norm: str, reference: Reference, lead: float) -> Nearest:
        images = Fmn(self.steps).nearest(points, norm, reference, lead).images.clone()
        leads = margin(reference.logits, reference.classes)
        for k in range(len(points.model)):
            network, confirming = piecewise(points.model.one(k)), Confirming(points.model.one(k), lead, 0)
            found: dict[int, torch.Tensor] = {}  # by key, for points that fill up repeat others
            for place, key in enumerate(points.keys):
                if key not in found:
                    path = _Path(network, confirming, points.x[place], int(reference.classes[k, place]))
                    begin = images[k, place]
                    found[key] = path.walked(begin, self.programs) if leads[k, place] > 0 else begin
                images[k, place] = found[key]
        return Nearest(images)


class _Path:
    """A walk from one point x [h, w, c], of class `kept`."""

    def __init__(self, network: Pack, confirming: Confirming, x: torch.Tensor, kept: int) -> None:
        self.network, self.confirming, self.x, self.kept = network, confirming, x, kept
        self.center = x.cpu().to(torch.float64)
        self.seen: set[bytes] = set()

    def walked(self, image: torch.Tensor, programs: int) -> torch.Tensor:
        """The nearest image of so many programs, or the given one; x itself stands for none."""
        own = Region.around(self.network, self.center)
        ahead = [(own, targets(own, self.kept)[0])]
        most = (image - self.x).abs().max().item()
        if most > 0:
            there = Region.around(self.network, self.center, image.cpu().to(torch.float64))
            reached = int(_without(self.confirming.model(image[None])[0, 0], self.kept).argmax())
            ahead.insert(0, (there, reached))
        else:
            most = 1.0
        while ahead and programs:
            region, target = ahead.pop()
            if self._was_here(region.pieces, target):
                continue
            programs -= 1
            found = nearest(region, self.kept, target, self.confirming.alpha, most * (1 - PROGRESS))
            confirmed = confirmed_image(self.confirming, region, self.x, found, self.kept, target, most)
            if confirmed is not None and (distance := (confirmed - self.x).abs().max().item()) < most:
                image, most = confirmed, distance
                # What held a region that is left behind holds nothing nearer.
                ahead = [one for one in ahead if one[0] is own]
                ahead += [(region.beyond(slack), target) for slack in reversed(found.holding[:programs])]
        return image

    def _was_here(self, pieces: Pieces, target: int) -> bool:
        name = b"".join([target.to_bytes(2, "big"), *(piece.numpy().tobytes() for piece in pieces)])
        was = name in self.seen
        self.seen.add(name)
        return was


def _without(logits: torch.Tensor, kept: int) -> torch.Tensor:
    return logits.index_fill(0, torch.tensor(kept, device=logits.device), -torch.inf)
