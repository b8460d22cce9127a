"""Notions of paper 001 that bound how far the logits move: SR and LR (its Definitions 2 and 3).

The paper's authors cut logits at ±100 before they compare them; here they are compared as they are. The definitions do
not cut, and a network would be more robust for larger logits: beyond ±100 nothing would count as a change, and attacks
would have no gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.losses import Loss, euclidean_difference, largest_difference
from deltaball.local.notions import Qualitative
from deltaball.local.references import Reference
from deltaball.study.notions import NEAREST

# The largest difference alone would hold on to the logit that is ahead where a search begins.
LOSSES: dict[str, tuple[Loss, ...]] = {
    "linf": (largest_difference, euclidean_difference),
    "l2": (euclidean_difference, largest_difference),
}

# Norms of differences of logits, [..., classes] → [...].
LENGTHS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linf": lambda differences: differences.abs().amax(-1),
    "l2": lambda differences: torch.linalg.vector_norm(differences, dim=-1),
}


@dataclass(frozen=True)
class StandardRobustness(Qualitative):
    """SR: 1 if the logits are within `bound` of the reference's vector, in the norm `distance`, else 0.

    That vector is f(x̂), the logits at the point, as in the authors' code and Section 3 of the paper; or, as in its
    Definition 2, the label's: 1 for the class and 0 elsewhere. Then the logits at the point itself must be as close.
    """

    bound: float
    reference: str = "output"
    distance: str = "linf"
    name = "standard_robustness"

    @property
    def losses(self) -> tuple[Loss, ...]:
        return LOSSES[self.distance]

    def holds(self, reference: Reference, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        return self._within(reference, reference.logits) & self._within(reference, perturbed)

    def proven(self, reference: Reference, bounds: LogitBounds) -> torch.Tensor:
        target = reference.target.to(torch.float64)
        furthest = torch.maximum(bounds.upper - target, target - bounds.lower)
        return (LENGTHS[self.distance](furthest) <= self.bound) & self._within(reference, reference.logits)

    def _within(self, reference: Reference, logits: torch.Tensor) -> torch.Tensor:
        differences = logits.to(torch.float64) - reference.target.to(torch.float64)
        return LENGTHS[self.distance](differences) <= self.bound


@dataclass(frozen=True)
class LipschitzRobustness(Qualitative):
    """LR: 1 if the logits moved, in the norm `distance`, at most `constant` times as far as the image, else 0.

    How far the image moved is counted in the ball's norm. Where it did not, the notion holds: 0 ≤ 0. That is why there
    is no form that refers to the label, as the paper's Definition 3 is written: at the point itself it would ask for
    f(x̂) = y, which holds of no network. Logits of two float32 images that nearly coincide can differ by rounding alone,
    and by more than any constant times the images' distance: closer than NEAREST images are not counted.
    """

    constant: float
    distance: str = "linf"
    name = "lipschitz_robustness"

    @property
    def losses(self) -> tuple[Loss, ...]:
        return LOSSES[self.distance]

    def holds(self, reference: Reference, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        moved = LENGTHS[self.distance](perturbed.to(torch.float64) - reference.target.to(torch.float64))
        stayed = (distance < NEAREST) & moved.isfinite()
        return stayed | (moved <= self.constant * distance.to(torch.float64))

    def proven(self, reference: Reference, bounds: LogitBounds) -> torch.Tensor:
        finite = reference.logits.isfinite().all(-1)
        return finite & (LENGTHS[self.distance](bounds.slopes) <= self.constant)
