"""How far estimates from N test points scatter, and how far they should (paper 004, Section 4.1)."""

import numpy as np
import pandas as pd

from deltaball.study.notions import NOTIONS

KNOWN = ["network_id", "dataset", "method", "architecture"]
KEYS = ["experiment", "network_id", "measure", "epsilon"]
MEASURE = ["notion", "norm", "delta", "gamma", "attack", "certificate", "confidence", "samples", "test_points"]
COLUMNS = [*KEYS, *KNOWN[1:], *MEASURE, "reach", "draws", "whole", "mean", "sd"]
COLUMNS += ["sd_independent", "overlap_factor", "sd_expected", "within_epsilon"]


def spread(networks: pd.DataFrame, draws: pd.DataFrame) -> pd.DataFrame:
    """Per experiment × network × measure × ε: mean and `sd` of the draws' estimates beside the sd expected of them.

    Means of N independent draws would have the sd deviation/√N, `sd_independent`. Draws without replacement from T
    test points overlap, which shrinks it by `overlap_factor` = √((T - N)/(T - 1)), to 0 where N = T: a small scatter
    at large N says as much about the test split as about the estimate. `reach` is ε in the measure's units (a margin
    lies in [0, δ]), and `within_epsilon` the share of the draws so close to `whole`, the mean over all T points.
    """
    rows = []
    for key, members in draws.groupby(KEYS, sort=False):
        first, estimates = members.iloc[0], members["estimate"]
        samples, total = int(first["samples"]), int(first["test_points"])
        independent = first["deviation"] / np.sqrt(samples)
        factor = np.sqrt((total - samples) / max(total - 1, 1))
        reach = first["epsilon"] * NOTIONS[first["notion"]].highest(first["delta"])
        # Rounding may carry an estimate that lies ε away, exactly, past it.
        within = (estimates - first["whole"]).abs() <= reach * (1 + 1e-9)
        rows.append(
            {
                **dict(zip(KEYS, key, strict=True)),
                **first[MEASURE],
                "reach": reach,
                "draws": len(members),
                "whole": first["whole"],
                "mean": estimates.mean(),
                "sd": estimates.std(ddof=1),
                "sd_independent": independent,
                "overlap_factor": factor,
                "sd_expected": independent * factor,
                "within_epsilon": within.mean(),
            }
        )
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in KNOWN[1:]])
    # A table without rows would have forgotten what its columns hold.
    table = table.astype({name: draws[name].dtype for name in [*KEYS, *MEASURE]})
    return table.merge(networks[KNOWN], on="network_id", how="left")[COLUMNS]
