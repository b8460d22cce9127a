"""A network of which we know no layers, only what torch makes of images."""

from collections.abc import Callable
from functools import cached_property

import torch

from deltaball.networks.layers import Shape
from deltaball.networks.models import Model


class Opaque(Model):
    """One network that can be attacked, for it has gradients, and of which nothing can be proven.

    `lacking` says what in it is no layer of ours.
    """

    def __init__(self, forward: Callable[[torch.Tensor], torch.Tensor], lacking: str, shape: Shape) -> None:
        self.forward, self.lacking, self.shape = forward, lacking, shape

    def __len__(self) -> int:
        return 1

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward(x if x.ndim == 4 else x[0])[None]

    @cached_property
    def numbers(self) -> int:
        """Those that the backward pass of one image needs; some are weights."""
        kept: list[int] = []

        def count(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor.numel())
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            self.forward(torch.zeros(1, *self.shape, requires_grad=True))
        return sum(kept)

    def one(self, k: int) -> "Opaque":
        assert k == 0, f"network {k} of 1"
        return self
