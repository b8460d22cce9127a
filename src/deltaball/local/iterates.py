"""Steps and balls in float32, for iterates. What becomes of them is brought into the ball by its own `project`."""

import torch

from deltaball.local.balls import Ball

# Steps and balls in float32, for iterates. What becomes of them is brought into the ball by its own `project`.

# In an L1 step: pixels that may move, those of the steepest gradient.
PIXELS = 8

# Pixels with less room than 1 over this rank lower.
ENOUGH_ROOM = 1e6

# Newton's steps towards the threshold by which an L1 ball shrinks a displacement; the rest is scaled away.
NEWTON = 3

# More than float32 loses in a sum over pixels, and half its spacing below 1, by which a pixel may be off.
SUM_ROUNDING, PIXEL_ROUNDING = 4e-6, 2.0**-25

TINY = torch.finfo(torch.float32).tiny

DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


def stepped(norm: str, images: torch.Tensor, gradient: torch.Tensor, length: float | torch.Tensor) -> torch.Tensor:
    """Images [..., h, w, c] plus the step of `length` (or [...]) in the norm that goes furthest along the gradient.

    May leave [0, 1], but for L1: there, pixels without room cannot move. Overwrites the gradient.
    """
    length = over_pixels(length)
    match norm:
        case "linf":
            return gradient.sign_().mul_(length).add_(images)
        case "l2":
            flat = gradient.nan_to_num_(0.0, 0.0, 0.0).flatten(-3)
            # Scaled first, for squares overflow and vanish.
            flat /= torch.maximum(flat.amax(-1), -flat.amin(-1)).clamp(min=TINY)[..., None]
            size = torch.linalg.vector_norm(flat, dim=-1).clamp(min=TINY)
            return gradient.mul_(length / over_pixels(size)).add_(images)
        case "l1":
            return _sparsely_stepped(images, gradient.nan_to_num_(0.0, 0.0, 0.0), length)


def _sparsely_stepped(images: torch.Tensor, gradient: torch.Tensor, length: float | torch.Tensor) -> torch.Tensor:
    """Spend the length on the pixels of steepest gradient first, each as far as [0, 1] lets it."""
    flat, slope = images.flatten(-3), gradient.flatten(-3)
    sign = slope.sign()
    room = (0.5 - flat).mul_(sign).add_(0.5)
    # 0 where a pixel cannot move, its slope elsewhere.
    score = room.mul_(ENOUGH_ROOM).clamp_(max=1).mul_(slope).abs_()
    chosen = score.topk(min(PIXELS, flat.shape[-1]), -1).indices
    sign, value = sign.gather(-1, chosen), flat.gather(-1, chosen)
    room = torch.where(sign > 0, 1 - value, torch.where(sign < 0, value, 0.0))
    length = length.flatten(-3) if isinstance(length, torch.Tensor) else length
    spent = torch.minimum((length - (room.cumsum(-1) - room)).clamp(min=0), room)
    return flat.scatter_add(-1, chosen, sign * spent).view_as(images)


def retracted(norm: str, images: torch.Tensor, x: torch.Tensor, radius: float | torch.Tensor) -> torch.Tensor:
    """Images clipped to [0, 1], then drawn towards x until within the radius (or [...]) of it; overwrites them.

    Inside the ball and [0, 1] but for rounding; for L2 and L1 not quite the closest image.
    """
    displacement = images.clamp_(0, 1).sub_(x)
    if norm == "linf":
        radius = over_pixels(radius)
        return displacement.clamp_(-radius, radius).add_(x)
    if norm == "l1":
        # Soft thresholding (Duchi et al. 2008): the threshold is where a convex, piecewise linear sum meets the radius.
        size = displacement.abs().flatten(-3)
        shrunk, threshold = size.clone(), torch.zeros_like(size[..., 0])
        for _ in range(NEWTON):
            over = (shrunk.sum(-1) - radius).clamp(min=0)
            threshold += over / shrunk.sign_().sum(-1).clamp(min=1)
            torch.sub(size, threshold[..., None], out=shrunk).relu_()
        displacement = displacement.sign_().mul_(shrunk.view_as(displacement))
    shrink = (radius / length_in(norm, displacement).clamp(min=TINY)).clamp(max=1)
    return displacement.mul_(over_pixels(shrink)).add_(x)


def reach(ball: Ball, pixels: int) -> float:
    """A radius so much smaller than the ball's that what float32 takes for inside is inside."""
    off = PIXEL_ROUNDING * (pixels if ball.norm == "l1" else pixels**0.5)
    return max(ball.delta * (1 - SUM_ROUNDING) - off, 0.0)


def length_in(norm: str, displacement: torch.Tensor) -> torch.Tensor:
    """The float32 norm of displacements [..., h, w, c]."""
    flat = displacement.flatten(-3)
    match norm:
        case "linf":
            return torch.maximum(flat.amax(-1), -flat.amin(-1))
        case "l2":
            return torch.linalg.vector_norm(flat, dim=-1)
        case "l1":
            return flat.abs().sum(-1)


def over_pixels(number: float | torch.Tensor) -> float | torch.Tensor:
    return number[..., None, None, None] if isinstance(number, torch.Tensor) else number
