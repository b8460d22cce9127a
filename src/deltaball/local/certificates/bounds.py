"""What certificates say of logits over a whole ball."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch

from deltaball.local.certificates.softmax import of_differences


class LogitBounds(NamedTuple):
    """Bounds that hold for the float32 logits at every image of each point's ball; float64, NaN where nothing is known.

    What was not asked is -inf, or None.
    """

    differences: torch.Tensor  # [..., classes, classes]: entry [i, j] ≤ the minimum of logit i - logit j
    lower: torch.Tensor | None = None  # [..., classes] of the logits themselves
    upper: torch.Tensor | None = None
    # [..., classes]: how far the logits move at most, per unit of the ball's norm that an image is from its point, of
    # images that are NEAREST away or more.
    slopes: torch.Tensor | None = None
    softmax: torch.Tensor | None = None  # [..., classes, 2]: the least and the largest of each class

    def leads(self, classes: torch.Tensor) -> torch.Tensor:
        """[..., classes]: by how much the classes [..., 1] lead each other one at least; 0 over themselves."""
        rows = classes[..., None].expand(*classes.shape, self.differences.shape[-1])
        return self.differences.gather(-2, rows).squeeze(-2)

    @property
    def softmax_range(self) -> torch.Tensor:
        """[..., classes, 2]: the least and the largest softmax of each class; what differences say, if not bounded."""
        return of_differences(self.differences) if self.softmax is None else self.softmax

    @classmethod
    def joined(cls, parts: Sequence[Self], axis: int) -> Self:
        """Those of several networks (axis 0) or points (axis 1) as one."""
        return cls(*(None if each[0] is None else torch.cat(each, axis) for each in zip(*parts, strict=True)))
