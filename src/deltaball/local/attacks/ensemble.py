"""Several attacks, of which the closest violation counts."""

from dataclasses import dataclass

import torch

from deltaball.local.attacks.bg import Bg
from deltaball.local.attacks.closest import Closest, Nearest, NearestViolation
from deltaball.local.attacks.gradients import annealing, differentiated
from deltaball.local.attacks.left import Left
from deltaball.local.balls import GEOMETRY
from deltaball.local.neighbourhoods import over_pixels
from deltaball.local.points import Points
from deltaball.local.references import Reference

# The length of PGD's path in radii.
TRAVEL = 4

# PGD's first radius, as a share of the distance that another attack has found. FGSM's and BG's images are seldom so far
# that a smaller one leads anywhere. After each violation the share is its square, until there is none.
NEARER = 0.8

# Steps that PGD takes at a radius after the first violation.
FURTHER = 2

Found = tuple[torch.Tensor, torch.Tensor]  # images [K, n, h, w, c] and their distances [K, n]


@dataclass(frozen=True)
class Ensemble(NearestViolation):
    """The closest image of another class that FGSM, BG or PGD finds (papers 000 and 003, Section 5).

    The papers give no radii. FGSM goes to ten along its direction, each half the one before, in the norm and by signs.
    BG follows its way to each other class. PGD searches the radius below the distance that these two have found (the
    largest where they found nothing): `radii` times it takes `steps` steps on the margin from the closest image so far,
    brought into the ball, and ends some steps after a violation. Its radius is a share of the closest distance, smaller
    after each violation, and once there was none the middle of what is left. So it also climbs to a class that is not
    the likeliest. A search along the line to the point then tightens what each of them found; of equals the first
    counts. What does not change the class is no proposal; where there is none the margin is as large as asked.
    """

    steps: int = 10
    radii: int = 10

    def nearest(self, points: Points, norm: str, reference: Reference, lead: float) -> Nearest:
        by_attack = self.by_attack(points, norm, reference, lead)
        closest, least = _closest(*by_attack.values())
        found_by = torch.full_like(least, -1, dtype=torch.int8)
        for place, (_, distance) in reversed([*enumerate(by_attack.values())]):
            found_by.masked_fill_(distance.isfinite() & (distance == least), place)
        return Nearest(closest, found_by)

    def by_attack(self, points: Points, norm: str, reference: Reference, lead: float = 0.0) -> dict[str, Found]:
        """Each attack's closest images [K, n, h, w, c] and their distances [K, n], infinite where it found none.

        A tie counts as further than any image that is none.
        """
        fgsm, bg, pgd = (Closest(points, GEOMETRY[norm], reference, lead) for _ in range(3))
        fgsm.look_along_the_gradient()
        Bg().look(bg)
        cheap = {"fgsm": _tightened(fgsm), "bg": _tightened(bg)}
        self._search_radii(pgd, *self._begun(pgd, *cheap.values()))
        return {**cheap, "pgd": _tightened(pgd)}

    def _begun(self, pgd: Closest, *found: Found) -> Found:
        """Where PGD begins, and within which distances [K, n]."""
        return _closest(*found)

    def _search_radii(self, found: Closest, images: torch.Tensor, known: torch.Tensor) -> None:
        """PGD from images, or from the point, whose distances are `known`."""
        near, far = torch.zeros_like(known), known.clamp(max=found.largest)
        share = torch.where(known < found.largest, NEARER, 0.5)
        for _ in range(self.radii):
            radius = torch.where(near > 0, (near + far) / 2, share * far)
            start = torch.where(over_pixels(found.distance < known), found.images, images)
            violated = self._ascend(found, found.geometry.retracted(start, found.x, radius), radius)
            share = torch.where(violated, share**2, share)
            far = torch.where(violated, torch.minimum(radius, found.distance), far)
            near = torch.where(violated, near, radius)

    def _ascend(self, found: Closest, images: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
        """Ascend from images in balls of these radii [K, n]; whether a violation was found."""
        geometry, further = found.geometry, torch.full_like(radius, FURTHER)
        violated = torch.zeros_like(radius, dtype=torch.bool)
        for step in range(self.steps):
            left = Left.of(further >= 0)
            if left is None:
                return violated
            shown, reference = left.taken(images), found.reference.chosen(left.rows)
            logits, gradient = differentiated(found.points.model, shown, reference, found.loss)
            left.put(violated, left.taken(violated) | ~(found.judge(shown, logits, left)[0] > 0))
            further -= violated.to(further.dtype)
            length = 2 * annealing(step, self.steps) * TRAVEL / self.steps * left.taken(radius)
            moved = geometry.retracted(
                geometry.stepped(shown, gradient, length), left.taken(found.x), left.taken(radius)
            )
            left.put(images, moved)
        left = Left.of(further >= 0)
        if left:
            shown = left.taken(images)
            lead, _ = found.judge(shown, found.points.model(shown), left)
            left.put(violated, left.taken(violated) | ~(lead > 0))
        return violated


@dataclass(frozen=True)
class EnsembleApart(Ensemble):
    """The same, but PGD knows nothing of the others: it begins at the point and looks as far as images can be.

    So it says which of the attacks is the closest, as the papers' tables do (000's Table 2, 003's Table 3).
    """

    def _begun(self, pgd: Closest, *found: Found) -> Found:
        return pgd.x, torch.full_like(pgd.distance, pgd.largest)


def _closest(first: Found, *others: Found) -> Found:
    images, least = first
    for others_images, distance in others:
        nearer = distance < least
        images = torch.where(over_pixels(nearer), others_images, images)
        least = torch.where(nearer, distance, least)
    return images, least


def _tightened(found: Closest) -> Found:
    images = found.tightened()
    distance = found.geometry.length(images - found.x)
    distance = torch.where(found.distance.isinf(), distance + 2 * found.largest, distance)
    return images, torch.where(found.tied_distance.isinf(), torch.inf, distance)
