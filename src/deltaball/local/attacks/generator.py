"""The generator that was trained beside a network, as an attack on it."""

from dataclasses import dataclass

from deltaball.local.attacks.closest import Closest, Nearest, NearestViolation
from deltaball.local.balls import GEOMETRY
from deltaball.local.points import Points
from deltaball.local.references import Reference


@dataclass(frozen=True)
class OwnGenerator(NearestViolation):
    """What the network's own generator makes of the point, if that is of another class; then the line back to it.

    It says what co-training trained against (papers 000 and 003), and compares no networks: each is attacked by another
    generator.
    """

    def nearest(self, points: Points, norm: str, reference: Reference, lead: float) -> Nearest:
        found = Closest(points, GEOMETRY[norm], reference, lead)
        images = points.model.generator(points.images)
        found.judge(images, points.model(images))
        return Nearest(found.tightened())
