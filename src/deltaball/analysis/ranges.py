"""In which range the outcomes of a measure lie: a distance's in [0, δ], all others' in [0, 1]."""

import pandas as pd

from deltaball.study.notions import NOTIONS


def highest(rows: pd.DataFrame) -> pd.Series:
    """The largest value that an outcome of each row's measure can have."""
    cut_at = rows["delta"]
    if "perturbation_size" in rows:  # of a ball that a kernel fills; statistics of attacks do without
        cut_at = cut_at.fillna(rows["perturbation_size"])
    return cut_at.where(distances(rows), 1.0)


def distances(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of a distance."""
    return rows["notion"].isin([notion.name for notion in NOTIONS.values() if notion.is_distance])
