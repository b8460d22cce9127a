"""Which test points are drawn."""

import numpy as np

from deltaball.base.draws import generator
from deltaball.data.catalogue import DatasetFacts


def draw_points(facts: DatasetFacts, samples: int, seed: int) -> np.ndarray:
    """Indices [samples] into the test split: the first of one permutation per data set and seed.

    A larger N therefore only adds points, and every network sees the same ones.
    """
    order = generator("test points", facts.name, facts.fingerprint, seed).permutation(facts.test)
    if samples > len(order):
        raise ValueError(f"{samples} points asked of a test split of {len(order)}")
    return order[:samples]
