"""How much do networks differ that differ in their seed alone?"""

import numpy as np
import pandas as pd
from scipy import stats

from deltaball.analysis.clustered import CONFIDENCE
from deltaball.study.grids import all_axes

WHERE = ["dataset", "method", "architecture", "measure"]
COLUMNS = [*WHERE, "settings", "seeds", "networks", "sd", "lower", "upper", "share_of_variance", "confidence"]


def replicates(measured: pd.DataFrame) -> pd.DataFrame:
    """Per data set × method × architecture × measure, and accuracy: the standard deviation over seeds, pooled.

    `settings` are combinations of the other hyper-parameters that have several seeds. The interval is χ²'s with as
    many degrees of freedom as the seeds of independent settings leave: checkpoints of a trajectory count once.
    `share_of_variance` is that of the seeds in the whole variance of the group. Empty where no grid has a seed axis.
    """
    rows = []
    for (dataset, method, architecture), members in measured.groupby(["dataset", "method", "architecture"], sort=False):
        alike = [("test_accuracy", "test_accuracy", members.drop_duplicates("network_id"))]
        alike += [(measure, "estimate", one) for measure, one in members.groupby("measure", sort=False)]
        for measure, value, chosen in alike:
            found = _spread(chosen, value)
            if found:
                rows.append({**dict(zip(WHERE, (dataset, method, architecture, measure), strict=True)), **found})
    return pd.DataFrame(rows, columns=COLUMNS).assign(confidence=CONFIDENCE)


def _spread(members: pd.DataFrame, value: str) -> dict[str, float]:
    if members["seed"].nunique() < 2:
        return {}
    others = [axis for axis in all_axes() if axis != "seed" and members[axis].notna().any()]
    seeds = members.groupby(others, dropna=False, sort=False)["seed"].transform("nunique")
    several = members[seeds > 1]
    if several.empty:
        return {}
    within = several.groupby(others, dropna=False, sort=False)[value]
    freedom = len(several) - within.ngroups
    variance = float(((several[value] - within.transform("mean")) ** 2).sum()) / freedom
    # Checkpoints and prunings of one run agree more than runs do: only runs are counted.
    runs = several["cluster"].nunique()
    independent = max(1, round(freedom * runs / len(several)))
    tail = (1 - CONFIDENCE) / 2
    lower, upper = np.sqrt(variance * independent / stats.chi2.ppf([1 - tail, tail], independent))
    whole = float(members[value].var(ddof=1))
    return {
        "settings": within.ngroups,
        "seeds": several["seed"].nunique(),
        "networks": len(several),
        "sd": np.sqrt(variance),
        "lower": lower,
        "upper": upper,
        "share_of_variance": variance / whole if whole > 0 else np.nan,
    }
