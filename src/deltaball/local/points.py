"""The points that attacks perturb, as K networks see them."""

from collections.abc import Callable, Sequence
from functools import cache, cached_property

import torch

from deltaball.local.balls import Ball, Neighbourhood
from deltaball.local.losses import Loss, cross_entropy, margin_loss

Predict = Callable[[torch.Tensor], torch.Tensor]

# Images of a network come in multiples of 32: a matrix product of another size may round differently.
IMAGES_MULTIPLE = 32


class Points:
    """The n unperturbed points as K networks see them. One forward pass serves logits and gradients."""

    def __init__(self, predict: Predict, x: torch.Tensor, networks: int, keys: Sequence[int]) -> None:
        self.predict, self.x, self.keys = predict, x, keys
        self._leaf = x.expand(networks, *x.shape).clone().requires_grad_()
        self.images = self._leaf.detach()
        with torch.enable_grad():
            self._logits = predict(self._leaf)
        self.logits = self._logits.detach()
        self.around: Callable[[Ball], Neighbourhood] = cache(lambda ball: ball.around(x))

    def _gradient(self, loss: Loss) -> torch.Tensor:
        with torch.enable_grad():
            total = loss(self.logits, self._logits).sum()
        return torch.autograd.grad(total, self._leaf, retain_graph=True)[0]

    @cached_property
    def _cross_entropy_gradient(self) -> torch.Tensor:
        return self._gradient(cross_entropy)

    @cached_property
    def no_gradient(self) -> torch.Tensor:
        """[K, n]: whether the cross-entropy's gradient is 0 in every pixel, as float32 has it."""
        gradient = self._cross_entropy_gradient.flatten(-3)
        return (gradient.amax(-1) == 0) & (gradient.amin(-1) == 0)

    @cached_property
    def direction(self) -> torch.Tensor:
        """[K, n, h, w, c]: the gradient of the cross-entropy, and where that is 0, of the margin."""
        if not self.no_gradient.any():
            return self._cross_entropy_gradient
        return torch.where(
            self.no_gradient[..., None, None, None], self._gradient(margin_loss), self._cross_entropy_gradient
        )
