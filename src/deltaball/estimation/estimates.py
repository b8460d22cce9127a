"""R(g) and D(ḡ) of networks from their outcomes (paper 004, Section 3.2)."""

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from deltaball.estimation.intervals import betting, clopper_pearson, hoeffding
from deltaball.estimation.outcomes import Place, notion_of, outcome_key
from deltaball.plan.measures import Measure
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Store
from deltaball.study.notions import NOTIONS
from deltaball.tables import columns


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
    robustness = pd.DataFrame(rows, columns=list(columns.ROBUSTNESS)).astype(columns.ROBUSTNESS)
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
        "tight_inequality": "clopper_pearson" if NOTIONS[one.notion].is_share else "betting",
    }


def tightened(values: np.ndarray, one: Measure) -> tuple[np.ndarray, np.ndarray]:
    """Both ends [rows] of the intervals that outcomes [rows, N] make themselves: Clopper-Pearson's or betting's."""
    # float32 may have rounded the largest value up.
    values = np.minimum(values.astype(np.float64), one.highest)
    least, most = (np.where(np.isnan(values), filler, values) for filler in (0.0, one.highest))
    if NOTIONS[one.notion].is_share:
        lower, _ = clopper_pearson(least.sum(1).astype(int), values.shape[1], one.confidence)
        _, upper = clopper_pearson(most.sum(1).astype(int), values.shape[1], one.confidence)
    else:
        lower, upper = betting(values, one.confidence, 0.0, one.highest)
    return lower, upper


def _mean(values: np.ndarray, undecided: float, one: Measure) -> float:
    return float(np.minimum(np.where(np.isnan(values), undecided, values).mean(dtype=np.float64), one.highest))


def _side(one: Measure, values: np.ndarray) -> str:
    attacked = notion_of(one).attacked_side
    if one.attack:
        return attacked
    if one.judge == "exact":
        return "lower" if np.isnan(values).any() else "exact"
    return "lower" if attacked == "upper" else "upper"
