"""In which range the outcomes of a measure lie: a distance's in [0, δ], all others' in [0, 1]."""

import pandas as pd

from deltaball.study.notions import NOTIONS


def highest(rows: pd.DataFrame) -> pd.Series:
    """The largest value that an outcome of each row's measure can have."""
    sizes = rows["delta"]
    if "perturbation_size" in rows:  # tables of balls alone have none
        sizes = sizes.fillna(rows["perturbation_size"])
    return sizes.where(distances(rows), 1.0)


def distances(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of a distance."""
    return rows["notion"].isin([notion.name for notion in NOTIONS.values() if notion.is_distance])
