"""R(g) and D(ḡ) of a pack's networks from their outcomes on one set of test points (paper 004, Section 3.2)."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import torch

from deltaball import tables
from deltaball.architectures import Layers
from deltaball.catalogue import DatasetFacts
from deltaball.estimation.intervals import hoeffding
from deltaball.local.attacks import attack
from deltaball.local.neighbourhoods import LinfBall
from deltaball.local.notions import notion
from deltaball.packs import Pack
from deltaball.plan import Measure, Plan, Trajectory
from deltaball.store import Store

# Images × networks of one call of an attack: what its activations may occupy. Images come in multiples of 32: a
# matrix product of another size may round differently for one network than for several.
IMAGES_AT_ONCE = {"cpu": 1024, "cuda": 65536}
IMAGES_MULTIPLE = 32


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
    trajectories: Sequence[Trajectory],
    layers: Layers,
    images: np.ndarray,
    measures: Sequence[Measure],
    seed: int,
    store: Store,
    device: str,
) -> int:
    """Complete the outcomes of a pack's networks on `images` [N, h, w, c]; returns how many were computed.

    The store keeps outcomes per network × measure × point under the `seed` that drew the points, so only what a
    larger N, a new measure or a new checkpoint adds is computed. Diverged networks have no outcomes.
    """
    kept = {one.id: store.find_outcomes(one.id) for one in trajectories}
    batches: dict[tuple[int, tuple[Measure, ...]], list[tuple[str, int]]] = defaultdict(list)
    for trajectory in trajectories:
        for step in trajectory.checkpoints:
            if store.facts(trajectory.id, step)["status"] != "trained":
                continue
            lacking: dict[int, list[Measure]] = defaultdict(list)
            for one in measures:
                done = len(kept[trajectory.id].get(outcome_key(step, one, seed), ()))
                if done < len(images):
                    lacking[done].append(one)
            for done, asked in lacking.items():
                batches[done, tuple(asked)].append((trajectory.id, step))
    added: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for (done, asked), networks in batches.items():
        weights = [store.load(identity, step).weights for identity, step in networks]
        found = outcomes(Pack.of(layers, weights, device), images[done:], asked, device)
        for k, (identity, step) in enumerate(networks):
            for one in asked:
                key = outcome_key(step, one, seed)
                before = kept[identity].get(key, np.empty(0, np.float32))
                added[identity][key] = np.concatenate([before, found[one][k]])
    for identity, outcomes_of_one in added.items():
        store.save_outcomes(identity, outcomes_of_one)
    return sum(len(networks) * len(asked) * (len(images) - done) for (done, asked), networks in batches.items())


def outcomes(pack: Pack, images: np.ndarray, measures: Sequence[Measure], device: str) -> dict[Measure, np.ndarray]:
    """Outcomes float32 [K, n] of every measure for K networks on images [n, h, w, c] in [0, 1].

    One attack on a point serves every notion that is measured with it.
    """
    found: dict[Measure, list[torch.Tensor]] = {one: [] for one in measures}
    attacks: dict[str, dict[LinfBall, list[Measure]]] = defaultdict(lambda: defaultdict(list))
    for one in measures:
        attacks[one.attack][LinfBall(one.delta)].append(one)
    at_once = max(1, IMAGES_AT_ONCE[device] // len(pack) // IMAGES_MULTIPLE) * IMAGES_MULTIPLE
    padded = np.concatenate([images, images[:1].repeat(-len(images) % IMAGES_MULTIPLE, axis=0)])
    for start in range(0, len(padded), at_once):
        x = torch.from_numpy(padded[start : start + at_once]).to(device)
        with torch.no_grad():
            at_point = pack(x.expand(len(pack), *x.shape))
            for name, balls in attacks.items():
                for (_, asked), perturbed in zip(
                    balls.items(), attack(name)(pack, x, len(pack), list(balls)), strict=True
                ):
                    at_perturbed = pack(perturbed)
                    for one in asked:
                        found[one].append(notion(one.notion, one.gamma).outcome(at_point, at_perturbed).cpu())
    return {one: torch.cat(parts, 1).numpy()[:, : len(images)] for one, parts in found.items()}


def outcome_key(step: int, measure: Measure, seed: int) -> str:
    """The name of a checkpoint's outcomes in the store."""
    return f"{step}/{measure.name}/{seed}"


def estimates(plan: Plan, trajectories: Iterable[Trajectory], store: Store) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of ``robustness.parquet`` and of ``outcomes.parquet`` for the networks of `trajectories`.

    An estimate is the mean outcome over the first N test points. [lower, upper] is its Hoeffding interval at the
    study's ε: it covers the expectation of *this attack's* outcome; `side` says on which side of it the truth lies
    (`upper`: the truth is no larger). In the second table `values` is the list of the N outcomes.
    """
    study, samples = plan.study, plan.samples
    rows, lists = [], []
    find = lru_cache(maxsize=64)(store.find_outcomes)

    def outcomes_at(place: tuple[str, int], one: Measure) -> np.ndarray | None:
        values = find(place[0]).get(outcome_key(place[1], one, study.guarantee.seed), ())
        # Fewer than N outcomes would be a row that promises an ε it does not keep.
        return values[:samples] if len(values) >= samples else None

    for network in plan.networks_of(trajectories):
        for one in plan.measures:
            values = outcomes_at((network.trajectory_id, network.checkpoint), one)
            if values is None or not one.applies_to(network.dataset):
                continue
            estimate = float(values.mean(dtype=np.float64))
            trunk = outcomes_at(network.trunk, one) if network.trunk else None
            lower, upper = hoeffding(estimate, study.guarantee.epsilon)
            rows.append(
                {
                    "network_id": network.id,
                    "measure": one.name,
                    "notion": one.notion,
                    "norm": one.norm,
                    "delta": one.delta,
                    "gamma": one.gamma,
                    "attack": one.attack,
                    "samples": samples,
                    "estimate": estimate,
                    "trunk_estimate": None if trunk is None else float(trunk.mean(dtype=np.float64)),
                    "lower": lower,
                    "upper": upper,
                    "epsilon": study.guarantee.epsilon,
                    "confidence": plan.confidence,
                    "inequality": "hoeffding",
                    "side": notion(one.notion, one.gamma).attacked_side,
                }
            )
            lists.append({"network_id": network.id, "measure": one.name, "values": values})
    robustness = pd.DataFrame(rows, columns=list(tables.ROBUSTNESS)).astype(tables.ROBUSTNESS)
    return robustness, pd.DataFrame(lists, columns=["network_id", "measure", "values"])
