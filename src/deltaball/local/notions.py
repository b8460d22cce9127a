"""Local robustness of a point, judged from logits (paper 004, Definitions 1 and 3).

A notion turns the logits at a point and at a perturbed point into an *outcome*: what that perturbation alone says
about the point. Over several perturbations the worst outcome counts, and the mean of the worst outcomes over the
test points is the measure: R for the qualitative notions (1 robust, 0 violated), D for the variation.

Attacks raise a notion's `losses`; certificates bound the differences of logits over the whole neighbourhood, from
which a notion takes what is proven.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from deltaball.base.implementations import implementation
from deltaball.local.losses import Loss, margin, margin_loss, tempered_cross_entropy, variation
from deltaball.study.notions import NOTIONS
from deltaball.study.notions import Notion as Entry


class Notion(ABC):
    """How logits at a point [..., classes] and at a perturbed point [..., classes] become an outcome [...]."""

    name: ClassVar[str]  # in the table of notions, whose entry says what is known of it without logits
    # What an attack by gradients ascends, in the order in which its restarts use them.
    losses: ClassVar[tuple[Loss, ...]]

    @property
    def entry(self) -> Entry:
        return NOTIONS[self.name]

    @abstractmethod
    def outcome(self, point: torch.Tensor, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """float32 outcomes of perturbed points at `distance` [...] from their points."""

    @abstractmethod
    def certified(self, point: torch.Tensor, differences: torch.Tensor) -> torch.Tensor:
        """float32 outcomes that are proven, on the other side of the truth than an attack's.

        differences[..., i, j] ≤ the minimum of logit i - logit j over the neighbourhood; -inf where unknown.
        """

    def worst(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The worse of two outcomes of the same point."""
        return torch.maximum(one, other) if self.entry.violations_raise else torch.minimum(one, other)

    @abstractmethod
    def settled(self, outcome: torch.Tensor) -> torch.Tensor:
        """Whether no further perturbation can make an outcome worse."""


@dataclass(frozen=True)
class ClassChange(Notion):
    """g: 1 if the predicted class is unambiguous and stays so (Definition 1), else 0.

    One rule for ties: a tie at the maximum, at the point or at the perturbed one, is not robust; so is a margin of
    logits that is ≤ 0 or not a number in float32.
    """

    name = "class_change"
    losses = (margin_loss, tempered_cross_entropy)

    def outcome(self, point: torch.Tensor, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        predicted = point.argmax(-1, keepdim=True)
        robust = (margin(point, predicted) > 0) & (margin(perturbed, predicted) > 0)
        return robust.to(torch.float32)

    def certified(self, point: torch.Tensor, differences: torch.Tensor) -> torch.Tensor:
        predicted = point.argmax(-1, keepdim=True)
        rows = differences.gather(-2, predicted[..., None].expand(*predicted.shape, differences.shape[-1])).squeeze(-2)
        proven = rows.scatter(-1, predicted, torch.inf).amin(-1) > 0
        return (proven & (margin(point, predicted) > 0)).to(torch.float32)

    def settled(self, outcome: torch.Tensor) -> torch.Tensor:
        return outcome == 0


@dataclass(frozen=True)
class SoftmaxVariation(Notion):
    """ḡ: the largest absolute change of any class's softmax (Definition 3 with h = L∞); 1 if not a number."""

    name = "softmax_variation"
    losses = (variation, margin_loss)

    def outcome(self, point: torch.Tensor, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        change = variation(point, perturbed)
        return torch.where(change.isnan(), 1.0, change).to(torch.float32)

    def certified(self, point: torch.Tensor, differences: torch.Tensor) -> torch.Tensor:
        # softmax j is 1 / Σᵢ exp(logit i - logit j), whose terms lie between exp(differences[i, j]) and
        # exp(-differences[j, i]); the term of j itself is 1.
        own = torch.eye(differences.shape[-1], dtype=torch.bool, device=differences.device)
        least = differences.masked_fill(own, 0.0)
        highest = 1 / least.exp().sum(-2)
        lowest = 1 / (-least.transpose(-1, -2)).exp().sum(-2)
        now = point.to(differences.dtype).softmax(-1)
        change = torch.maximum(highest - now, now - lowest).amax(-1)
        return torch.where(change.isnan(), 1.0, change.clamp(0, 1)).to(torch.float32)

    def settled(self, outcome: torch.Tensor) -> torch.Tensor:
        return outcome >= 1


@dataclass(frozen=True)
class VariationAbove(Notion):
    """1 unless the softmax variation exceeds `gamma` (paper 004, Section 2; at γ itself still robust)."""

    gamma: float
    name = "variation_above"
    losses = SoftmaxVariation.losses

    def outcome(self, point: torch.Tensor, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        return (SoftmaxVariation().outcome(point, perturbed, distance) <= self.gamma).to(torch.float32)

    def certified(self, point: torch.Tensor, differences: torch.Tensor) -> torch.Tensor:
        return (SoftmaxVariation().certified(point, differences) <= self.gamma).to(torch.float32)

    def settled(self, outcome: torch.Tensor) -> torch.Tensor:
        return outcome == 0


@dataclass(frozen=True)
class Margin(Notion):
    """The distance to the closest perturbed point of another class, at most `most` (papers 000 and 003, Section 5).

    0 where the point's own class is ambiguous. An attack finds one that is no closer than the closest.
    """

    most: float
    name = "margin"
    losses = (margin_loss,)

    def outcome(self, point: torch.Tensor, perturbed: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        predicted = point.argmax(-1, keepdim=True)
        robust = margin(perturbed, predicted) > 0
        found = torch.where(robust, self.most, distance.clamp(max=self.most))
        return torch.where(margin(point, predicted) > 0, found, 0.0).to(torch.float32)

    def certified(self, point: torch.Tensor, differences: torch.Tensor) -> torch.Tensor:
        return self.most * ClassChange().certified(point, differences)

    def settled(self, outcome: torch.Tensor) -> torch.Tensor:
        return outcome == 0


def notion(name: str, gamma: float | None = None, delta: float | None = None) -> Notion:
    """The notion that a study calls `name`."""
    entry, known = NOTIONS[name], {"gamma": gamma, "delta": delta}
    return implementation(entry.implementation)(*(known[parameter] for parameter in entry.parameters))
