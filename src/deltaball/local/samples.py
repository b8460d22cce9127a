"""Random images of a ball: how often a user who means no harm meets a violation (paper 001, constraint accuracy)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deltaball.base.draws import generator
from deltaball.local.balls import Ball
from deltaball.local.judge import Judge, Verdict
from deltaball.local.notions import Notion
from deltaball.local.points import references
from deltaball.local.references import Reference
from deltaball.networks.models import Model


@dataclass(frozen=True)
class Uniform(Judge):
    """The mean outcome of a point's `draws` images, uniform in its L∞ ball cut by [0, 1] (paper 001, Definition 7).

    Every network is shown the same images of a point, and every ball and number of draws the same numbers in [0, 1): of
    another ball the images are the same but for their distance, and more draws add to fewer.

    The draws of a point belong together, so their mean is one outcome, in the range of the notion, and Hoeffding's
    inequality counts N points, not N · draws images. More draws scatter the outcomes less; what the inequality says
    holds for any scatter, and the tight interval becomes narrower.
    """

    draws: int = 100

    @torch.no_grad()
    def __call__(
        self,
        model: Model,
        x: torch.Tensor,
        asked: Mapping[Ball, Sequence[Notion]],
        keys: Sequence[int],
        labels: torch.Tensor | None = None,
    ) -> Iterator[tuple[Ball, Notion, Verdict]]:
        reference = references(model(x.expand(len(model), *x.shape)), labels)
        generators = [generator("uniform", key) for key in keys]
        arounds = {ball: ball.around(x) for ball in asked}
        sums = {
            (ball, notion): x.new_zeros(len(model), len(x), dtype=torch.float64)
            for ball in asked
            for notion in asked[ball]
        }
        for _ in range(self.draws):
            drawn = np.stack([one.random(x[0].numel(), dtype=np.float32) for one in generators])
            share = torch.from_numpy(drawn).to(x.device).view_as(x)
            for ball, notions in asked.items():
                low, high = arounds[ball].bounds
                images = torch.lerp(low, high, share).clamp_(low, high)
                logits = model(images.expand(len(model), *x.shape))
                distance = arounds[ball].distance(images)
                for notion in notions:
                    # An image speaks for itself, not for the point: the notion need not hold there too.
                    itself = Reference(logits, reference(notion).target)
                    sums[ball, notion] += notion.outcome(itself, logits, distance)
        for (ball, notion), total in sums.items():
            yield ball, notion, Verdict((total / self.draws).to(torch.float32))
