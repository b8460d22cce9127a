"""Attacks inside a step of training: on all networks of a pack at once, the same work in every step."""

from collections.abc import Callable

import torch

from deltaball.networks.models import Layered
from deltaball.training.objectives.objective import Batch

# The length of an attack's path in radii, in equal steps (Madry et al. 2018, Section 5.1, has 2.5 of MNIST's).
TRAVEL = 2.5

# What an attack raises: logits [K, n, classes] at images [K, n, h, w, c] → [K, n].
Raised = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def noisy(batch: Batch, radius: torch.Tensor) -> torch.Tensor:
    """Images [K, n, h, w, c] drawn evenly from the L∞ balls of `radius` [K] around those of a batch, cut at [0, 1]."""
    noise = batch.draws.uniform(batch.images.shape[1:]).mul_(2).sub_(1)
    return noise.mul_(over_images(radius)).add_(batch.images).clamp_(0, 1)


def gaussian(batch: Batch, deviation: torch.Tensor) -> torch.Tensor:
    """The images with normal noise of a standard deviation [K] in every pixel, then clipped to [0, 1]."""
    noise = batch.draws.normal(batch.images.shape[1:])
    return noise.mul_(over_images(deviation)).add_(batch.images).clamp_(0, 1)


def ascended(
    networks: Layered, batch: Batch, radius: torch.Tensor, steps: int, raised: Raised, start: torch.Tensor
) -> torch.Tensor:
    """The images [K, n, h, w, c] to which `steps` steps along the sign of the gradient of `raised` lead from `start`.

    They stay in the L∞ balls of `radius` [K] around the images of a batch, cut at [0, 1]. The last one counts, as in
    Madry et al. 2018: to know which was the best takes one more pass.
    """
    fixed, radius = networks.fixed(), over_images(radius)
    low, high = (batch.images - radius).clamp(min=0), (batch.images + radius).clamp(max=1)
    length, current = radius * (TRAVEL / steps), start
    for _ in range(steps):
        leaf = current.detach().requires_grad_()
        (slope,) = torch.autograd.grad(raised(fixed(leaf), leaf).sum(), leaf)
        # In place: new memory for images is what would take longest here.
        current = slope.sign_().mul_(length).add_(current).clamp_(low, high)
    return current


def over_images(values: torch.Tensor) -> torch.Tensor:
    """Values [K] as a factor of images [K, n, h, w, c]."""
    return values.view(-1, 1, 1, 1, 1)
