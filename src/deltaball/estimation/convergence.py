"""How estimates close in on R or D as ε falls and N grows (paper 004, Section 4.1, Figure 1)."""

import numpy as np
import pandas as pd

from deltaball.base.draws import generator
from deltaball.base.guarantees import samples_needed
from deltaball.estimation.estimates import described
from deltaball.plan.plan import Plan
from deltaball.tables import columns


def convergence(plan: Plan, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``convergence.parquet``: one per experiment × network × measure × ε × draw.

    Each draw takes the N points that ε needs (Equations 4 and 5) from the test split, without replacement; all networks
    and measures see the same draws. `whole` is the mean over all `test_points`, and `deviation` that of their outcomes
    around it. Points that an exact answer left open count as violated.
    """
    values = {
        (network_id, name): np.asarray(found, np.float64)
        for network_id, name, found in outcomes[["network_id", "measure", "values"]].itertuples(index=False)
    }
    rows = []
    for number, experiment in enumerate(plan.experiments):
        for network in experiment.networks:
            total = plan.facts[network.dataset].test
            for one in experiment.measures:
                found = np.nan_to_num(values.get((network.id, one.name), np.empty(0)))
                if len(found) < total:
                    continue
                for epsilon in experiment.epsilons:
                    samples = samples_needed(epsilon, plan.study.guarantee.confidence)
                    for draw in range(experiment.draws):
                        points = _draw(plan.study.guarantee.seed, total, samples, draw)
                        rows.append(
                            {
                                "experiment": number,
                                "network_id": network.id,
                                **described(one),
                                "epsilon": epsilon,
                                "confidence": plan.study.guarantee.confidence,
                                "samples": samples,
                                "draw": draw,
                                "estimate": found[points].mean(),
                                "test_points": total,
                                "whole": found.mean(),
                                "deviation": found.std(),
                            }
                        )
    return pd.DataFrame(rows, columns=list(columns.CONVERGENCE)).astype(columns.CONVERGENCE)


def _draw(seed: int, total: int, samples: int, draw: int) -> np.ndarray:
    return generator("convergence", seed, total, samples, draw).permutation(total)[:samples]
