"""Outcomes of networks at test points: what the judges of measures say, in arrays."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from deltaball.estimation.stored import Judged
from deltaball.local.balls import Ball
from deltaball.local.judges import judge
from deltaball.local.notions import Notion, notion
from deltaball.local.points import filled
from deltaball.networks.models import Model
from deltaball.plan.batches import IMAGES_AT_ONCE, IMAGES_MULTIPLE
from deltaball.plan.measures import Measure
from deltaball.plan.memory import images_at_once
from deltaball.study.judges import JUDGES

Settled = Mapping[Measure, np.ndarray]  # of one network: outcomes [n] that are known beforehand, NaN where not

Told = Callable[[Measure, int], None]  # of so many outcomes by a measure

# Points that branch and bound decides before it is told how far it is.
DECIDED_AT_ONCE = 2 * IMAGES_MULTIPLE


def outcomes(
    model: Model,
    images: np.ndarray,
    measures: Sequence[Measure],
    device: str,
    first: int = 0,
    settled: Sequence[Settled] | None = None,
    told: Told = lambda measure, count: None,
) -> dict[Measure, Judged]:
    """Outcomes [K, n] of every measure for K networks on images [n, h, w, c] in [0, 1], points `first`, `first` + 1…

    Attacks are asked about all points of all networks together, certificates and exact answers about those of each
    network that are not `settled` [K]. What there is of a measure is `told` as it comes.
    """
    keys = range(first, first + len(images))
    attacks, proofs = (
        [measure for measure in measures if bool(measure.attack) == attacks] for attacks in (True, False)
    )
    judged = _attacked(model, images, attacks, keys, device, told) if attacks else {}
    if proofs:
        unknown = dict.fromkeys(proofs, np.full(len(images), np.nan, np.float32))
        proven = [
            _proven(model.one(k), images, proofs, keys, settled[k] if settled else unknown, device, told)
            for k in range(len(model))
        ]
        judged |= {measure: Judged(np.stack([of_network[measure] for of_network in proven])) for measure in proofs}
    return judged


def _attacked(
    model: Model, images: np.ndarray, measures: Sequence[Measure], keys: Sequence[int], device: str, told: Told
) -> dict[Measure, Judged]:
    searches = _grouped(measures, lambda measure: (measure.judge, measure.settings, measure.norm))
    parts: dict[Measure, list[tuple[torch.Tensor, torch.Tensor]]] = {measure: [] for measure in measures}
    most = IMAGES_AT_ONCE[device] if device == "cpu" else min(IMAGES_AT_ONCE[device], images_at_once(model.numbers))
    at_once = max(1, most // len(model) // IMAGES_MULTIPLE) * IMAGES_MULTIPLE
    padded, numbered = filled(torch.from_numpy(images), keys)
    for start in range(0, len(padded), at_once):
        block = slice(start, start + at_once)
        x = padded[block].to(device)
        for (name, settings, _), members in searches.items():
            asked: dict[Ball, list[Notion]] = defaultdict(list)
            for measure in members:
                asked[ball_of(measure)].append(notion_of(measure))
            verdicts = judge(name, **dict(settings))(model, x, asked, numbered[block])
            found = {(ball, kind): verdict for ball, kind, verdict in verdicts}
            for measure in members:
                verdict = found[ball_of(measure), notion_of(measure)]
                parts[measure].append((verdict.outcome.cpu(), verdict.no_gradient.cpu()))
                told(measure, len(model) * min(at_once, len(images) - start))
    return {
        measure: Judged(*(torch.cat(blocks, 1).numpy()[:, : len(images)] for blocks in zip(*each, strict=True)))
        for measure, each in parts.items()
    }


def _proven(
    network: Model,
    images: np.ndarray,
    measures: Sequence[Measure],
    keys: Sequence[int],
    settled: Settled,
    device: str,
    told: Told,
) -> dict[Measure, np.ndarray]:
    """Outcomes [n] of certificates and exact answers for one network; computed only where they are not settled."""
    proven = {measure: settled[measure].copy() for measure in measures}
    searches = _grouped(measures, lambda measure: (measure.judge, measure.settings, ball_of(measure)))
    for (name, settings, ball), members in searches.items():
        (left,) = np.nonzero(np.isnan([settled[measure] for measure in members]).any(0))
        for measure in members:
            told(measure, len(images) - len(left))
        asked, at_once = {ball: [notion_of(measure) for measure in members]}, max(1, len(left))
        if JUDGES[name].says == "decides":
            at_once = DECIDED_AT_ONCE
        for start in range(0, len(left), at_once):
            block = left[start : start + at_once]
            x = torch.from_numpy(images[block]).to(device)
            verdicts = judge(name, **dict(settings))(network, x, asked, [keys[index] for index in block])
            for measure, (_, _, verdict) in zip(members, verdicts, strict=True):
                proven[measure][block] = verdict.outcome[0].cpu().numpy()
                told(measure, len(block))
    return proven


def _grouped(measures: Iterable[Measure], key: Any) -> dict[Any, list[Measure]]:
    groups: dict[Any, list[Measure]] = defaultdict(list)
    for measure in measures:
        groups[key(measure)].append(measure)
    return groups


def ball_of(measure: Measure) -> Ball:
    return Ball(measure.norm, measure.delta)


def notion_of(measure: Measure) -> Notion:
    return notion(measure.notion, measure.gamma, measure.delta)
