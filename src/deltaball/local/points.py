"""The points that attacks perturb, as K networks see them."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch

from deltaball.local.balls import Ball, Neighbourhood
from deltaball.local.losses import Loss, cross_entropy, margin_loss
from deltaball.local.notions import Notion
from deltaball.local.references import Reference
from deltaball.networks.models import Model
from deltaball.plan.batches import IMAGES_MULTIPLE


def filled(count: int) -> list[int]:
    """The indices of so many points with the first repeated at the end, up to such a multiple."""
    return [*range(count), *([0] * (-count % IMAGES_MULTIPLE))]


def references(logits: torch.Tensor, labels: torch.Tensor | None) -> Callable[[Notion], Reference]:
    """What a notion holds points against at which networks have the logits [K, n, classes]; `labels` int64 [n]."""

    @cache
    def reference(needs_labels: bool) -> Reference:
        if not needs_labels:
            return Reference.output(logits)
        if labels is None:
            raise ValueError("a notion of labels is asked, and there are none")
        return Reference.label(logits, labels)

    return lambda notion: reference(notion.entry.needs_labels)


class _Gradient(NamedTuple):
    direction: torch.Tensor
    vanished: torch.Tensor


class Points:
    """The n unperturbed points as the K networks of a model see them. One forward pass serves logits and gradients.

    `labels` are int64 [n], or None where no notion needs them.
    """

    def __init__(self, model: Model, x: torch.Tensor, keys: Sequence[int], labels: torch.Tensor | None = None) -> None:
        self.model, self.x, self.keys = model, x, keys
        self._leaf = x.expand(len(model), *x.shape).clone().requires_grad_()
        self.images = self._leaf.detach()
        with torch.enable_grad():
            self._logits = model(self._leaf)
        self.logits = self._logits.detach()
        self.around: Callable[[Ball], Neighbourhood] = cache(lambda ball: ball.around(x))
        self.reference = references(self.logits, labels)  # what a notion holds them against
        self._towards: Callable[[Reference], _Gradient] = cache(self._steepest)

    def direction(self, reference: Reference) -> torch.Tensor:
        """[K, n, h, w, c]: the gradient of the cross-entropy, and where that is 0, of the margin."""
        return self._towards(reference).direction

    def no_gradient(self, reference: Reference) -> torch.Tensor:
        """[K, n]: whether the cross-entropy's gradient is 0 in every pixel, as float32 has it."""
        return self._towards(reference).vanished

    def _steepest(self, reference: Reference) -> _Gradient:
        gradient = self._gradient(cross_entropy, reference)
        flat = gradient.flatten(-3)
        vanished = (flat.amax(-1) == 0) & (flat.amin(-1) == 0)
        if vanished.any():
            gradient = torch.where(vanished[..., None, None, None], self._gradient(margin_loss, reference), gradient)
        return _Gradient(gradient, vanished)

    def _gradient(self, loss: Loss, reference: Reference) -> torch.Tensor:
        with torch.enable_grad():
            total = loss(reference, self._logits).sum()
        return torch.autograd.grad(total, self._leaf, retain_graph=True)[0]
