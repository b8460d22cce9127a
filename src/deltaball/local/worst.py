"""The worst image that a kernel could draw, where what it draws fills a ball: H = 1 of papers 000 and 003."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deltaball.local.attacks.ensemble import Ensemble
from deltaball.local.balls import Ball
from deltaball.local.judge import Around, Judge, Verdict
from deltaball.local.kernels.noise import Noise
from deltaball.local.notions import Notion
from deltaball.networks.models import Model


@dataclass(frozen=True)
class Worst(Judge):
    """What the ensemble of FGSM, BG and PGD finds in the ball that a kernel fills (003, Equation 6).

    Around points of the `cube` it is of type 1: the mean of `margin` is R1 of paper 000. With `labels` kept (type 3) an
    image counts that has its point's label, as `Known.keep_label` tells it; where the closest violation has another one
    the point counts as robust. So both overstate the truth as any attack does: what it misses counts as robust too.
    """

    steps: int = 10
    radii: int = 10

    def __call__(
        self,
        model: Model,
        x: torch.Tensor,
        asked: Mapping[Around, Sequence[Notion]],
        keys: Sequence[int],
        labels: torch.Tensor | None = None,
    ) -> Iterator[tuple[Around, Notion, Verdict]]:
        for kernel, notions in asked.items():
            points, ball = kernel.points(x, keys), Ball(kernel.norm, kernel.size)
            for _, notion, found in Ensemble(self.steps, self.radii)(model, points, {ball: notions}, keys, labels):
                outcome = found.outcome
                if kernel.labels == "kept":
                    most = ball.delta if notion.entry.is_distance else 1.0
                    outcome = torch.where(_kept(kernel, found.perturbed, points), outcome, most)
                yield kernel, notion, Verdict(outcome)


def _kept(kernel: Noise, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Which of images [K, n, h, w, c] have the label of their points [n, h, w, c], bool [K, n]."""
    x, places = points.cpu().numpy(), np.arange(len(points))
    _, apart = kernel.known.nearest(x, kernel.known.of_points)
    each = [kernel.known.keep_label(own.cpu().numpy(), x, places, apart) for own in images]
    return torch.from_numpy(np.stack(each)).to(images.device)
