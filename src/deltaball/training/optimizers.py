"""The updates of SGD and of Adam, in place, with a learning rate per network."""

from collections.abc import Sequence

import numpy as np
import torch

# Of Adam, Keras' defaults.
BETAS, EPSILON = (0.9, 0.999), 1e-7


def sgd_step(weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], rates: torch.Tensor) -> None:
    """w ← w - r g in place, with a learning rate per network, [K] or [K, 1]."""
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.addcmul_(_per_network(rates, weight), gradient, value=-1)


def momentum_step(
    weights: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    velocities: Sequence[torch.Tensor],
    rates: torch.Tensor,
    momentum: float,
) -> None:
    """v ← momentum · v - r g and w ← w + v in place, as Keras computes it (and not torch, whose v has no r in it)."""
    for weight, gradient, velocity in zip(weights, gradients, velocities, strict=True):
        velocity.mul_(momentum).addcmul_(_per_network(rates, weight), gradient, value=-1)
        weight.add_(velocity)


def adam_step(
    weights: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    moments: Sequence[torch.Tensor],
    rates: torch.Tensor,
) -> None:
    """Adam in place, as Keras computes it (Kingma & Ba 2015, Section 2's efficient form); overwrites `gradients`.

    `moments` are all first moments, then all second ones; `rates`, [K] or [K, 1], are those times `corrections`.
    """
    count = len(weights)
    for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        first, second = moments[index], moments[count + index]
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        # The gradient has served: its memory takes the divisor, because memory is what a step of Adam waits for.
        divisor = torch.sqrt(second, out=gradient).add_(EPSILON).div_(_per_network(rates, weight))
        weight.addcdiv_(first, divisor, value=-1)


def corrections(optimizer: str, before: int, steps: int) -> torch.Tensor:
    """What the learning rate of each of `steps` steps, the first after `before` others, is multiplied by, [steps].

    Adam corrects so the bias of its moments.
    """
    if optimizer == "sgd":
        return torch.ones(steps)
    number = np.arange(before + 1, before + steps + 1)
    return torch.from_numpy(np.sqrt(1 - BETAS[1] ** number) / (1 - BETAS[0] ** number)).float()


def _per_network(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
