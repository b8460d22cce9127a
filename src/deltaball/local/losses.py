"""What attacks ascend: functions of the logits at a point and at a perturbed point."""

from collections.abc import Callable

import torch
from torch.nn import functional

# Logits at a point [..., classes] and at a perturbed point [..., classes] → [...], larger where more is violated.
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def margin(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Logit of the reference class minus the largest other logit: [..., classes], [..., 1] → [...]."""
    others = logits.scatter(-1, reference, -torch.inf)
    return logits.gather(-1, reference).squeeze(-1) - others.amax(-1)


def margin_loss(point: torch.Tensor, perturbed: torch.Tensor) -> torch.Tensor:
    """By how much another class exceeds the class predicted at the point: positive where the prediction changes."""
    return -margin(perturbed, point.argmax(-1, keepdim=True))


def cross_entropy(point: torch.Tensor, perturbed: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the class predicted at the point. Saturates: its gradient is 0 in float32 at large logits.

    log(1 + Σ exp(other logit - predicted)), for in `functional.cross_entropy` the predicted class's part of the
    gradient is already lost when its softmax rounds to 1.
    """
    predicted = point.argmax(-1, keepdim=True)
    others = perturbed.scatter(-1, predicted, -torch.inf).logsumexp(-1)
    return functional.softplus(others - perturbed.gather(-1, predicted).squeeze(-1))


# The lead of the point's class, in logits, from which the cross-entropy counts as saturated.
SATURATED = 5


def tempered_cross_entropy(point: torch.Tensor, perturbed: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of logits scaled down until the predicted class leads by SATURATED at the point, if by more."""
    lead = margin(point, point.argmax(-1, keepdim=True))
    return cross_entropy(point, perturbed * (SATURATED / lead.clamp(min=SATURATED))[..., None])


def variation(point: torch.Tensor, perturbed: torch.Tensor) -> torch.Tensor:
    """The largest absolute change of any class's softmax, L∞ of Definition 3's h."""
    return (perturbed.softmax(-1) - point.softmax(-1)).abs().amax(-1)
