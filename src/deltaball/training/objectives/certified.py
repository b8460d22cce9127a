"""Training by bounds: the loss of the worst logits that a box around an image could have."""

from abc import abstractmethod

import torch

from deltaball.networks.layers import Dense
from deltaball.networks.models import Layered
from deltaball.training.objectives.backwards import least, pulled
from deltaball.training.objectives.cross_entropy import cross_entropy
from deltaball.training.objectives.inner import over_images
from deltaball.training.objectives.intervals import Bounding, Interval, Passed
from deltaball.training.objectives.objective import Batch, Objective


class Certified(Objective):
    """κ × cross-entropy + (1 - κ) × the cross-entropy of the worst leads in L∞ balls cut by [0, 1].

    For `natural_epochs` the radius is 0 and κ is 1. Then for `ramp_epochs` the radius grows step by step to that of the
    study, and κ falls to `kappa`.
    """

    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        axes = batch.axes
        grown = ((batch.epochs() - axes["natural_epochs"]) / axes["ramp_epochs"].clamp(min=1e-6)).clamp(0, 1)
        plain = cross_entropy(networks(batch.images), batch.labels)
        radius = over_images(grown * axes["radius"])
        box = Interval((batch.images - radius).clamp(min=0), (batch.images + radius).clamp(max=1))
        kappa = 1 - (1 - axes["kappa"]) * grown
        leads = self.leads(networks, batch, box, grown)
        # Their negatives are what the other classes' logits can exceed the label's by; its own is 0.
        return kappa * plain + (1 - kappa) * cross_entropy(-leads, batch.labels)

    @abstractmethod
    def leads(self, networks: Layered, batch: Batch, box: Interval, grown: torch.Tensor) -> torch.Tensor:
        """Lower bounds [K, n, classes] of the label's logit less each other one, over a box around each image.

        `grown` [K] is the share of the study's radius that the box has.
        """


class IntervalTraining(Certified):
    """By intervals, the last layer merged with the differences (Gowal et al. 2018, Equations 9 and 12)."""

    def leads(self, networks: Layered, batch: Batch, box: Interval, grown: torch.Tensor) -> torch.Tensor:
        bounding = Bounding.of(networks)
        leaving, passed = bounding.through(networks.layers, networks.weights, box)
        return _by_intervals(passed, leaving, _differences(batch, networks), bounding)


class CrownIntervalTraining(Certified):
    """By lines backwards between the bounds of intervals, and more and more by intervals alone (Zhang et al. 2020).

    In their Equation 11 the lines weigh β, which falls from 1 to `crown_share` as the radius grows.
    """

    def leads(self, networks: Layered, batch: Batch, box: Interval, grown: torch.Tensor) -> torch.Tensor:
        bounding = Bounding.of(networks)
        leaving, passed = bounding.through(networks.layers, networks.weights, box)
        rows = _differences(batch, networks)
        coefficients, offset = pulled(passed, rows, bounding)
        share = (1 - (1 - batch.axes["crown_share"]) * grown)[:, None, None]
        by_lines, by_intervals = offset + least(coefficients, box), _by_intervals(passed, leaving, rows, bounding)
        return share * by_lines + (1 - share) * by_intervals


def _by_intervals(passed: list[Passed], leaving: Interval, rows: torch.Tensor, bounding: Bounding) -> torch.Tensor:
    if not isinstance(passed[-1].layer, Dense):
        return least(rows, leaving)
    coefficients, offset = pulled(passed[-1:], rows, bounding)
    return offset + least(coefficients, passed[-1].entering)


def _differences(batch: Batch, networks: Layered) -> torch.Tensor:
    """The label's logit less each other one, as rows [K, n, classes, classes] of coefficients of the logits."""
    (classes,) = networks.layers.output
    numbers = torch.arange(classes, device=batch.labels.device)
    own = (batch.labels[:, :, None, None] == numbers).float()
    return own - (numbers[:, None] == numbers).float()
