"""Slopes that several tables hold: each is computed once, so that it is one number wherever it stands."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deltaball.analysis.clustered import CONFIDENCE, MANY, Estimate, Student, correlation_per_slope, slope
from deltaball.analysis.designs import ACCURACY

CR1, WILD = "CR1", "wild bootstrap"


@dataclass(frozen=True)
class Slope:
    """A coefficient and its standard error (CR1); its interval and the p-value of 0 by `inference`, CR1 or wild."""

    estimate: float
    error: float
    lower: float
    upper: float
    p: float
    inference: str

    def correlation(
        self, response: np.ndarray, term: np.ndarray, others: np.ndarray | None = None
    ) -> tuple[float, float, float]:
        """The (partial) correlation that the slope of `response` on `term` is, and its interval, cut to [-1, 1]."""
        factor = correlation_per_slope(response, term, others)
        return tuple(float(np.clip(factor * value, -1, 1)) for value in (self.estimate, self.lower, self.upper))


class Slopes:
    """What `clustered.slope` says at `CONFIDENCE`, remembered by the numbers that it was asked about."""

    def __init__(self) -> None:
        self._known: dict[bytes, Slope | None] = {}

    def of(
        self,
        response: np.ndarray,
        term: np.ndarray,
        others: np.ndarray | None,
        clusters: Sequence[object],
        few: int = MANY,
    ) -> Slope | None:
        """The slope of `response` [n] on `term` [n] beside `others` [n, k]; `clusters` [n] name what is independent.

        Clusters are to be given by their names: the bootstrap's draws go by their order, whatever the rows' is.
        """
        codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
        known = hashlib.blake2b(f"{few} {np.shape(others)}".encode(), digest_size=16)
        for values in (response, term, codes, *([] if others is None else [others])):
            known.update(np.ascontiguousarray(values))
        key = known.digest()
        if key not in self._known:
            found = slope(response, term, others, codes, few=few)
            self._known[key] = None if found is None else _told(found)
        return self._known[key]

    def on_accuracy(self, members: pd.DataFrame) -> Slope | None:
        """The slope of an estimate on test accuracy alone, among networks that are rows."""
        return self.of(members["estimate"].to_numpy(), members[ACCURACY].to_numpy(), None, members["cluster"])


def _told(found: Estimate) -> Slope:
    inference = CR1 if isinstance(found, Student) else WILD
    return Slope(found.estimate, found.error, *found.interval(CONFIDENCE), found.p(0), inference)
