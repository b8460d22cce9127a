"""R(g) and D(ḡ) of networks from their outcomes (paper 004, Section 3.2)."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd

from deltaball.base.errors import InputError
from deltaball.estimation.measuring import is_measurable
from deltaball.estimation.scores import statistic
from deltaball.estimation.stored import Judged, StoredOutcomes, checkpoint_of
from deltaball.plan.measures import Measure
from deltaball.plan.networks import CheckpointId, Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Store
from deltaball.study.judges import JUDGES
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
    stored = StoredOutcomes(store, plan.study.guarantee.seed)
    for network in plan.networks_of(trajectories):
        estimated = plan.measures_of(network)
        for measure, asked in plan.asked_of(network).items():
            judged = _first(stored, checkpoint_of(network), measure, asked)
            if judged is None:
                continue
            lists.append({"network_id": network.id, "measure": measure.name, "values": judged.outcomes})
            if measure not in estimated:
                continue
            judged = judged.first(measure.samples)
            trunk = _first(stored, network.trunk, measure, measure.samples) if network.trunk else None
            values[measure].append((len(rows), judged.outcomes))
            seed = {"points_seed": plan.study.guarantee.seed}
            rows.append({"network_id": network.id, **described(measure), **estimate_of(measure, judged, trunk), **seed})
    for measure, members in values.items():
        outcomes = np.stack([found for _, found in members])
        tight = statistic(measure).tight_interval(outcomes, measure.confidence)
        for (row, _), ends in zip(members, zip(*tight, strict=True), strict=True):
            rows[row] |= dict(zip(("tight_lower", "tight_upper"), ends, strict=True))
    robustness = pd.DataFrame(rows, columns=list(columns.ROBUSTNESS)).astype(columns.ROBUSTNESS)
    return robustness, pd.DataFrame(lists, columns=["network_id", "measure", "values"])


def check_complete(
    plan: Plan, trajectories: Iterable[Trajectory], store: Store, outcomes: pd.DataFrame, failed: Collection[str]
) -> None:
    """Raises InputError, naming network and measure, where a row is missing and nothing says why.

    `outcomes` is the second table of `estimates`. It says why that a trajectory is among the `failed`, that a network
    was not trained, or that it diverged.
    """
    there = set(outcomes[["network_id", "measure"]].itertuples(index=False, name=None))
    for network in plan.networks_of(trajectories):
        checkpoint = checkpoint_of(network)
        if network.trajectory_id in failed or not store.has(*checkpoint) or not is_measurable(checkpoint, store):
            continue
        for measure in plan.asked_of(network):
            if (network.id, measure.name) not in there:
                raise InputError(
                    f"network {network.id}: {measure.name} was not measured, though the network is trained and nothing "
                    "failed; measure it again, and if that does not help, report it"
                )


def _first(stored: StoredOutcomes, checkpoint: CheckpointId, measure: Measure, samples: int) -> Judged | None:
    """What is kept of the first `samples` points; None where they are not all there."""
    # Fewer than N outcomes would be a row that promises an ε it does not keep.
    return stored.of(checkpoint, measure).first(samples) if stored.has(checkpoint, measure, samples) else None


def estimate_of(measure: Measure, judged: Judged, trunk: Judged | None = None) -> dict[str, Any]:
    """What the outcomes of one network, and of what it was pruned from, say in its row."""
    asked, values = statistic(measure), judged.outcomes
    lower, upper = asked.interval(values, measure.epsilon)
    return {
        "estimate": asked.estimate(values),
        "trunk_estimate": None if trunk is None else asked.estimate(trunk.outcomes),
        "undecided": int(np.isnan(values).sum()),
        "no_gradient": None if judged.no_gradient is None else int(judged.no_gradient.sum()),
        "found_by": None if judged.found_by is None else _counts(measure, judged.found_by),
        "lower": lower,
        "upper": upper,
        "side": _side(measure, values),
    }


def _counts(measure: Measure, found_by: np.ndarray) -> str:
    """At how many points each attack of an ensemble found the closest image."""
    counts = np.bincount(found_by[found_by >= 0], minlength=len(JUDGES[measure.judge].members))
    return ", ".join(f"{name} {count}" for name, count in zip(JUDGES[measure.judge].members, counts, strict=True))


def described(measure: Measure) -> dict[str, Any]:
    """What the tables say of a measure."""
    return {
        "measure": measure.name,
        "notion": measure.notion,
        "norm": measure.norm,
        "delta": measure.delta,
        "perturbation": measure.kernel and measure.kernel.label,
        "perturbation_size": measure.kernel and measure.kernel.size,
        "gamma": measure.gamma,
        "attack": measure.attack,
        "certificate": measure.certificate,
        "sampling": measure.sampling,
        "samples": measure.samples,
        "epsilon": measure.epsilon,
        "confidence": measure.confidence,
        "inequality": statistic(measure).inequality,
        "tight_inequality": statistic(measure).tight_inequality,
    }


def _side(measure: Measure, values: np.ndarray) -> str:
    """On which side of the truth the estimate lies."""
    says = JUDGES[measure.judge].says
    if measure.kernel:
        # What is asked is about a kernel's images, not their worst; but what all draws agree on, more may not,
        # and the worst of them may have been missed.
        return "upper" if measure.judge in ("unanimous", "worst") else "exact"
    if says == "decides":
        return "lower" if np.isnan(values).any() else "exact"
    # An attack that misses violations overstates R and understates D, and so does a mean that is not the worst.
    return "upper" if (says != "proves") != NOTIONS[measure.notion].violations_raise else "lower"
