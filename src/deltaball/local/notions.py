"""Local robustness of a point, judged from logits; here the notions of papers 004 (Definitions 1 and 3), 000 and 003.

A notion turns a point's reference (its own logits, or its label) and the logits at a perturbed point into an *outcome*:
what that perturbation alone, with the point itself, says about the point. Over several perturbations the worst outcome
counts, and the mean of the worst outcomes over the test points is the measure: R for the qualitative notions (1 robust,
0 violated), D for the variation.

Attacks raise a notion's `losses`; certificates bound the logits and their differences over the whole neighbourhood,
from which a notion takes what is proven.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from deltaball.base.implementations import implementation
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.certificates.softmax import rounding
from deltaball.local.losses import Loss, margin, margin_loss, shortage, tempered_cross_entropy, variation
from deltaball.local.references import Reference
from deltaball.study.notions import FAMILIES, NOTIONS, forms
from deltaball.study.notions import Notion as Entry


class Notion(ABC):
    """How a point's reference and logits at a perturbed point [..., classes] become an outcome [...]."""

    name: ClassVar[str]  # in the table of notions, whose entry says what is known of it without logits
    lead: float = 0.0  # by how many logits another class has to lead every class to count as another one

    @property
    @abstractmethod
    def losses(self) -> tuple[Loss, ...]:
        """What an attack by gradients ascends, in the order in which its restarts use them."""

    @property
    def entry(self) -> Entry:
        (entry,) = forms(self.name, {key: [getattr(self, key)] for key in FAMILIES[self.name][0].choices})
        return entry

    @abstractmethod
    def outcome(self, reference: Reference, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """float32 outcomes of perturbed points at `distance` [...] from their points."""

    @abstractmethod
    def certified(self, reference: Reference, bounds: LogitBounds) -> torch.Tensor:
        """float32 outcomes that are proven, on the other side of the truth than an attack's."""

    def worst(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The worse of two outcomes of the same point."""
        return torch.maximum(one, other) if self.entry.violations_raise else torch.minimum(one, other)

    @abstractmethod
    def settled(self, outcome: torch.Tensor) -> torch.Tensor:
        """Whether no further perturbation can make an outcome worse."""


class Qualitative(Notion):
    """A notion that holds of a point or does not: outcome 1 or 0; what is not a number does not hold."""

    def outcome(self, reference: Reference, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        return self.holds(reference, perturbed, distance).to(torch.float32)

    def certified(self, reference: Reference, bounds: LogitBounds) -> torch.Tensor:
        return self.proven(reference, bounds).to(torch.float32)

    def settled(self, outcome: torch.Tensor) -> torch.Tensor:
        return outcome == 0

    @abstractmethod
    def holds(self, reference: Reference, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """bool [...]: whether it holds at perturbed points and at the points themselves."""

    @abstractmethod
    def proven(self, reference: Reference, bounds: LogitBounds) -> torch.Tensor:
        """bool [...]: whether the bounds say that it holds in the whole neighbourhood."""


@dataclass(frozen=True)
class ClassChange(Qualitative):
    """g: 1 if the predicted class is unambiguous and stays so (Definition 1), else 0.

    One rule for ties: a tie at the maximum, at the point or at the perturbed one, is not robust; so is a margin of
    logits that is ≤ 0 or not a number in float32.
    """

    name = "class_change"
    losses = (margin_loss, tempered_cross_entropy)

    def holds(self, reference: Reference, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        clear_at_point = margin(reference.logits, reference.classes) > 0
        return clear_at_point & (margin(perturbed, reference.classes) > 0)

    def proven(self, reference: Reference, bounds: LogitBounds) -> torch.Tensor:
        leads = bounds.leads(reference.classes).scatter(-1, reference.classes, torch.inf)
        return (leads.amin(-1) > 0) & (margin(reference.logits, reference.classes) > 0)


@dataclass(frozen=True)
class ClearChange(ClassChange):
    """g of which only an image speaks whose class leads every other by `lead` logits (paper 002, Section 5, its α).

    What fine-tuning looks for, and no measure: there is no certificate of it.
    """

    lead: float
    name = "class_change"

    @property
    def losses(self) -> tuple[Loss, ...]:
        return (self._loss, tempered_cross_entropy)

    def holds(self, reference: Reference, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        clear_at_point = margin(reference.logits, reference.classes) > 0
        return clear_at_point & (shortage(perturbed, reference.classes, self.lead) > 0)

    def _loss(self, reference: Reference, perturbed: torch.Tensor) -> torch.Tensor:
        return -shortage(perturbed, reference.classes, self.lead)


@dataclass(frozen=True)
class SoftmaxVariation(Notion):
    """ḡ: the largest absolute change of any class's softmax (Definition 3 with h = L∞); 1 if not a number."""

    name = "softmax_variation"
    losses = (variation, margin_loss)

    def outcome(self, reference: Reference, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        change = variation(reference, perturbed)
        return torch.where(change.isnan(), 1.0, change).to(torch.float32)

    def certified(self, reference: Reference, bounds: LogitBounds) -> torch.Tensor:
        lowest, highest = bounds.softmax_range.unbind(-1)
        now = reference.target.to(highest.dtype).softmax(-1)
        change = torch.maximum(highest - now + rounding(highest + now), now - lowest + rounding(2 * now)).amax(-1)
        return torch.where(change.isnan(), 1.0, change.clamp(0, 1)).to(torch.float32)

    def settled(self, outcome: torch.Tensor) -> torch.Tensor:
        return outcome >= 1


@dataclass(frozen=True)
class VariationAbove(Qualitative):
    """1 unless the softmax variation exceeds `gamma` (paper 004, Section 2; at γ itself still robust)."""

    gamma: float
    name = "variation_above"
    losses = SoftmaxVariation.losses

    def holds(self, reference: Reference, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        return SoftmaxVariation().outcome(reference, perturbed, distance) <= self.gamma

    def proven(self, reference: Reference, bounds: LogitBounds) -> torch.Tensor:
        return SoftmaxVariation().certified(reference, bounds) <= self.gamma


@dataclass(frozen=True)
class Margin(Notion):
    """The distance to the closest perturbed point of another class, at most `most` (papers 000 and 003, Section 5).

    0 where the point's own class is ambiguous. An attack finds one that is no closer than the closest.
    """

    most: float
    name = "margin"
    losses = (margin_loss,)

    def outcome(self, reference: Reference, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        robust = margin(perturbed, reference.classes) > 0
        found = torch.where(robust, self.most, distance.clamp(max=self.most))
        return torch.where(margin(reference.logits, reference.classes) > 0, found, 0.0).to(torch.float32)

    def certified(self, reference: Reference, bounds: LogitBounds) -> torch.Tensor:
        return self.most * ClassChange().certified(reference, bounds)

    def settled(self, outcome: torch.Tensor) -> torch.Tensor:
        return outcome == 0


def notion(name: str, gamma: float | None = None, delta: float | None = None) -> Notion:
    """The notion that tables call `name`; gamma is its threshold, whatever its symbol."""
    entry, known = NOTIONS[name], {"threshold": gamma, "delta": delta}
    return implementation(entry.implementation)(*(known[one] for one in entry.parameters), **entry.choices)
