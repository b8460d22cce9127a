"""Correction for looking at many tests at once: one declared family per table."""

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests


def holm(p_values: pd.Series) -> pd.Series:
    """Holm's (1979) corrected p-values over one declared family; null where there was no test.

    Below α they keep the chance of any false claim in the family below α.
    """
    return _corrected(p_values, "holm")


def benjamini_hochberg(p_values: pd.Series) -> pd.Series:
    """Benjamini and Hochberg's (1995) corrected p-values over one declared family; null where there was no test.

    Below α they keep the expected share of false ones among the claims below α.
    """
    return _corrected(p_values, "fdr_bh")


def _corrected(p_values: pd.Series, method: str) -> pd.Series:
    corrected = pd.Series(np.nan, index=p_values.index)
    tested = p_values.notna()
    if tested.any():
        corrected[tested] = multipletests(p_values[tested].astype(float), method=method)[1]
    return corrected
