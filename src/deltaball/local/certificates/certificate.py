"""Certificates as judges: what they prove of notions from bounds on logits and their differences."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch

from deltaball.local.balls import Ball
from deltaball.local.certificates.differences import logit_bounds
from deltaball.local.judge import Judge, Verdict
from deltaball.local.notions import Notion
from deltaball.local.points import references
from deltaball.local.references import Reference
from deltaball.networks.models import Layered


class Certificate(Judge):
    """Proves outcomes on the other side of the truth than an attack's."""

    bounds: ClassVar[str]  # by which logits are bounded: ibp or crown

    @torch.no_grad()
    def __call__(
        self,
        model: Layered,
        x: torch.Tensor,
        asked: Mapping[Ball, Sequence[Notion]],
        keys: Sequence[int],
        labels: torch.Tensor | None = None,
    ) -> Iterator[tuple[Ball, Notion, Verdict]]:
        reference = references(model(x), labels)
        for ball, notions in asked.items():
            groups: dict[Reference, list[Notion]] = defaultdict(list)
            for notion in notions:
                groups[reference(notion)].append(notion)
            for held_against, members in groups.items():
                reads = {notion.entry.reads for notion in members if not notion.entry.bounds_slopes}
                rows = None if "softmax" in reads else held_against.classes.squeeze(-1)
                slopes = any(notion.entry.bounds_slopes for notion in members)
                bounds = logit_bounds(model, x, ball, self.bounds, rows, "logits" in reads, slopes, rows is None)
                for notion in members:
                    yield ball, notion, Verdict(notion.certified(held_against, bounds))


class Ibp(Certificate):
    """Interval bound propagation (Gowal et al. 2018)."""

    bounds = "ibp"


class Crown(Certificate):
    """Backward linear bound propagation (Zhang et al. 2018)."""

    bounds = "crown"
