"""What is there and what is missing; and how far attacks and certificates are from behaving like the truth."""

import pandas as pd

from deltaball.base.statuses import STATUSES
from deltaball.study.notions import NOTIONS


def completeness(networks: pd.DataFrame, distinct: pd.DataFrame, robustness: pd.DataFrame) -> pd.DataFrame:
    """Per grid: networks planned in all and by status, measured, and the accuracies of the `distinct` ones."""
    measured = networks["network_id"].isin(robustness["network_id"])
    rows = []
    for grid, members in networks.groupby("grid", sort=False):
        accuracy = members.loc[members["network_id"].isin(distinct["network_id"]), "test_accuracy"]
        rows.append(
            {
                "grid": grid,
                "dataset": members["dataset"].iloc[0],
                "method": members["method"].iloc[0],
                "architecture": members["architecture"].iloc[0],
                "networks": len(members),
                # `planned` counts what is still to be trained.
                **{status: int((members["status"] == status).sum()) for status in STATUSES},
                "measured": int(measured[members.index].sum()),
                "median_accuracy": accuracy.median(),
                "best_accuracy": accuracy.max(),
                "share_above_85": (accuracy >= 0.85).sum() / max(len(accuracy), 1),
            }
        )
    return pd.DataFrame(rows)


def monotonicity(measured: pd.DataFrame) -> pd.DataFrame:
    """How often an estimate does what the truth never does when the ball grows: R rises, or D or M falls.

    A single-step attack can overshoot, so it may miss at a large δ what it found at a small one; a certificate may
    relax a unit in another way. Per data set, notion, γ, norm and attack or certificate: neighbouring pairs of each
    network's δ's, exceptions among them, the largest one.
    """
    rows = []
    keys = ["dataset", "notion", "gamma", "norm", "attack", "certificate"]
    for key, members in measured.groupby(keys, sort=False, dropna=False):
        named = dict(zip(keys, key, strict=True))
        steps = members.sort_values("delta").groupby("network_id")["estimate"].diff().dropna()
        wrong = steps if NOTIONS[named["notion"]].falls else -steps
        rows.append(
            {
                **named,
                "pairs": len(steps),
                "exceptions": int((wrong > 0).sum()),
                "largest_exception": float(wrong.clip(lower=0).max()) if len(wrong) else 0.0,
            }
        )
    return pd.DataFrame(rows, columns=[*keys, "pairs", "exceptions", "largest_exception"])
