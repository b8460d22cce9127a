"""Outcomes of a pack's networks on one set of test points: what is missing is computed, and kept in the store."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from deltaball.base.statuses import MEASURABLE
from deltaball.local import exact
from deltaball.local.balls import Ball
from deltaball.local.certificates.differences import differences
from deltaball.local.judges import attack
from deltaball.local.notions import ClassChange, Notion, notion
from deltaball.local.points import IMAGES_MULTIPLE
from deltaball.networks.layers import Layers
from deltaball.networks.models import Layered, Model
from deltaball.networks.packs import Pack
from deltaball.networks.posteriors import Posterior
from deltaball.plan.batches import IMAGES_AT_ONCE
from deltaball.plan.measures import Measure
from deltaball.store.store import Store
from deltaball.study.judges import PGD_RESTARTS, PGD_STEPS
from deltaball.study.measures import NOTIONS

OF_SOFTMAX = ("softmax_variation", "variation_above")  # notions that need the differences of all classes

Place = tuple[str, int]  # a network: its trajectory and checkpoint

Outcomes = dict[Measure, np.ndarray]  # float32 [K, n]: of attacks and certificates in [0, highest]; NaN is undecided


def measure(
    asked: Mapping[Place, Mapping[Measure, int]],
    layers: Layers,
    images: np.ndarray,
    seed: int,
    store: Store,
    device: str,
    chains: bool = False,
) -> int:
    """Complete the outcomes of networks of one shape; returns how many were computed.

    `asked` gives each network its measures, each with its number of points: that many of the first of `images`
    [N, h, w, c], which `seed` drew. The store keeps outcomes per network × measure × point, so only what a larger N,
    a new measure or a new checkpoint adds is computed. Diverged networks have no outcomes. Networks of `chains` are
    means over samples, one at a time.
    """
    kept = {identity: store.find_outcomes(identity) for identity, _ in asked}
    trained = {place: wanted for place, wanted in asked.items() if store.facts(*place)["status"] in MEASURABLE}
    # Attacks first, and certificates before exact answers: what is settled is not asked again.
    computed = 0
    for stage in (("fgsm", "pgd", "fmn"), ("ibp", "crown"), ("exact",)):
        batches: dict[tuple[int, int, tuple[Measure, ...]], list[Place]] = defaultdict(list)
        for place, wanted in trained.items():
            lacking: dict[tuple[int, int], list[Measure]] = defaultdict(list)
            for one, samples in wanted.items():
                done = len(kept[place[0]].get(outcome_key(place[1], one, seed), ()))
                if one.by in stage and done < samples:
                    lacking[done, samples].append(one)
            for (done, samples), members in lacking.items():
                batches[done, samples, tuple(members)].append(place)
        alone = [(asked_of, [place]) for asked_of, places in batches.items() for place in places]
        for (done, samples, members), places in alone if chains else batches.items():
            if chains:
                pack = Posterior.of(layers, store.samples(*places[0]), device)
            else:
                pack = Pack.of(layers, [store.weights(*place) for place in places], device)
            points = images[done:samples]
            settled = [
                {one: _settled(one, trained[place], step, kept[identity], seed)[done:samples] for one in members}
                for place in places
                for identity, step in [place]
            ]
            found, no_gradient = outcomes(pack, points, members, device, done, settled)
            for k, (identity, step) in enumerate(places):
                added = {}
                for kind, values in (("", found), ("/no_gradient", no_gradient)):
                    for one in values:
                        key = outcome_key(step, one, seed) + kind
                        before = kept[identity].get(key, np.empty(0, values[one].dtype))
                        added[key] = np.concatenate([before, values[one][k]])
                store.save_outcomes(identity, added)
                kept[identity] |= added
            computed += len(places) * len(members) * (samples - done)
    return computed


def is_complete(asked: Mapping[Place, Mapping[Measure, int]], seed: int, store: Store) -> bool:
    """Whether the store has every outcome that `measure` would be `asked` for."""
    for (identity, step), wanted in asked.items():
        if not store.has(identity, step):
            return False
        if store.facts(identity, step)["status"] in MEASURABLE:
            kept = store.find_outcomes(identity)
            if any(len(kept.get(outcome_key(step, one, seed), ())) < count for one, count in wanted.items()):
                return False
    return True


def _settled(
    one: Measure, wanted: Mapping[Measure, int], step: int, kept: Mapping[str, np.ndarray], seed: int
) -> np.ndarray:
    """What is known of a certificate's outcomes [points] before it is asked: NaN where nothing is.

    A violation in no larger a ball cannot be certified away. An exact answer may lean on other certificates too; their
    own outcomes stay their own, so that a measure added to a study changes no other one.
    """
    values = np.full(wanted[one], np.nan, np.float32)
    for other in wanted:
        alike = (other.notion, other.norm, other.gamma) == (one.notion, one.norm, one.gamma)
        if one.attack or not alike or NOTIONS[one.notion].quantity != "R":
            continue
        there = kept.get(outcome_key(step, other, seed), np.empty(0, np.float32))[: len(values)]
        if other.attack and other.delta <= one.delta:
            values[: len(there)][there == 0] = 0
        elif other.by in ("ibp", "crown") and one.by == "exact" and other.delta >= one.delta:
            values[: len(there)][there == 1] = 1
    return values


def outcomes(
    model: Model,
    images: np.ndarray,
    measures: Sequence[Measure],
    device: str,
    first: int = 0,
    settled: Sequence[Outcomes] | None = None,
) -> tuple[Outcomes, dict[Measure, np.ndarray]]:
    """Outcomes [K, n] of every measure for K networks on images [n, h, w, c] in [0, 1], points `first`, `first` + 1…

    Beside them, of attacks, bool [K, n]: where the attack had no gradient at the point. `settled` [K] holds what is
    known of certificates' outcomes [n] beforehand (NaN: nothing).
    """
    attacks, certificates = [one for one in measures if one.attack], [one for one in measures if one.certificate]
    keys = range(first, first + len(images))
    found, no_gradient = _attacked(model, images, attacks, keys, device) if attacks else ({}, {})
    nothing = dict.fromkeys(certificates, np.full(len(images), np.nan, np.float32))
    if not certificates:
        return found, no_gradient
    proven = [
        _proven(model.one(k), images, certificates, keys, settled[k] if settled else nothing, device)
        for k in range(len(model))
    ]
    return found | {one: np.stack([of_one[one] for of_one in proven]) for one in certificates}, no_gradient


def _attacked(
    model: Model, images: np.ndarray, measures: Sequence[Measure], keys: Sequence[int], device: str
) -> tuple[Outcomes, dict[Measure, np.ndarray]]:
    searches: dict[tuple[Any, ...], list[Measure]] = defaultdict(list)
    for one in measures:
        searches[one.by, one.settings, one.norm].append(one)
    attacks = {search: attack(search[0], **dict(search[1])) for search in searches}
    found: dict[Measure, list[torch.Tensor]] = {one: [] for one in measures}
    no_gradient: dict[Measure, list[torch.Tensor]] = {one: [] for one in measures}
    at_once = max(1, IMAGES_AT_ONCE[device] // len(model) // IMAGES_MULTIPLE) * IMAGES_MULTIPLE
    filler = -len(images) % IMAGES_MULTIPLE
    images = np.concatenate([images, images[:1].repeat(filler, axis=0)])
    keys = [*keys, *([keys[0]] * filler)]
    for start in range(0, len(images), at_once):
        x = torch.from_numpy(images[start : start + at_once]).to(device)
        block = keys[start : start + at_once]
        for search, members in searches.items():
            wanted: dict[Ball, list[Notion]] = defaultdict(list)
            for one in members:
                wanted[Ball(one.norm, one.delta)].append(notion_of(one))
            results = {
                (ball, kind): result for ball, kind, result in attacks[search](model, x, len(model), wanted, block)
            }
            for one in members:
                result = results[Ball(one.norm, one.delta), notion_of(one)]
                found[one].append(result.outcome.cpu())
                no_gradient[one].append(result.no_gradient.cpu())
    count = len(images) - filler
    return tuple(
        {one: torch.cat(parts, 1).numpy()[:, :count] for one, parts in each.items()} for each in (found, no_gradient)
    )


def _proven(
    network: Layered,
    images: np.ndarray,
    measures: Sequence[Measure],
    keys: Sequence[int],
    settled: Outcomes,
    device: str,
) -> Outcomes:
    """Outcomes [n] of the certificates for one network; computed only where they are not settled."""
    found: Outcomes = {}
    together: dict[tuple[Any, ...], list[Measure]] = defaultdict(list)
    for one in measures:
        together[one.by, one.settings, one.norm, one.delta].append(one)
    for (by, settings, norm, delta), members in together.items():
        ball = Ball(norm, delta)
        (left,) = np.nonzero(np.isnan([settled[one] for one in members]).any(0))
        found |= {one: settled[one].copy() for one in members}
        if not len(left):
            continue
        x = torch.from_numpy(images[left]).to(device)
        if by == "exact":
            answers = decided(network, x, [keys[index] for index in left], ball, **dict(settings))
            for one in members:
                found[one][left] = answers
            continue
        with torch.no_grad():
            logits = network(x)
            bounds = differences(network, x, ball, by, any(one.notion in OF_SOFTMAX for one in members))
            for one in members:
                found[one][left] = notion_of(one).certified(logits, bounds)[0].cpu().numpy()
    return found


def decided(network: Layered, x: torch.Tensor, keys: Sequence[int], ball: Ball, seconds: float) -> np.ndarray:
    """g of one network at the points x [n, h, w, c]: 1 robust, 0 violated, NaN not decided in `seconds` a point.

    The cheap first: PGD finds most violations, CROWN proves most of the rest, and only what is left is solved.
    """
    filler = -len(x) % IMAGES_MULTIPLE
    padded, numbered = torch.cat([x, x[:1].expand(filler, *x.shape[1:])]), [*keys, *([keys[0]] * filler)]
    pgd = attack("pgd", steps=PGD_STEPS, restarts=PGD_RESTARTS)
    ((_, _, attacked),) = pgd(network, padded, 1, {ball: [ClassChange()]}, numbered)
    values = attacked.outcome[0, : len(x)].cpu().numpy()
    left = np.nonzero(values)[0]
    if len(left):
        with torch.no_grad():
            bounds = differences(network, x[left], ball, "crown", False)
            proven = ClassChange().certified(network(x[left]), bounds)[0].cpu().numpy()
        left = left[proven == 0]
    if len(left):
        values[left] = exact.decide(network, x[left], ball, seconds).outcome
    return values


def notion_of(one: Measure) -> Notion:
    return notion(one.notion, one.gamma, one.delta)


def outcome_key(step: int, measure: Measure, seed: int) -> str:
    """The name of a checkpoint's outcomes in the store."""
    return f"{step}/{measure.name}/{seed}"
