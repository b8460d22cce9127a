"""Local robustness of a point, judged from logits (paper 004, Definitions 1 and 3).

A notion turns the logits at a point and at a perturbed point into an *outcome*: what that perturbation alone says
about the point. Over several perturbations the worst outcome counts, and the mean of the worst outcomes over the
test points is the measure: R for the qualitative notions (1 robust, 0 violated), D for the variation.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch


class Notion(ABC):
    """How logits at a point [..., classes] and at a perturbed point [..., classes] become an outcome [...]."""

    @property
    @abstractmethod
    def attacked_side(self) -> str:
        """Which side an attack bounds the truth from: a missed violation overstates R and understates D."""

    @abstractmethod
    def outcome(self, point: torch.Tensor, perturbed: torch.Tensor) -> torch.Tensor:
        """float32 outcomes in [0, 1]."""


@dataclass(frozen=True)
class ClassChange(Notion):
    """g: 1 if the predicted class is unambiguous and stays so (Definition 1), else 0.

    One rule for ties: a tie at the maximum, at the point or at the perturbed one, is not robust; so is a margin of
    logits that is ≤ 0 or not a number in float32.
    """

    attacked_side = "upper"

    def outcome(self, point: torch.Tensor, perturbed: torch.Tensor) -> torch.Tensor:
        predicted = point.argmax(-1, keepdim=True)
        robust = (margin(point, predicted) > 0) & (margin(perturbed, predicted) > 0)
        return robust.to(torch.float32)


@dataclass(frozen=True)
class SoftmaxVariation(Notion):
    """ḡ: the largest absolute change of any class's softmax (Definition 3 with h = L∞); 1 if not a number."""

    attacked_side = "lower"

    def outcome(self, point: torch.Tensor, perturbed: torch.Tensor) -> torch.Tensor:
        change = (perturbed.softmax(-1) - point.softmax(-1)).abs().amax(-1)
        return torch.where(change.isnan(), 1.0, change).to(torch.float32)


@dataclass(frozen=True)
class VariationAbove(Notion):
    """1 unless the softmax variation exceeds `gamma` (paper 004, Section 2; at γ itself still robust)."""

    gamma: float
    attacked_side = "upper"

    def outcome(self, point: torch.Tensor, perturbed: torch.Tensor) -> torch.Tensor:
        return (SoftmaxVariation().outcome(point, perturbed) <= self.gamma).to(torch.float32)


def margin(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Logit of the reference class minus the largest other logit: [..., classes], [..., 1] → [...]."""
    others = logits.scatter(-1, reference, -torch.inf)
    return logits.gather(-1, reference).squeeze(-1) - others.amax(-1)


def notion(name: str, gamma: float | None = None) -> Notion:
    """The notion that a study calls `name`."""
    if name == "variation_above":
        return VariationAbove(gamma)
    return {"class_change": ClassChange, "softmax_variation": SoftmaxVariation}[name]()
