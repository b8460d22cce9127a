"""Tables of simulated studies whose truth is known, for tests of statistics and for benchmarks of them."""

from typing import Any

import numpy as np
import pandas as pd

from deltaball.study.grids import all_axes
from deltaball.tables.columns import RESULTS, ROBUSTNESS


def simulated(
    method: str = "sgd",
    dataset: str = "mnist",
    trajectories: int = 60,
    slope: float = 0.0,
    capacity: float = 0.0,
    duration: float = 0.0,
    noise: float = 0.01,
    level: float = 0.6,
    accuracy: float = 0.9,
    spread: float = 0.02,
    seed: int = 0,
    **columns: Any,
) -> pd.DataFrame:
    """Rows of R by FGSM, as `tables.measured` has them: trajectories of three checkpoints, whose truth is known.

    R = level + slope × (accuracy - its mean) + capacity × log2(parameters) + duration × log2(epochs), each centred, and
    normal noise, half of its variance the trajectory's. Accuracies scatter by `spread`, most of it the trajectory's.
    """
    generator = np.random.default_rng([seed, *map(ord, method + dataset)])
    trajectory, checkpoint = np.divmod(np.arange(3 * trajectories), 3)

    def scattered(size: float, share: float) -> np.ndarray:
        own, shared = generator.normal(size=len(trajectory)), generator.normal(size=trajectories)[trajectory]
        return size * (np.sqrt(share) * shared + np.sqrt(1 - share) * own)

    wide, long = trajectory % 3, 1 + checkpoint
    apart = scattered(spread, 0.8)
    estimate = level + slope * apart + capacity * (wide - 1) + duration * (long - 2) + scattered(noise, 0.5)
    along = "posterior_samples" if method == "hmc" else "epochs"
    return pd.DataFrame(
        {
            **dict.fromkeys([*ROBUSTNESS, *RESULTS, *all_axes()]),
            "perturbation_size": np.nan,
            "network_id": [f"{method} {dataset} {index}" for index in range(len(trajectory))],
            "trajectory_id": [f"{method} {dataset} {one}" for one in trajectory],
            "cluster": [f"{method} {dataset} {one}" for one in trajectory],
            "trunk_id": None,
            "grid": method,
            "dataset": dataset,
            "method": method,
            "objective": "cross_entropy",
            "architecture": "fcn",
            "measure": "class_change_linf_0.1_fgsm",
            "notion": "class_change",
            "norm": "linf",
            "attack": "fgsm",
            "delta": 0.1,
            "gamma": np.nan,
            "epsilon": 0.05,
            "confidence": 0.95,
            "samples": 738,
            "side": "upper",
            "status": "trained",
            "depth": 1,
            "width": 64 * 2**wide,
            "activation": np.array(["relu", "tanh"])[trajectory // 3 % 2],
            "parameters": 50_000 * 2**wide,
            along: 5 * 2**long,
            "test_accuracy": accuracy + apart,
            "train_accuracy": accuracy + apart + 0.02,
            "estimate": estimate,
            "trunk_estimate": np.nan,
            "trunk_accuracy": np.nan,
            "rhat_max": 1.0,
            "ess_min": 500.0,
        }
    ).assign(**columns)


def pruned(table: pd.DataFrame, effect: float = 0.0, cost: float = 0.0, noise: float = 0.003) -> pd.DataFrame:
    """Dense networks pruned to one half and by 99 %, which changes R by `effect` and, at 99 %, accuracy by -`cost`."""
    generator = np.random.default_rng(0)
    halves = []
    for proportion in (0.5, 0.99):
        changed = table["estimate"] + effect + noise * generator.normal(size=len(table))
        lost = cost * (proportion > 0.9) + noise * generator.normal(size=len(table))
        halves.append(
            table.assign(
                method="imp",
                network_id=table["network_id"] + f" {proportion}",
                proportion=proportion,
                iterations=1,
                trunk_id=table["trajectory_id"],
                trunk_estimate=table["estimate"],
                trunk_accuracy=table["test_accuracy"],
                estimate=changed,
                test_accuracy=table["test_accuracy"] - lost,
            )
        )
    return pd.concat(halves, ignore_index=True)
