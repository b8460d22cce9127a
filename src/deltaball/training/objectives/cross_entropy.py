"""Cross-entropy, what training minimises unless a study says otherwise."""

import torch
from torch.nn import functional

from deltaball.networks.models import Layered
from deltaball.training.objectives.objective import Batch, Objective


class CrossEntropy(Objective):
    """The mean cross-entropy of softmax and labels."""

    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        return cross_entropy(networks(batch.images), batch.labels)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy per network [K] of logits [K, n, classes] and labels [K, n] (or [n], shared)."""
    return cross_entropy_each(logits, labels).mean(1)


def cross_entropy_between(original: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """-Σ p log q [K, n], p the softmax of logits [K, n, classes] and q that of others. Both are differentiated."""
    return -(original.softmax(-1) * others.log_softmax(-1)).sum(-1)


def cross_entropy_each(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every image [K, n]."""
    labels = labels.expand(logits.shape[:2])
    each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return each.unflatten(0, labels.shape)
