"""How many more independent trainings would decide a claim that the scorecard leaves undecided.

A part's standard error is read off its p-value and shrinks with the root of the number of independent trainings. What
is told is the number with which a test would reject in four of five repetitions, if the effect is the one observed;
nothing is said of effects that are not there, or that are too small to count.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from scipy import special

from deltaball.analysis.scorecard import ALPHA, VERDICTS, ends, value_of, verdict_of_parts

POWER = 0.8
# So many times the trainings there are: more would be a guess.
FARTHEST = 100


def side(effect: float, claim: Mapping[str, Any], values: Mapping[str, float]) -> str | None:
    """The verdict that an effect known without error would bring; None where it is too small to count."""
    low, high = ends(claim, values)
    if not low <= effect <= high:
        return "contradicted"
    return "supported" if abs(effect) >= value_of(claim.get("smallest", 0.0), values) else None


def trainings_needed(p: float, trainings: int, tests: int) -> float:
    """Independent trainings with which a test of the same effect rejects with probability `POWER`.

    `p` is the test's own two-sided p-value with `trainings` of them; of `tests` tests together (Bonferroni's bound of
    Holm's correction). Infinite where the effect lies on the threshold.
    """
    observed = -special.stdtrit(max(trainings - 1, 1), p / 2)
    if not observed > 0:
        return math.inf
    needed = special.ndtri(1 - ALPHA / (2 * tests)) + special.ndtri(POWER)
    return trainings * (needed / observed) ** 2


def more_trainings(
    parts: Sequence[Mapping[str, Any]], claim: Mapping[str, Any], values: Mapping[str, float], tests: int
) -> tuple[int, str] | None:
    """How many more trainings would decide an undecided claim, and how, were all effects as they are observed.

    `parts` are the claim's rows of the scorecard, `tests` the number of tests in it. None where nothing can be said:
    no part is tested on independent trainings, effects are too small to count, or parts disagree for good.
    """
    needed = [_needed(row, claim, values, tests) for row in parts]
    there = max((int(row["trajectories"]) for row in parts if not pd.isna(row["trajectories"])), default=0)
    for more in sorted({math.ceil(share * there) for share, _ in needed if math.isfinite(share)}):
        verdicts = [verdict if share * there <= more else "undecided" for share, verdict in needed]
        decided = verdict_of_parts(claim["over"], {one: verdicts.count(one) for one in VERDICTS[:3]}, len(parts))
        if decided != "undecided":
            return (more, decided) if 0 < more <= FARTHEST * there else None
    return None


def _needed(
    row: Mapping[str, Any], claim: Mapping[str, Any], values: Mapping[str, float], tests: int
) -> tuple[float, str]:
    """How many times the trainings a part has would have to be added, and the verdict on it then."""
    if row["verdict"] != "undecided":
        return 0.0, row["verdict"]
    untested = pd.isna(row["effect"]) or pd.isna(row["p"]) or pd.isna(row["trajectories"])
    verdict = None if untested else side(row["effect"], claim, values)
    if verdict is None or row["trajectories"] < 2:
        return math.inf, "undecided"
    return max(trainings_needed(row["p"], int(row["trajectories"]), tests) / row["trajectories"] - 1, 0.0), verdict
