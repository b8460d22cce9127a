"""The points that attacks perturb, as K networks see them."""

from collections.abc import Callable, Sequence
from functools import cache, cached_property

import torch

from deltaball.local.balls import Ball, Neighbourhood
from deltaball.local.losses import Loss, cross_entropy, margin_loss
from deltaball.networks.models import Model
from deltaball.plan.batches import IMAGES_MULTIPLE


def filled(x: torch.Tensor, keys: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
    """Images [n, h, w, c] and their keys with the first repeated at the end, up to such a multiple."""
    missing = -len(x) % IMAGES_MULTIPLE
    return torch.cat([x, x[:1].expand(missing, *x.shape[1:])]), [*keys, *([keys[0]] * missing)]


class Points:
    """The n unperturbed points as the K networks of a model see them. One forward pass serves logits and gradients."""

    def __init__(self, model: Model, x: torch.Tensor, keys: Sequence[int]) -> None:
        self.model, self.x, self.keys = model, x, keys
        self._leaf = x.expand(len(model), *x.shape).clone().requires_grad_()
        self.images = self._leaf.detach()
        with torch.enable_grad():
            self._logits = model(self._leaf)
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
