"""What training minimises, for a pack: one value per network, so that their gradients do not mix."""

import torch
from torch.nn import functional


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy per network [K] of logits [K, n, classes] and labels [K, n] (or [n], shared)."""
    labels = labels.expand(logits.shape[:2])
    each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return each.unflatten(0, labels.shape).mean(1)
