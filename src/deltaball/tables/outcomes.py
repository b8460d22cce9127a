"""How exactly outcomes are kept in outcomes.parquet: of thousands of networks they are nearly all there is to keep."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from deltaball.plan.measures import Measure
from deltaball.plan.plan import Plan
from deltaball.study.notions import NOTIONS

STEPS = 2**16 - 1  # of a variation, from 0 to 1
NEAR = 0.01  # of a step, by which a variation may miss one and still be it: a float32 cannot hold them all exactly

# As many values as variations have, so that parquet keeps a number of 16 bits for each.
DICTIONARY_BYTES = 4 * (STEPS + 1)
OPTIONS = {"compression": "zstd", "dictionary_pagesize_limit": 2 * DICTIONARY_BYTES}


def rounded(plan: Plan, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Rows of outcomes.parquet with variations in 16 bits; what is 0 or 1, a distance, or already rounded stays.

    Rounded away from the truth: an attack understates a variation and a certificate overstates it, and so they do
    afterwards (by less than 2e-5). Estimates in robustness.parquet are made before this.
    """
    by_name = {measure.name: measure for measure in plan.measures}
    pairs = zip(outcomes["measure"], outcomes["values"], strict=True)
    values = [_rounded(by_name, name, np.asarray(found, np.float32)) for name, found in pairs]
    return outcomes.assign(values=pd.Series(values, index=outcomes.index, dtype=object))


def _rounded(by_name: Mapping[str, Measure], name: str, values: np.ndarray) -> np.ndarray:
    measure = by_name.get(name)
    if measure is None or NOTIONS[measure.notion].quantity != "D":
        return values
    steps = values.astype(np.float64) * STEPS
    steps = np.ceil(steps - NEAR) if measure.certificate else np.floor(steps + NEAR)
    return (steps / STEPS).astype(np.float32)
