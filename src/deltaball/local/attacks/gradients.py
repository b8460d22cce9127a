"""Gradients of losses by images, and what iterative attacks share."""

from math import cos, pi

import torch

from deltaball.local.losses import Loss, margin_loss
from deltaball.local.references import Reference
from deltaball.networks.models import Model


def differentiated(
    model: Model, images: torch.Tensor, reference: Reference, loss: Loss
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at images [K, m, h, w, c], and the gradient of `loss` there; but for the margin's, its scale is arbitrary.

    The loss is differentiated by the logits first: where it is flat (softmax saturates; the variation has no slope at
    the point itself) the margin's slope takes its place, and the scale keeps small slopes from vanishing on their
    way through the network.
    """
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        logits = model(leaf)
        ahead = logits.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(reference, ahead).sum(), ahead)
        if loss is not margin_loss:
            (instead,) = torch.autograd.grad(margin_loss(reference, ahead).sum(), ahead)
            slope = torch.where((slope == 0).all(-1, keepdim=True), instead, slope)
            slope /= slope.abs().amax(-1, keepdim=True)
    (gradient,) = torch.autograd.grad(logits, leaf, slope)
    return logits.detach(), gradient.contiguous()


def replace_where(kept: torch.Tensor, rows: torch.Tensor, new: torch.Tensor, where: torch.Tensor) -> None:
    """kept[rows] = new for those of the rows for which `where` holds."""
    if kept.is_cuda:  # the host need not know how many
        kept[rows] = torch.where(where[:, None, None, None], new, kept[rows])
    else:
        kept[rows[where]] = new[where]


def annealing(step: int, steps: int) -> float:
    """From 1 at step 0 to 0 at `steps`, by a cosine; 1/2 on average."""
    return (1 + cos(pi * step / steps)) / 2
