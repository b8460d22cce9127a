"""The steps of a pack: what one does to K networks.

A step reads and writes tensors that never move: it gathers its minibatch, finds the gradients and updates weights and
moments in place, and it counts itself, on the device. So it is the same work whenever it is taken, and on a GPU some
of it, repeated, is captured in a CUDA graph and replayed (`graphs`). A CPU takes it as it is written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deltaball.networks.layers import Layers
from deltaball.networks.packs import logits
from deltaball.training.graphs import Captured, Replayed
from deltaball.training.objectives import cross_entropy
from deltaball.training.optimizers import adam_step, corrections, sgd_step


@dataclass(frozen=True)
class Recipe:
    """What a step of a pack is; the same for all its networks.

    `precision` is that of activations and of products; weights, moments, updates and the loss are float32 always
    (mixed precision: Micikevicius et al. 2018, Section 3.1).
    """

    layers: Layers
    batch_size: int
    optimizer: str = "sgd"
    precision: str = "float32"


@dataclass(frozen=True)
class Way:
    """How a device computes a step. Ways differ in speed, and in how float32 rounds."""

    convolution: str = "looped"  # one of packs.CONVOLUTIONS
    lanes: int = 1  # parts of the pack that a GPU works on at once, each on a stream of its own


class Steps:
    """The steps of K networks on `images` [n, h, w, c] in [0, 1] and `labels` [n], all on one device.

    `weights` and `moments` (all first ones, then all second; none for SGD), each [K, *shape], are updated in place.
    Where `masks` are given and False, a weight is pruned: its gradient is zero.
    """

    def __init__(
        self,
        recipe: Recipe,
        weights: Sequence[torch.Tensor],
        moments: Sequence[torch.Tensor],
        masks: Sequence[torch.Tensor],
        images: torch.Tensor,
        labels: torch.Tensor,
        way: Way = Way(),
        record: Callable[[Callable[[], None]], Callable[[], None]] | None = None,
    ) -> None:
        self.recipe, self.weights, self.moments, self.way = recipe, weights, moments, way
        # All bits of a weight that stays and none of one that is pruned.
        self.masks = [-mask.to(torch.int32) for mask in masks]
        self.images, self.labels = images, labels
        device, networks = images.device, len(weights[0])
        self.order = torch.zeros(networks, len(images), dtype=torch.int64, device=device)
        self.rates = torch.zeros(networks, -(-len(images) // recipe.batch_size), device=device)
        self.places = torch.arange(recipe.batch_size, device=device)
        self.taken = torch.zeros(1, dtype=torch.int64, device=device)
        self.loss = torch.zeros(networks, device=device)
        size = -(-networks // way.lanes)
        self.parts = [slice(start, start + size) for start in range(0, networks, size)]
        self.lanes = [torch.cuda.Stream() for _ in self.parts] if way.lanes > 1 else []
        record = record or (Captured() if device.type == "cuda" else None)
        self.take = Replayed(self._step, record) if record else self._taken_as_written

    def epoch(self, order: np.ndarray, rates: torch.Tensor, before: int) -> torch.Tensor:
        """Take an epoch's steps; returns the mean loss [K] of its minibatches.

        `order` [K, n] is each network's permutation of the points, `rates` [K], on the CPU, are learning rates, and
        `before` is the number of steps taken in earlier epochs. The last minibatch has what is left.
        """
        steps = self.rates.shape[1]
        self.order.copy_(torch.from_numpy(order))
        self.rates.copy_(rates[:, None] * corrections(self.recipe.optimizer, before, steps))
        self.taken.zero_()
        self.loss.zero_()
        whole, left = divmod(len(self.images), self.recipe.batch_size)
        self.take(self.recipe.batch_size, whole)
        if left:
            self.take(left, 1)
        return self.loss / steps

    def _taken_as_written(self, size: int, count: int) -> None:
        for _ in range(count):
            self._step(size)

    def _step(self, size: int) -> None:
        chosen = self.order.index_select(1, self.taken * self.recipe.batch_size + self.places[:size])
        rates = self.rates.index_select(1, self.taken)
        if self.way.lanes == 1:
            self._descend(slice(None), chosen, rates)
        else:
            self._descend_side_by_side(chosen, rates)
        self.taken += 1

    def _descend_side_by_side(self, chosen: torch.Tensor, rates: torch.Tensor) -> None:
        here = torch.cuda.current_stream()
        for part, lane in zip(self.parts, self.lanes, strict=True):
            lane.wait_stream(here)
            with torch.cuda.stream(lane):
                self._descend(part, chosen, rates)
        for lane in self.lanes:
            here.wait_stream(lane)

    def _descend(self, part: slice, chosen: torch.Tensor, rates: torch.Tensor) -> None:
        weights = [weight[part].detach().requires_grad_() for weight in self.weights]
        chosen = chosen[part]
        # Whole rows, and not [chosen], which copies number by number.
        images = self.images.index_select(0, chosen.flatten()).unflatten(0, chosen.shape)
        found = forward(self.recipe, weights, images, self.way.convolution)
        loss = cross_entropy(found, self.labels[chosen])
        gradients = torch.autograd.grad(loss.sum(), weights)
        with torch.no_grad():
            self.loss[part] += loss
            for mask, gradient in zip(self.masks, gradients, strict=bool(self.masks)):
                # Not a product: a gradient that is not finite must not reach a pruned weight. Nor torch.where: with
                # irregular masks a CPU guesses every other of its decisions wrong.
                gradient.view(torch.int32).bitwise_and_(mask[part])
            if self.recipe.optimizer == "adam":
                adam_step(weights, gradients, [moment[part] for moment in self.moments], rates[part])
            else:
                sgd_step(weights, gradients, rates[part])


def forward(
    recipe: Recipe, weights: Sequence[torch.Tensor], images: torch.Tensor, convolution: str = "looped"
) -> torch.Tensor:
    """Logits [K, n, classes], float32, of a step's forward pass in the recipe's precision."""
    if recipe.precision == "float32":
        return logits(recipe.layers, weights, images, convolution)
    lower = getattr(torch, recipe.precision)
    return logits(recipe.layers, [weight.to(lower) for weight in weights], images.to(lower), convolution).float()
