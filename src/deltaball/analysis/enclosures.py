"""Between what is proven and what the attacks leave: every network's R, D or M, enclosed."""

import pandas as pd

from deltaball.analysis.judges import decides, strongest
from deltaball.analysis.ranges import distances

KNOWN = ["network_id", "dataset", "grid", "method", "architecture", "test_accuracy"]
LEVEL = ["notion", "norm", "gamma", "delta"]
BOTH_SIDES = ["samples", "confidence", "certified", "attacked", "open", "lower", "upper"]
ROUNDING = 1e-9  # what a gap may be where both sides agree
COLUMNS = [*KNOWN, *LEVEL, *BOTH_SIDES, "gap", "epsilon", "fgsm", "undecided"]


def enclosures(networks: pd.DataFrame, robustness: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """One row per network × notion × norm × γ × δ that has both sides, networks in the plan's order.

    R and M lie between `certified` and `attacked`, D between `attacked` and `certified`; `gap` is the distance of the
    two. Beside them: `epsilon`, the ±ε of the measures taken at this very δ (null where a margin curve adds it),
    `fgsm`, what FGSM alone would have said, and `undecided`, the points that an exact answer left open.
    """
    both = pd.concat([curves.dropna(subset=["attacked", "certified"]), _margins(robustness)], ignore_index=True)
    keys = ["network_id", *LEVEL]
    decided = decides(robustness["certificate"])
    beside = (
        robustness.groupby(keys, dropna=False)["epsilon"].max().reset_index(),
        robustness.loc[robustness["attack"] == "fgsm", [*keys, "estimate"]].rename(columns={"estimate": "fgsm"}),
        robustness[decided].groupby(keys, dropna=False)["undecided"].min().reset_index(),
    )
    table = networks[KNOWN].merge(both, on="network_id", how="inner", validate="one_to_many")
    for found in beside:
        table = table.merge(found, on=keys, how="left", validate="many_to_one")
    # An empty part of the union would make its counts fractions.
    return table.astype({"samples": "int64"}).assign(gap=(table["attacked"] - table["certified"]).abs())[COLUMNS]


def _margins(robustness: pd.DataFrame) -> pd.DataFrame:
    """M of the strongest attack and of the strongest certificate, in the form of curves.parquet, which has none.

    Which is strongest is known beforehand, never read from the values: each end then keeps its α/2.
    """
    keys = ["network_id", *LEVEL]
    rows = robustness[distances(robustness)]
    above, below = (strongest(rows[rows[side].notna()], side, keys) for side in ("attack", "certificate"))
    both = above.merge(below, on=keys, how="inner", suffixes=("", "_below"))
    return both[keys].assign(
        samples=both[["samples", "samples_below"]].min(axis=1),
        confidence=both[["confidence", "confidence_below"]].min(axis=1),
        attacked=both["estimate"],
        certified=both["estimate_below"],
        lower=both["tight_lower_below"],
        upper=both["tight_upper"],
    )
