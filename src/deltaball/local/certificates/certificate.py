"""Certificates as judges: what they prove of notions from the differences of logits that they bound."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch

from deltaball.local.balls import Ball
from deltaball.local.certificates.differences import differences
from deltaball.local.judge import Judge, Verdict
from deltaball.local.notions import Notion
from deltaball.networks.models import Layered


class Certificate(Judge):
    """Proves outcomes on the other side of the truth than an attack's."""

    bounds: ClassVar[str]  # by which differences of logits are bounded: ibp or crown

    @torch.no_grad()
    def __call__(
        self, model: Layered, x: torch.Tensor, asked: Mapping[Ball, Sequence[Notion]], keys: Sequence[int]
    ) -> Iterator[tuple[Ball, Notion, Verdict]]:
        logits = model(x)
        for ball, notions in asked.items():
            every = any(notion.entry.reads == "softmax" for notion in notions)
            bounds = differences(model, x, ball, self.bounds, every)
            for notion in notions:
                yield ball, notion, Verdict(notion.certified(logits, bounds))


class Ibp(Certificate):
    """Interval bound propagation (Gowal et al. 2018)."""

    bounds = "ibp"


class Crown(Certificate):
    """Backward linear bound propagation (Zhang et al. 2018)."""

    bounds = "crown"
