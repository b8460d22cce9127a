"""How long the statistics of the paper's study take: its 14,913 planned networks with six measures each, all simulated.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/analysing.py [STUDY]

Prints processor seconds per table, and the peak of memory. Results are written to a temporary folder and removed.
"""

import inspect
import resource
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from deltaball.analysis import writing
from deltaball.estimation.estimates import described
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.study.notions import NOTIONS
from deltaball.tables import columns, frames


def simulated_tables(plan: Plan, seed: int = 0) -> dict[str, pd.DataFrame]:
    """networks, robustness, outcomes, curves and convergence of a study in which everything was trained and measured.

    Accuracy rises with learning rate and epochs and differs by trajectory; R falls with accuracy and width.
    """
    generator = np.random.default_rng(seed)
    networks = frames.networks(plan, [])
    trajectories = networks["trajectory_id"].astype("category").cat.codes.to_numpy()
    own = generator.normal(size=trajectories.max() + 1)[trajectories]
    speed = networks["learning_rate"].fillna(0.01).astype(float).clip(upper=0.05) * networks["epochs"].fillna(
        10
    ).astype(float)
    ceiling = networks["dataset"].map({"mnist": 0.985, "fashion_mnist": 0.9}).fillna(0.75)
    accuracy = (ceiling - 0.3 * np.exp(-30 * speed) + 0.005 * own).clip(0.1, 0.999)
    networks = networks.assign(
        status="trained",
        test_accuracy=accuracy,
        train_accuracy=(accuracy + 0.01).clip(upper=1),
        test_loss=1 - accuracy,
        sparsity=networks["proportion"].fillna(0.0).astype(float),
        sparsity_total=networks["proportion"].fillna(0.0).astype(float),
        trunk_accuracy=accuracy.where(networks["method"] == "imp") + 0.002,
        rhat_max=1 + generator.exponential(0.05, len(networks)),
        ess_min=generator.uniform(10, 400, len(networks)),
        acceptance=0.8,
        divergences=0,
        data_sha256="0" * 64,
        software="simulated",
        device="simulated",
    )
    capacity = np.log2(networks["parameters"].to_numpy(float))
    latent = 2 - 3 * accuracy.to_numpy() - 0.05 * (capacity - capacity.mean()) + 0.1 * own
    rows, values = [], []
    for index, network in enumerate(plan.networks):
        for one, samples in plan.asked_of(network).items():
            share = 1 / (1 + np.exp(-2 * latent[index] + 20 * one.delta))
            found = (generator.random(samples) < share).astype(np.float32)
            estimate = float(found.mean())
            if NOTIONS[one.notion].quantity == "D":
                found, estimate = 1 - found, 1 - estimate
            rows.append(
                {
                    "network_id": network.id,
                    **described(one),
                    "samples": samples,
                    "estimate": estimate,
                    "trunk_estimate": estimate + 0.005 if network.trunk else np.nan,
                    "lower": max(0.0, estimate - 0.05),
                    "upper": min(1.0, estimate + 0.05),
                    "epsilon": one.epsilon,
                    "confidence": one.confidence,
                    "inequality": "hoeffding",
                    "side": "upper",
                    "tight_lower": max(0.0, estimate - 0.03),
                    "tight_upper": min(1.0, estimate + 0.03),
                    "tight_inequality": "clopper_pearson",
                }
            )
            values.append(found)
    robustness = pd.DataFrame(rows).reindex(columns=list(columns.ROBUSTNESS)).astype(columns.ROBUSTNESS)
    return {
        "networks": networks,
        "robustness": robustness,
        "outcomes": robustness[["network_id", "measure"]].assign(values=values),
        "curves": pd.DataFrame(columns=list(columns.CURVES)).astype(columns.CURVES),
        "convergence": pd.DataFrame(columns=list(columns.CONVERGENCE)).astype(columns.CONVERGENCE),
    }


def main() -> None:
    study = Path(sys.argv[1] if len(sys.argv) > 1 else "studies/paper.yaml")
    plan = loading.planned(study)
    with tempfile.TemporaryDirectory() as folder:
        plan.study.__dict__["results"] = folder
        for name, table in simulated_tables(plan).items():
            frames.write(table, plan.study.folder / f"{name}.parquet")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds: dict[str, float] = {}
        started = time.process_time()
        with mock.patch.multiple(writing, **{name: _timed(getattr(writing, name), seconds) for name in STEPS}):
            writing.write_tables(plan)
        whole = time.process_time() - started
    print(f"{study}: {len(plan.networks):,} networks, simulated")
    for name in STEPS:
        print(f"  {name:24} {seconds[name]:6.1f} s")
    print(f"all tables                 {whole:6.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory                {peak / 2**20:6.2f} GiB ({before / 2**20:.2f} GiB to simulate them)")


STEPS = [name for name, step in vars(writing).items() if inspect.isfunction(step) and not name.startswith("write")]


def _timed(step, seconds):
    def run(*arguments, **named):
        started = time.process_time()
        found = step(*arguments, **named)
        seconds[step.__name__] = time.process_time() - started
        return found

    return run


if __name__ == "__main__":
    main()
