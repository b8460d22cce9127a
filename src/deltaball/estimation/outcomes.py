"""Outcomes of networks at test points: what the judges of measures say, in arrays."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from deltaball.estimation.stored import Judged
from deltaball.local.balls import Ball
from deltaball.local.judge import Around, Verdict
from deltaball.local.judges import judge
from deltaball.local.kernels.kernel import kernel
from deltaball.local.kernels.known import Known
from deltaball.local.notions import Notion, notion
from deltaball.local.points import filled
from deltaball.networks.models import Model
from deltaball.plan.batches import IMAGES_AT_ONCE, IMAGES_MULTIPLE
from deltaball.plan.measures import Measure
from deltaball.plan.memory import images_at_once
from deltaball.study.judges import JUDGES

Settled = Mapping[Measure, np.ndarray]  # of one network: outcomes [n] that are known beforehand, NaN where not

Told = Callable[[Measure, int], None]  # of so many outcomes by a measure

# Points that branch and bound decides before it is told how far it is; they share their time.
DECIDED_AT_ONCE = 2 * IMAGES_MULTIPLE


def outcomes(
    model: Model,
    images: np.ndarray,
    measures: Sequence[Measure],
    device: str,
    first: int = 0,
    settled: Sequence[Settled] | None = None,
    told: Told = lambda measure, count: None,
    labels: np.ndarray | None = None,
    known: Known | None = None,
) -> dict[Measure, Judged]:
    """Outcomes [K, n] of every measure for K networks on images [n, h, w, c] in [0, 1], points `first`, `first` + 1…

    Attacks and samples are asked about all points of all networks together, certificates and exact answers about those
    of each network that are not `settled` [K]. What there is of a measure is `told` as it comes. `labels`, int64 [n],
    may be left out where no notion needs them, and what is `known` where no kernel does. What a search takes is shared
    equally by its points, networks and measures.
    """
    points = _Points(images, range(first, first + len(images)), labels)
    searches, proofs = (
        [measure for measure in measures if bool(measure.certificate) == certificates] for certificates in (False, True)
    )
    alone, together = ([one for one in searches if _is_alone(one, device) == said] for said in (True, False))
    judged = _searched(model, points, together, device, told, known) if together else {}
    if alone:
        each = [_searched(model.one(k), points, alone, device, told, known) for k in range(len(model))]
        judged |= {one: _stacked([of_network[one] for of_network in each]) for one in alone}
    if proofs:
        unknown = dict.fromkeys(proofs, np.full(len(images), np.nan, np.float32))
        proven = [
            _proven(model.one(k), points, proofs, settled[k] if settled else unknown, device, told)
            for k in range(len(model))
        ]
        for measure in proofs:
            values, seconds = (np.stack(each) for each in zip(*(found[measure] for found in proven), strict=True))
            judged[measure] = Judged(values, seconds=seconds)
    return judged


def _is_alone(measure: Measure, device: str) -> bool:
    """Whether networks are asked about one by one: a CPU computes them so anyway, and so more points come at once."""
    return device == "cpu" and JUDGES[measure.judge].one_by_one


def _stacked(networks: Sequence[Judged]) -> Judged:
    """What is said of several networks, given what is said of each [1, n]."""
    said = zip(*networks, strict=True)
    return Judged(*(None if each[0] is None else np.concatenate(each) for each in said))


class _Points(NamedTuple):
    """Images [n, h, w, c], their own numbers [n], and their labels [n] where they are known."""

    images: np.ndarray
    keys: Sequence[int]
    labels: np.ndarray | None

    def at(self, index: Sequence[int]) -> "_Points":
        labels = None if self.labels is None else self.labels[index]
        return _Points(self.images[index], [self.keys[one] for one in index], labels)


def _searched(
    model: Model, points: _Points, measures: Sequence[Measure], device: str, told: Told, known: Known | None
) -> dict[Measure, Judged]:
    searches = _grouped(measures, lambda measure: (measure.judge, measure.settings, measure.norm))
    parts: dict[Measure, list[tuple[torch.Tensor | None, ...]]] = {measure: [] for measure in measures}
    most = IMAGES_AT_ONCE[device] if device == "cpu" else min(IMAGES_AT_ONCE[device], images_at_once(model.numbers))
    at_once = max(1, most // len(model) // IMAGES_MULTIPLE) * IMAGES_MULTIPLE
    count, padded = len(points.images), filled(len(points.images))
    for start in range(0, len(padded), at_once):
        block = points.at(padded[start : start + at_once])
        for (name, settings, _), members in searches.items():
            verdicts, took = _timed(name, settings, model, block, members, device, known)
            shown = min(at_once, count - start)
            for measure in members:
                verdict = verdicts[measure]
                seconds = torch.full(verdict.outcome.shape, took / (len(model) * shown * len(members)))
                said = (verdict.outcome, verdict.no_gradient, verdict.found_by, seconds)
                parts[measure].append(tuple(None if one is None else one.cpu() for one in said))
                told(measure, len(model) * shown)
    return {
        measure: Judged(*(_joined(blocks, count) for blocks in zip(*each, strict=True)))
        for measure, each in parts.items()
    }


def _joined(blocks: Sequence[torch.Tensor | None], count: int) -> np.ndarray | None:
    return None if blocks[0] is None else torch.cat(blocks, 1).numpy()[:, :count]


def _proven(
    network: Model, points: _Points, measures: Sequence[Measure], settled: Settled, device: str, told: Told
) -> dict[Measure, tuple[np.ndarray, np.ndarray]]:
    """Outcomes [n] of certificates and exact answers for one network, and the seconds that each took.

    Computed only where they are not settled.
    """
    proven = {measure: (settled[measure].copy(), np.zeros_like(settled[measure])) for measure in measures}
    searches = _grouped(measures, lambda measure: (measure.judge, measure.settings, around_of(measure)))
    for (name, settings, _), members in searches.items():
        (left,) = np.nonzero(np.isnan([settled[measure] for measure in members]).any(0))
        for measure in members:
            told(measure, len(points.images) - len(left))
        at_once = DECIDED_AT_ONCE if JUDGES[name].says == "decides" else max(1, len(left))
        for start in range(0, len(left), at_once):
            block = left[start : start + at_once]
            verdicts, took = _timed(name, settings, network, points.at(block), members, device)
            for measure in members:
                values, seconds = proven[measure]
                values[block] = verdicts[measure].outcome[0].cpu().numpy()
                seconds[block] = took / (len(block) * len(members))
                told(measure, len(block))
    return proven


def _timed(
    name: str,
    settings: Sequence[tuple[str, float]],
    model: Model,
    points: _Points,
    measures: Sequence[Measure],
    device: str,
    known: Known | None = None,
) -> tuple[dict[Measure, Verdict], float]:
    """What one judge says of points by some measures, and the seconds of a CPU's work, or of holding a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    verdicts = _verdicts(name, settings, model, points, measures, device, known)
    for verdict in verdicts.values():
        verdict.outcome.cpu()  # waits for the GPU
    return verdicts, clock() - started


def _verdicts(
    name: str,
    settings: Sequence[tuple[str, float]],
    model: Model,
    points: _Points,
    measures: Sequence[Measure],
    device: str,
    known: Known | None = None,
) -> dict[Measure, Verdict]:
    """What one judge says of points by some measures."""
    asked: dict[Around, list[Notion]] = defaultdict(list)
    if known is not None:
        known = replace(known, of_points=points.labels)
    for measure in measures:
        asked[around_of(measure, known)].append(notion_of(measure))
    images, labels = (
        None if one is None else torch.from_numpy(one).to(device) for one in (points.images, points.labels)
    )
    said = judge(name, **dict(settings))(model, images, asked, points.keys, labels)
    verdicts = {(around, kind): verdict for around, kind, verdict in said}
    return {measure: verdicts[around_of(measure), notion_of(measure)] for measure in measures}


def _grouped(measures: Iterable[Measure], key: Any) -> dict[Any, list[Measure]]:
    groups: dict[Any, list[Measure]] = defaultdict(list)
    for measure in measures:
        groups[key(measure)].append(measure)
    return groups


def around_of(measure: Measure, known: Known | None = None) -> Around:
    return kernel(measure.kernel, known) if measure.kernel else Ball(measure.norm, measure.delta)


def notion_of(measure: Measure) -> Notion:
    return notion(measure.notion, measure.gamma, measure.reach)
