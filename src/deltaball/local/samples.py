"""Random images around points: how often a user who means no harm meets a violation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from deltaball.local.balls import Ball
from deltaball.local.judge import Around, Judge, Verdict
from deltaball.local.kernels.kernel import Kernel
from deltaball.local.kernels.uniform import Uniform
from deltaball.local.notions import Notion
from deltaball.local.points import references
from deltaball.local.references import Reference
from deltaball.networks.models import Model


@dataclass(frozen=True)
class Mean(Judge):
    """The mean outcome of a point's `draws` images of a kernel: of class change ρ_Q, the share that keeps its class.

    Every network is shown the same images of a point, and more draws add to fewer.

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
        asked: Mapping[Around, Sequence[Notion]],
        keys: Sequence[int],
        labels: torch.Tensor | None = None,
    ) -> Iterator[tuple[Around, Notion, Verdict]]:
        for around, notions in asked.items():
            kernel = self.kernel(around)
            points = kernel.points(x, keys)
            reference = references(model(points.expand(len(model), *x.shape)), labels)
            total = {notion: x.new_zeros(len(model), len(x), dtype=torch.float64) for notion in notions}
            for images in islice(kernel.draws(points, keys), self.draws):
                logits = model(images.expand(len(model), *x.shape))
                distance = around.around(x).distance(images) if isinstance(around, Ball) else x.new_zeros(len(x))
                for notion in notions:
                    # An image speaks for itself, not for the point: the notion need not hold there too.
                    itself = Reference(logits, reference(notion).target)
                    total[notion] += notion.outcome(itself, logits, distance)
            for notion in notions:
                yield around, notion, Verdict((total[notion] / self.draws).to(torch.float32))

    def kernel(self, around: Around) -> Kernel:
        """From where images are drawn."""
        return around


class UniformMean(Mean):
    """That of images uniform in an L∞ ball cut by [0, 1] (paper 001, Definition 7, constraint accuracy)."""

    def kernel(self, around: Around) -> Kernel:
        return Uniform(around.delta)
