"""Correction for looking at many tests at once: one declared family per table."""

import numpy as np
import pandas as pd


def holm(p_values: pd.Series) -> pd.Series:
    """Holm's (1979) corrected p-values over one declared family; null where there was no test.

    Below α they keep the chance of any false claim in the family below α.
    """
    ordered = p_values.dropna().astype(float).sort_values(kind="stable")
    corrected = np.maximum.accumulate(ordered * np.arange(len(ordered), 0, -1))
    return corrected.clip(upper=1).reindex(p_values.index)


def benjamini_hochberg(p_values: pd.Series) -> pd.Series:
    """Benjamini and Hochberg's (1995) corrected p-values over one declared family; null where there was no test.

    Below α they keep the expected share of false ones among the claims below α.
    """
    ordered = p_values.dropna().astype(float).sort_values(kind="stable")
    largest_first = (ordered * len(ordered) / np.arange(1, len(ordered) + 1))[::-1]
    return np.minimum.accumulate(largest_first).clip(upper=1).reindex(p_values.index)
