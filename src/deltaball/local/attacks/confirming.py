"""Solutions of linear programs as images: stepped out, rounded if asked, and confirmed by a forward pass in float32."""

from dataclasses import dataclass

import torch

from deltaball.local.losses import SHORT, hair, margin
from deltaball.networks.models import Model

# An optimum is a tie. It is left along the ray from the point, by the smallest of these shares that makes it none.
STEPS_OUT = (1e-5, 4e-5, 1.6e-4, 6.4e-4, 2.6e-3, 1e-2)


@dataclass(frozen=True)
class Confirming:
    """What is asked of an image: that `model`, one network, gives a class that leads all others by α.

    Its pixels are multiples of 1 / `rounded_to`, or any number if that is 0.
    """

    model: Model
    alpha: float
    rounded_to: int

    def stepped_out(self, x: torch.Tensor, displacement: torch.Tensor, target: int) -> torch.Tensor | None:
        """The first image of `target` from the displacement's end at x [h, w, c] + d on; None if there is none."""
        shares = 1 + torch.tensor(STEPS_OUT, dtype=torch.float64)
        images = x.to(torch.float64) + shares[:, None, None, None] * displacement.to(x.device)
        return self.first(images.to(x.dtype).clamp(0, 1), target)

    def first(self, images: torch.Tensor, target: int) -> torch.Tensor | None:
        """The first of images [n, h, w, c] that is of class `target`, rounded; None if none is."""
        if self.rounded_to:
            # As images are read: a quotient of two numbers in float32.
            images = (images * self.rounded_to).round() / self.rounded_to
        logits = self.model(images)[0]
        lead = margin(logits, torch.full_like(logits[:, :1], target, dtype=torch.int64))
        least = hair(logits).clamp(min=self.alpha * (1 - SHORT))
        (clear,) = torch.nonzero(lead > least, as_tuple=True)
        return images[clear[0]] if len(clear) else None
