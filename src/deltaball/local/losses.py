"""What attacks ascend: functions of the reference of a point and of the logits at a perturbed point."""

from collections.abc import Callable

import torch
from torch.nn import functional

from deltaball.local.references import Reference

# A point's reference and logits at a perturbed point [..., classes] → [...], larger where more is violated.
Loss = Callable[[Reference, torch.Tensor], torch.Tensor]

# What a violation is ahead by, at least, as a share of the largest logit: what another forward pass in float32 may
# round otherwise is none.
HAIR = 4e-6

# The share of a lead that is asked for which rounding in float32 may take.
SHORT = 1e-3


def margin(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Logit of the reference class minus the largest other logit: [..., classes], [..., 1] → [...]."""
    assert logits.shape[:-1] == reference.shape[:-1], "scatter and gather do not broadcast"
    others = logits.scatter(-1, reference, -torch.inf)
    return logits.gather(-1, reference).squeeze(-1) - others.amax(-1)


def shortage(logits: torch.Tensor, reference: torch.Tensor, lead: float) -> torch.Tensor:
    """What another class lacks to lead every class by `lead`: [..., classes], [..., 1] → [...]; the margin for 0."""
    if not lead:
        return margin(logits, reference)
    others = logits.scatter(-1, reference, -torch.inf)
    first = others.topk(min(2, logits.shape[-1]), -1).values
    rivals = torch.maximum(logits.gather(-1, reference).squeeze(-1), first[..., -1])
    return rivals + lead - first[..., 0]


def hair(logits: torch.Tensor) -> torch.Tensor:
    """[...]: by how much of a lead another forward pass of logits [..., classes] may differ, with room to spare."""
    return HAIR * logits.abs().amax(-1)


def margin_loss(reference: Reference, perturbed: torch.Tensor) -> torch.Tensor:
    """By how much another class exceeds that of the reference: positive where the class changes."""
    return -margin(perturbed, reference.classes)


def cross_entropy(reference: Reference, perturbed: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the reference's class. Saturates: its gradient is 0 in float32 at large logits.

    log(1 + Σ exp(other logit - the class's)), for in `functional.cross_entropy` the class's part of the gradient is
    already lost when its softmax rounds to 1.
    """
    others = perturbed.scatter(-1, reference.classes, -torch.inf).logsumexp(-1)
    return functional.softplus(others - perturbed.gather(-1, reference.classes).squeeze(-1))


# The lead of the point's class, in logits, from which the cross-entropy counts as saturated.
SATURATED = 5


def tempered_cross_entropy(reference: Reference, perturbed: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of logits scaled down until the reference's class leads by SATURATED at the point, if by more."""
    lead = margin(reference.logits, reference.classes)
    return cross_entropy(reference, perturbed * (SATURATED / lead.clamp(min=SATURATED))[..., None])


def logit_loss(reference: Reference, perturbed: torch.Tensor) -> torch.Tensor:
    """How low the logit of the reference's class is."""
    return -perturbed.gather(-1, reference.classes).squeeze(-1)


def variation(reference: Reference, perturbed: torch.Tensor) -> torch.Tensor:
    """The largest absolute change of any class's softmax, L∞ of Definition 3's h."""
    return (perturbed.softmax(-1) - reference.target.softmax(-1)).abs().amax(-1)


def largest_difference(reference: Reference, perturbed: torch.Tensor) -> torch.Tensor:
    """The L∞ distance of the logits from the reference's vector."""
    return (perturbed - reference.target).abs().amax(-1)


def euclidean_difference(reference: Reference, perturbed: torch.Tensor) -> torch.Tensor:
    """The L2 distance of the logits from the reference's vector."""
    return torch.linalg.vector_norm(perturbed - reference.target, dim=-1)
