"""Correction for looking at many tests at once."""

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests


def holm(p_values: pd.Series) -> pd.Series:
    """Holm's (1979) corrected p-values over one declared family; null where there was no test."""
    corrected = pd.Series(np.nan, index=p_values.index)
    tested = p_values.notna()
    if tested.any():
        corrected[tested] = multipletests(p_values[tested].astype(float), method="holm")[1]
    return corrected
