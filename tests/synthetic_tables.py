"""Tables as a finished study leaves them, with values drawn at random."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from builders import grid, planned

from deltaball.estimation.convergence import convergence
from deltaball.estimation.curves import curves
from deltaball.plan.measures import Measure
from deltaball.plan.plan import Plan
from deltaball.tables import columns, frames

MEASURES = [
    {"notion": "class_change", "delta": [0.1, 0.05]},
    {"notion": "variation_above", "delta": 0.1, "gamma": [0.3, 0.5]},
]


ON_MNIST5K = [
    grid(name="one", width=[64, 128, 256], learning_rate=[0.1, 0.01]),
    grid("cnn", name="two", filters=[4, 8], learning_rate=[0.1, 0.01, 0.001]),
    grid("fcn", "imp", name="four", proportion=[0.5, 0.9], iterations=[1, 2], width=[64, 128, 256], epochs=5),
]
ON_CIFAR10 = grid("vgg", name="three", dataset="cifar10", filters=[4, 8], learning_rate=[0.1, 0.01, 0.001])


def one_data_set(folder: Path, **changed: Any) -> Plan:
    return planned(*ON_MNIST5K, **{"measures": MEASURES, "results": str(folder), **changed})


def two_data_sets(folder: Path, **changed: Any) -> Plan:
    return planned(*ON_MNIST5K, ON_CIFAR10, **{"measures": MEASURES, "results": str(folder), **changed})


def both_sides(folder: Path, **changed: Any) -> Plan:
    """A study with several attacks, certificates of some networks, margins and a convergence experiment."""
    deltas = [0.03, 0.06, 0.1]
    some = {"grid": ["one", "two"], "learning_rate": 0.1}
    measures = [
        {"notion": "class_change", "delta": deltas, "attack": ["fgsm", "pgd"]},
        {"notion": "class_change", "delta": deltas, "certificate": ["crown", "exact"], "only": some},
        {"notion": "softmax_variation", "delta": deltas, "attack": ["fgsm", "pgd"]},
        {"notion": "softmax_variation", "delta": deltas, "certificate": "crown", "only": some},
        {"notion": "variation_above", "delta": 0.06, "gamma": 0.5, "attack": "fgsm", "certificate": "crown"},
        {"notion": "margin", "delta": 0.2, "attack": "fmn", "certificate": ["ibp", "crown"], "only": some},
    ]
    experiment = {"notion": "class_change", "delta": 0.06, "attack": "pgd", "certificate": ["crown", "exact"]}
    of_two = {"epsilon": [0.2, 0.1, 0.07, 0.05, 0.045], "draws": 50}
    convergence = [
        {"measure": experiment | {"only": some | {"grid": "one", "width": 64, "epochs": 5}}, **of_two},
        {"measure": experiment | {"only": some | {"grid": "two", "filters": 4, "epochs": 5}}, **of_two},
    ]
    grids = [
        grid(name="one", width=[64, 128, 256], learning_rate=[0.1, 0.01]),
        grid("cnn", name="two", filters=[4, 8], learning_rate=[0.1, 0.01]),
        grid("fcn", "imp", name="four", proportion=[0.5, 0.9], width=[64, 128, 256], epochs=5),
    ]
    settings = {"measures": measures, "convergence": convergence, "grids": grids, "results": str(folder), **changed}
    return planned(*settings.pop("grids"), **settings)


def synthetic_outcomes(one: Measure, distance: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """Outcomes [N] of points whose closest violation is `distance` [N] away: the weaker a judge, the farther from it.

    `luck` [N] in [0, 1] is the points' own; an exact answer leaves the unluckiest of the narrow ones open.
    """
    if one.kernel:
        return np.rint(100 * (1 - 0.2 * luck)) / 100
    seen = {"fgsm": 1 + 0.8 * luck, "pgd": 1 + 0.04 * luck, "fmn": 1 + 0.02 * luck}
    seen |= {"crown": 1 - 0.45 * luck, "ibp": 1 - 0.9 * luck, "exact": np.ones(len(luck)), "uniform": 2 + 6 * luck}
    far = distance * seen[one.judge.partition("-")[0]]
    if one.notion == "margin":
        return np.minimum(far, one.delta) if one.attack else np.where(far > one.delta, one.delta, 0.0)
    variation = np.clip(0.45 * one.delta / far, 0, 1)
    if one.notion == "softmax_variation":
        return variation
    robust = (variation < one.gamma if one.notion == "variation_above" else far > one.delta).astype(float)
    if one.judge == "exact":
        robust[(luck > 0.95) & (np.abs(distance - one.delta) < 0.2 * one.delta)] = np.nan
    return robust


def write_tables(plan: Plan, share: float = 1.0) -> None:
    """Tables as a run would leave them in which the first `share` of the networks is finished, values drawn."""
    generator = np.random.default_rng(0)
    done = plan.networks[: round(share * len(plan.networks))]
    facts = pd.DataFrame(
        {
            "network_id": [network.id for network in done],
            "sparsity": 0.0,
            "train_accuracy": 0.9,
            "test_accuracy": generator.uniform(0.5, 1, len(done)),
            "test_loss": 0.3,
            "trunk_accuracy": [0.9 if network.trunk else None for network in done],
            "status": "trained",
            "data_sha256": [plan.facts[network.dataset].fingerprint for network in done],
            "software": "torch",
            "device": "cpu",
        }
    )
    rows, lists = [], []
    for network in done:
        total = max([one.samples for one in plan.measures] + list(plan.asked_of(network).values()))
        distance = generator.lognormal(np.log(generator.uniform(0.03, 0.15)), 0.7, total)
        luck = generator.uniform(size=total)
        for one, samples in plan.asked_of(network).items():
            values = synthetic_outcomes(one, distance, luck)[:samples]
            lists.append({"network_id": network.id, "measure": one.name, "values": values})
            if one not in plan.measures_of(network):
                continue
            known = np.nan_to_num(values[: one.samples])
            half = 0.6 * one.epsilon
            rows.append(
                {
                    "network_id": network.id,
                    "measure": one.name,
                    "notion": one.notion,
                    "norm": one.norm,
                    "delta": one.delta,
                    "gamma": one.gamma,
                    "attack": one.attack,
                    "certificate": one.certificate,
                    "sampling": one.sampling,
                    "perturbation": one.kernel and one.kernel.label,
                    "perturbation_size": one.kernel and one.kernel.size,
                    "samples": one.samples,
                    "estimate": known.mean(),
                    "trunk_estimate": 0.9 * known.mean() if network.trunk else None,
                    "lower": max(0, known.mean() - one.epsilon),
                    "upper": min(one.highest, known.mean() + one.epsilon),
                    "epsilon": one.epsilon,
                    "confidence": one.confidence,
                    "inequality": "hoeffding",
                    "side": "lower" if bool(one.attack) == (one.notion == "softmax_variation") else "upper",
                    "tight_lower": max(0, known.mean() - half),
                    "tight_upper": min(one.highest, known.mean() + half),
                    "tight_inequality": "betting" if "above" not in one.notion else "clopper_pearson",
                    "undecided": int(np.isnan(values).sum()),
                    "no_gradient": 0 if one.attack else None,
                }
            )
    outcomes = pd.DataFrame(lists, columns=["network_id", "measure", "values"])
    rows = pd.DataFrame(rows, columns=list(columns.ROBUSTNESS))
    folder = plan.study.folder
    frames.write(outcomes, folder / "outcomes.parquet")
    frames.write(frames.networks(plan, [facts] if len(facts) else []), folder / "networks.parquet")
    frames.write(frames.robustness(plan, [rows]), folder / "robustness.parquet")
    frames.write(curves(plan, outcomes), folder / "curves.parquet")
    frames.write(convergence(plan, outcomes), folder / "convergence.parquet")
