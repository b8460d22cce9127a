"""One network that is the mean of softmax over samples of its weights."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from deltaball.networks.layers import Layers
from deltaball.networks.models import Model
from deltaball.networks.packs import logits

# Samples of a posterior whose activations are held at once.
SAMPLES_AT_ONCE = 16


@dataclass(frozen=True)
class Posterior(Model):
    """One network that averages the softmax of S samples; each of `weights` is [S, *shape] in Keras' order and layout.

    A model of one network, and not a layered one: no list of layers computes a mean of softmax.
    """

    layers: Layers
    weights: tuple[torch.Tensor, ...]

    @staticmethod
    def of(layers: Layers, samples: Sequence[np.ndarray], device: str = "cpu") -> "Posterior":
        return Posterior(layers, tuple(torch.from_numpy(array).to(device) for array in samples))

    def __len__(self) -> int:
        return 1

    @property
    def numbers(self) -> int:
        return SAMPLES_AT_ONCE * sum(self.layers.activations)

    def one(self, k: int) -> "Posterior":
        assert k == 0, f"network {k} of 1"
        return self

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Log of the mean of softmax, [1, n, classes], of images x in [0, 1], [n, h, w, c] or [1, n, h, w, c].

        Softmax of it is the mean itself, so these are the network's logits. The log-sum-exp of the samples' log
        softmax, because a mean of probabilities may underflow. Never are the activations of all samples held at once.
        """
        images = x if x.ndim == 4 else x[0]
        total = _LogSumSoftmax.apply(images, self.layers, self.weights)
        return total[None] - math.log(len(self.weights[0]))


class _LogSumSoftmax(torch.autograd.Function):
    """Log of the sum over samples of softmax, [n, classes], differentiable by the images [n, h, w, c] alone.

    The gradient is the mean of the samples' gradients of log softmax, weighted by each one's share of the sum. They
    are computed again in the backward pass, a few samples at a time.
    """

    @staticmethod
    def forward(context: Any, images: torch.Tensor, layers: Layers, weights: tuple[torch.Tensor, ...]) -> torch.Tensor:
        parts = [_log_softmax(layers, some, images).logsumexp(0) for some in _portions(weights)]
        total = torch.stack(parts).logsumexp(0)
        context.layers, context.weights = layers, weights
        context.save_for_backward(images, total)
        return total

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, total = context.saved_tensors
        summed = torch.zeros_like(images)
        for some in _portions(context.weights):
            with torch.enable_grad():
                leaf = images.detach().requires_grad_()
                each = _log_softmax(context.layers, some, leaf)
            (added,) = torch.autograd.grad(each, leaf, gradient * (each.detach() - total).exp())
            summed += added
        return summed, None, None


def _log_softmax(layers: Layers, weights: Sequence[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    return logits(layers, weights, images).log_softmax(-1)


def _portions(weights: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    # Always as many, so that what is found for an image does not depend on how many are beside it.
    for start in range(0, len(weights[0]), SAMPLES_AT_ONCE):
        yield [weight[start : start + SAMPLES_AT_ONCE] for weight in weights]
