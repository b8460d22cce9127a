"""What outputs in a ball are held against: the network's own output at the point, or the point's label."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class Reference:
    """What points are held against, as networks see them.

    The class of a point is the largest entry of its `target`: attacks leave it, certificates and exact answers keep it.
    """

    logits: torch.Tensor  # [..., classes] at the points themselves
    target: torch.Tensor  # [..., classes]: these logits, or the vectors of the labels, 1 for the class and 0 elsewhere

    @classmethod
    def output(cls, logits: torch.Tensor) -> Self:
        """The networks' own logits [..., classes] at the points; their largest is the predicted class."""
        return cls(logits, logits)

    @classmethod
    def label(cls, logits: torch.Tensor, labels: torch.Tensor) -> Self:
        """The labels, int64 [n], of points at which the networks have the logits [..., n, classes]."""
        vectors = functional.one_hot(labels, logits.shape[-1]).to(logits.dtype)
        return cls(logits, vectors.expand_as(logits))

    @cached_property
    def classes(self) -> torch.Tensor:
        """[..., 1]"""
        return self.target.argmax(-1, keepdim=True)

    def expand_as(self, logits: torch.Tensor) -> Self:
        """The same for logits [..., classes] at several perturbed points of each point."""
        return type(self)(self.logits.expand_as(logits), self.target.expand_as(logits))

    def chosen(self, rows: torch.Tensor) -> Self:
        """The reference of some of K × n points, by their indices [K, m] among all of them."""
        logits, target = (tensor.flatten(0, 1)[rows] for tensor in (self.logits, self.target))
        return type(self)(logits, target)
