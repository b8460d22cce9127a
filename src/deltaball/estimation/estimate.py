"""R(g) and D(ḡ) of a pack's networks from their outcomes on one set of test points (paper 004, Section 3.2)."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from deltaball import tables
from deltaball.architectures import Layers
from deltaball.catalogue import DatasetFacts
from deltaball.estimation.intervals import betting, clopper_pearson, hoeffding
from deltaball.local import exact
from deltaball.local.attacks import attack
from deltaball.local.certificates import differences
from deltaball.local.neighbourhoods import Ball
from deltaball.local.notions import ClassChange, Notion, notion
from deltaball.packs import Pack, Posterior
from deltaball.plan import Measure, Plan, Trajectory
from deltaball.store import Store
from deltaball.study import NOTIONS, PGD_RESTARTS, PGD_STEPS

# Images × networks of one call of an attack: what its activations may occupy. Images come in multiples of 32: a
# matrix product of another size may round differently for one network than for several.
IMAGES_AT_ONCE = {"cpu": 1024, "cuda": 65536}
IMAGES_MULTIPLE = 32
MEASURABLE = ("trained", "stuck")  # a chain that does not move is the network it started from
OF_SOFTMAX = ("softmax_variation", "variation_above")  # notions that need the differences of all classes

Place = tuple[str, int]  # a network: its trajectory and checkpoint
Outcomes = dict[Measure, np.ndarray]  # float32 [K, n]: of attacks and certificates in [0, highest]; NaN is undecided


def draw_points(facts: DatasetFacts, samples: int, seed: int) -> np.ndarray:
    """Indices [samples] into the test split: the first of one permutation per data set and seed.

    A larger N therefore only adds points, and every network sees the same ones.
    """
    key = hashlib.sha256(f"test points {facts.name} {facts.fingerprint} {seed}".encode()).digest()
    order = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little"))).permutation(facts.test)
    if samples > len(order):
        raise ValueError(f"{samples} points asked of a test split of {len(order)}")
    return order[:samples]


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
    pack: Pack | Posterior,
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
    found, no_gradient = _attacked(pack, images, attacks, keys, device) if attacks else ({}, {})
    nothing = dict.fromkeys(certificates, np.full(len(images), np.nan, np.float32))
    if not certificates:
        return found, no_gradient
    proven = [
        _proven(pack.one(k), images, certificates, keys, settled[k] if settled else nothing, device)
        for k in range(len(pack))
    ]
    return found | {one: np.stack([of_one[one] for of_one in proven]) for one in certificates}, no_gradient


def _attacked(
    pack: Pack | Posterior, images: np.ndarray, measures: Sequence[Measure], keys: Sequence[int], device: str
) -> tuple[Outcomes, dict[Measure, np.ndarray]]:
    searches: dict[tuple[Any, ...], list[Measure]] = defaultdict(list)
    for one in measures:
        searches[one.by, one.settings, one.norm].append(one)
    attacks = {search: attack(search[0], **dict(search[1])) for search in searches}
    found: dict[Measure, list[torch.Tensor]] = {one: [] for one in measures}
    no_gradient: dict[Measure, list[torch.Tensor]] = {one: [] for one in measures}
    at_once = max(1, IMAGES_AT_ONCE[device] // len(pack) // IMAGES_MULTIPLE) * IMAGES_MULTIPLE
    filler = -len(images) % IMAGES_MULTIPLE
    images = np.concatenate([images, images[:1].repeat(filler, axis=0)])
    keys = [*keys, *([keys[0]] * filler)]
    for start in range(0, len(images), at_once):
        x = torch.from_numpy(images[start : start + at_once]).to(device)
        block = keys[start : start + at_once]
        for search, members in searches.items():
            wanted: dict[Ball, list[Notion]] = defaultdict(list)
            for one in members:
                wanted[Ball(one.norm, one.delta)].append(_notion(one))
            results = {
                (ball, kind): result for ball, kind, result in attacks[search](pack, x, len(pack), wanted, block)
            }
            for one in members:
                result = results[Ball(one.norm, one.delta), _notion(one)]
                found[one].append(result.outcome.cpu())
                no_gradient[one].append(result.no_gradient.cpu())
    count = len(images) - filler
    return tuple(
        {one: torch.cat(parts, 1).numpy()[:, :count] for one, parts in each.items()} for each in (found, no_gradient)
    )


def _proven(
    network: Pack, images: np.ndarray, measures: Sequence[Measure], keys: Sequence[int], settled: Outcomes, device: str
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
                found[one][left] = _notion(one).certified(logits, bounds)[0].cpu().numpy()
    return found


def decided(network: Pack, x: torch.Tensor, keys: Sequence[int], ball: Ball, seconds: float) -> np.ndarray:
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


def _notion(one: Measure) -> Notion:
    return notion(one.notion, one.gamma, one.delta)


def outcome_key(step: int, measure: Measure, seed: int) -> str:
    """The name of a checkpoint's outcomes in the store."""
    return f"{step}/{measure.name}/{seed}"


def estimates(plan: Plan, trajectories: Iterable[Trajectory], store: Store) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of ``robustness.parquet`` and of ``outcomes.parquet`` for the networks of `trajectories`.

    An estimate is the mean outcome over the first N test points. [lower, upper] is its Hoeffding interval at the
    measure's ε: it covers the expectation of *what judges it*; `side` says on which side of it the truth lies
    (`upper`: the truth is no larger; `exact`: it is the truth's own interval). [tight_lower, tight_upper] is a
    narrower one from the outcomes themselves, each end at α/2. A point that an exact answer leaves open counts as
    violated in the estimate and the lower ends, and as robust in the upper ones. In the second table `values` is the
    list of the N outcomes, or of those of all test points where a convergence experiment asks for them.
    """
    rows, values, lists = [], defaultdict(list), []
    find = lru_cache(maxsize=64)(store.find_outcomes)

    def outcomes_at(place: Place, one: Measure, samples: int, kind: str = "") -> np.ndarray | None:
        found = find(place[0]).get(outcome_key(place[1], one, plan.study.guarantee.seed) + kind, ())
        # Fewer than N outcomes would be a row that promises an ε it does not keep.
        return found[:samples] if len(found) >= samples else None

    for network in plan.networks_of(trajectories):
        place, estimated = (network.trajectory_id, network.checkpoint), plan.measures_of(network)
        for one, asked in plan.asked_of(network).items():
            found = outcomes_at(place, one, asked)
            if found is None:
                continue
            lists.append({"network_id": network.id, "measure": one.name, "values": found})
            if one not in estimated:
                continue
            found = found[: one.samples]
            trunk = outcomes_at(network.trunk, one, one.samples) if network.trunk else None
            no_gradient = outcomes_at(place, one, one.samples, "/no_gradient")
            values[one].append((len(rows), found))
            rows.append(
                {
                    "network_id": network.id,
                    **described(one),
                    "estimate": _mean(found, 0.0, one),
                    "trunk_estimate": None if trunk is None else _mean(trunk, 0.0, one),
                    "undecided": int(np.isnan(found).sum()),
                    "no_gradient": None if no_gradient is None else int(no_gradient.sum()),
                    "lower": hoeffding(_mean(found, 0.0, one), one.epsilon, 0, one.highest)[0],
                    "upper": hoeffding(_mean(found, one.highest, one), one.epsilon, 0, one.highest)[1],
                    "side": _side(one, found),
                }
            )
    for one, members in values.items():
        tight = tightened(np.stack([found for _, found in members]), one)
        for (row, _), ends in zip(members, zip(*tight, strict=True), strict=True):
            rows[row] |= dict(zip(("tight_lower", "tight_upper"), ends, strict=True))
    robustness = pd.DataFrame(rows, columns=list(tables.ROBUSTNESS)).astype(tables.ROBUSTNESS)
    return robustness, pd.DataFrame(lists, columns=["network_id", "measure", "values"])


def described(one: Measure) -> dict[str, Any]:
    """What the tables say of a measure."""
    return {
        "measure": one.name,
        "notion": one.notion,
        "norm": one.norm,
        "delta": one.delta,
        "gamma": one.gamma,
        "attack": one.attack,
        "certificate": one.certificate,
        "samples": one.samples,
        "epsilon": one.epsilon,
        "confidence": one.confidence,
        "inequality": "hoeffding",
        "tight_inequality": "clopper_pearson" if NOTIONS[one.notion].quantity == "R" else "betting",
    }


def tightened(values: np.ndarray, one: Measure) -> tuple[np.ndarray, np.ndarray]:
    """Both ends [rows] of the intervals that outcomes [rows, N] make themselves: Clopper-Pearson's or betting's."""
    # float32 may have rounded the largest value up.
    values = np.minimum(values.astype(np.float64), one.highest)
    least, most = (np.where(np.isnan(values), filler, values) for filler in (0.0, one.highest))
    if NOTIONS[one.notion].quantity == "R":
        lower, _ = clopper_pearson(least.sum(1).astype(int), values.shape[1], one.confidence)
        _, upper = clopper_pearson(most.sum(1).astype(int), values.shape[1], one.confidence)
    else:
        lower, upper = betting(values, one.confidence, 0.0, one.highest)
    return lower, upper


def _mean(values: np.ndarray, undecided: float, one: Measure) -> float:
    return float(np.minimum(np.where(np.isnan(values), undecided, values).mean(dtype=np.float64), one.highest))


def _side(one: Measure, values: np.ndarray) -> str:
    attacked = _notion(one).attacked_side
    if one.attack:
        return attacked
    if one.by == "exact":
        return "lower" if np.isnan(values).any() else "exact"
    return "lower" if attacked == "upper" else "upper"
