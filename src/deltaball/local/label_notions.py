"""Notions of paper 001 that ask for a class in the whole ball: CR and SCR (its Definitions 1 and 4)."""

import math
from dataclasses import dataclass

import torch

from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.losses import Loss, cross_entropy, logit_loss, margin_loss
from deltaball.local.notions import ClassChange, Qualitative
from deltaball.local.references import Reference


@dataclass(frozen=True)
class Classification(ClassChange):
    """CR: 1 if the label is the only largest logit at the point and at the perturbed one, else 0.

    The paper counts a tie as satisfied; here, as everywhere, it is not robust.
    """

    name = "classification"


@dataclass(frozen=True)
class StrongClassification(Qualitative):
    """SCR: 1 if the softmax of the reference's class is at least `eta` at the point and at the perturbed one, else 0.

    With `of` logit, if its logit is at least log eta: what the paper's authors test, with eta = 0.3 and of the label.
    """

    eta: float
    reference: str = "label"
    of: str = "softmax"
    name = "strong_classification"

    @property
    def losses(self) -> tuple[Loss, ...]:
        return (cross_entropy, margin_loss) if self.of == "softmax" else (logit_loss,)

    def holds(self, reference: Reference, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        both = (self._reached(reference, logits.to(torch.float64)) for logits in (reference.logits, perturbed))
        at_point, there = both
        return at_point & there

    def proven(self, reference: Reference, bounds: LogitBounds) -> torch.Tensor:
        if self.of == "softmax":
            in_ball = _softmax(bounds.leads(reference.classes)) >= self.eta
        else:
            in_ball = bounds.lower.gather(-1, reference.classes).squeeze(-1) >= math.log(self.eta)
        return in_ball & self._reached(reference, reference.logits.to(torch.float64))

    def _reached(self, reference: Reference, logits: torch.Tensor) -> torch.Tensor:
        own = logits.gather(-1, reference.classes)
        if self.of == "softmax":
            return _softmax(own - logits) >= self.eta
        return own.squeeze(-1) >= math.log(self.eta)


def _softmax(leads: torch.Tensor) -> torch.Tensor:
    """The softmax of a class, by its leads [..., classes] over all, 0 over itself: it falls where one falls."""
    return 1 / (-leads).exp().sum(-1)
