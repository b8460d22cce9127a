"""The tests of paper 001's empirical claims: how networks of different trainings compare under attacks by definition.

Every number is a mean over independent trainings, or a sum of such means with weights. Its error has two sources: the
trainings (Student's t, over trajectories), and the N test points, which all trainings share. The variance of the latter
is p (1 - p) / N: of a mean alone with p the hypothesis (Wilson), else with p the mean after two more successes and
failures (Agresti and Caffo). So a mean of 0 or 1 is not without error. Sums treat the points of each mean as drawn
anew; that overstates the error wherever outcomes of different networks go together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import special

from deltaball.analysis.claims import Evidence, Part
from deltaball.analysis.clustered import Estimate, Student
from deltaball.analysis.judges import display_name, judge_of
from deltaball.analysis.trainings import title
from deltaball.study.notions import NOTIONS

FEWEST = 2  # trainings
AGREED = 1e-9  # rounding, of an estimate that is the hypothesis
ADDED = 2  # successes, and as many failures
AS_MANY = 1e6  # degrees of freedom of an error that has none to estimate

PAPERS_SIZE, LARGER = "paper", "larger"


@dataclass(frozen=True)
class Mean:
    """A mean over independent trainings: its value, both variances, and the degrees of freedom of the first."""

    value: float
    of_trainings: float
    of_points: float
    freedom: int
    samples: float = np.inf


@dataclass(frozen=True)
class Level:
    """A mean that is tested alone, with the variance that the points would have if the hypothesis were true."""

    estimate: float
    of_trainings: float
    samples: float
    freedom: float

    def p(self, null: float) -> float:
        error = np.sqrt(self.of_trainings + max(null * (1 - null), 0) / self.samples)
        distance = abs(self.estimate - null)
        if distance < AGREED or error == 0:
            return float(distance < AGREED)
        return float(2 * special.stdtr(self.freedom, -distance / error))

    def interval(self, confidence: float) -> tuple[float, float]:
        """The two solutions x of (estimate - x)² = t² (variance of trainings + x (1 - x) / N)."""
        squared = special.stdtrit(self.freedom, (1 - confidence) / 2) ** 2
        a, half = 1 + squared / self.samples, self.estimate + squared / (2 * self.samples)
        root = np.sqrt(max(half**2 - a * (self.estimate**2 - squared * self.of_trainings), 0))
        return float((half - root) / a), float((half + root) / a)


def mean(rows: pd.DataFrame, column: str = "robust") -> Mean | None:
    """The mean of a column over trajectories; None where there are fewer than two of them."""
    each = rows.groupby("cluster")[column].mean()
    if len(each) < FEWEST:
        return None
    value = float(each.mean())
    if column == "robust":
        samples = float(rows["samples"].min())
        share = (value * samples + ADDED) / (samples + 2 * ADDED)
        points = share * (1 - share) / (samples + 2 * ADDED)
        return Mean(value, float(each.var(ddof=1)) / len(each), points, len(each) - 1, samples)
    return Mean(value, float(each.var(ddof=1)) / len(each), 0.0, len(each) - 1)


def level(one: Mean | None) -> Level | None:
    """A mean alone; None where it is missing."""
    whole = combined([one], [1])
    return whole and Level(one.value, one.of_trainings, one.samples, whole.freedom)


def combined(means: Sequence[Mean | None], weights: Sequence[float]) -> Student | None:
    """The weighted sum of means; degrees of freedom by Welch and Satterthwaite. None where one is missing."""
    if any(one is None for one in means):
        return None
    value = sum(weight * one.value for one, weight in zip(means, weights, strict=True))
    parts = [(weight**2 * one.of_trainings, one.freedom) for one, weight in zip(means, weights, strict=True)]
    points = sum(weight**2 * one.of_points for one, weight in zip(means, weights, strict=True))
    variance = points + sum(part for part, _ in parts)
    scatter = sum(part**2 / freedom for part, freedom in parts)
    freedom = min(variance**2 / scatter, AS_MANY) if scatter > 0 else AS_MANY
    return Student(float(value), float(np.sqrt(variance)), freedom)


def _security(
    evidence: Evidence,
    trainings: Sequence[str],
    notions: Sequence[str],
    delta: float | None = None,
    datasets: Sequence[str] | None = None,
    size: str = PAPERS_SIZE,
    sampled: bool = False,
) -> Iterator[Part]:
    rows = evidence.sampled if sampled else evidence.judged
    for where, there in _situations(rows, notions, delta, size):
        if datasets is not None and where.dataset not in datasets:
            continue
        for training, members in there.groupby("training", sort=False):
            if training in trainings:
                name = f"{where}, {title(training)}"
                yield _part(name, where, members, level(mean(members)))


def _security_difference(
    evidence: Evidence,
    trainings: Sequence[str],
    against: Sequence[str],
    notions: Sequence[str],
    delta: float | None = None,
    size: str = PAPERS_SIZE,
) -> Iterator[Part]:
    for where, there in _situations(evidence.judged, notions, delta, size):
        yield from _differences(there, trainings, against, "robust", where)


def _own_difference(
    evidence: Evidence, pairs: Mapping[str, Sequence[str]], against: Sequence[str], delta: float | None = None
) -> Iterator[Part]:
    for training, notions in pairs.items():
        yield from _security_difference(evidence, [training], against, notions, delta)


def _definition_difference(
    evidence: Evidence,
    trainings: Sequence[str],
    notions: Sequence[str],
    against: Sequence[str],
    delta: float | None = None,
) -> Iterator[Part]:
    rows = _sized(evidence.judged, delta, PAPERS_SIZE)
    for (dataset, network, radius), there in rows.groupby(["dataset", "network", "delta"], sort=False):
        for training, first, second in product(trainings, notions, against):
            sides = [there[(there["training"] == training) & (there["notion"] == one)] for one in (first, second)]
            if any(one.empty for one in sides):
                continue
            shorts = [NOTIONS[one].short_title for one in (first, second)]
            name = f"{dataset}, {network}, δ {radius:g}, {title(training)}: {shorts[0]} less {shorts[1]}"
            found = combined([mean(one) for one in sides], [1, -1])
            yield _part(name, Where(dataset, network, None, ""), pd.concat(sides), found)


def _average_difference(
    evidence: Evidence, trainings: Sequence[str], against: Sequence[str], delta: float | None = None
) -> Iterator[Part]:
    rows = _sized(evidence.judged, delta, PAPERS_SIZE)
    for (dataset, network, radius), there in rows.groupby(["dataset", "network", "delta"], sort=False):
        for one, other in product(trainings, against):
            kinds = [there[there["training"] == training] for training in (one, other)]
            shared = [
                name for name in there["notion"].unique() if all((kind["notion"] == name).any() for kind in kinds)
            ]
            if not shared:
                continue
            members = [kind[kind["notion"] == notion] for kind in kinds for notion in shared]
            weights = [sign / len(shared) for sign in (1, -1) for _ in shared]
            told = ", ".join(NOTIONS[notion].short_title for notion in shared)
            name = f"{dataset}, {network}, δ {radius:g}, mean of {told}: {title(one)} less {title(other)}"
            found = combined([mean(part) for part in members], weights)
            yield _part(name, Where(dataset, network, None, ""), pd.concat(members), found)


def _accuracy_difference(
    evidence: Evidence, trainings: Sequence[str], against: Sequence[str], size: str = PAPERS_SIZE
) -> Iterator[Part]:
    rows = evidence.judged[evidence.judged["size"] == size].drop_duplicates("network_id")
    for (dataset, network), there in rows.groupby(["dataset", "network"], sort=False):
        yield from _differences(there, trainings, against, "test_accuracy", Where(dataset, network, None, ""))


TRAINING_TESTS: dict[str, Callable[..., Iterator[Part]]] = {
    "security": _security,
    "security_difference": _security_difference,
    "own_difference": _own_difference,
    "definition_difference": _definition_difference,
    "average_difference": _average_difference,
    "accuracy_difference": _accuracy_difference,
}


# ------------------------------------------------------------------------------------------------- what the tests share


@dataclass(frozen=True)
class Where:
    """Which networks of which data set are looked at, and by which measure."""

    dataset: str
    network: str
    measure: str | None
    told: str

    def __str__(self) -> str:
        return ", ".join(one for one in (self.dataset, self.network, self.told) if one)


def _sized(rows: pd.DataFrame, delta: float | None, size: str) -> pd.DataFrame:
    """Of a ball of no size every constraint but CR and SCR holds: nothing is compared there."""
    return rows[(rows["size"] == size) & (rows["delta"] > 0) & ((rows["delta"] == delta) if delta else True)]


def _situations(
    rows: pd.DataFrame, notions: Sequence[str], delta: float | None, size: str
) -> Iterator[tuple[Where, pd.DataFrame]]:
    chosen = _sized(rows, delta, size)
    chosen = chosen[chosen["notion"].isin(notions)]
    for (dataset, network, measure), there in chosen.groupby(["dataset", "network", "measure"], sort=False):
        first = there.iloc[0]
        notion, by = NOTIONS[first["notion"]], display_name(judge_of(first))
        yield Where(dataset, network, measure, f"{notion.short_title}, δ {first['delta']:g}, {by}"), there


def _differences(
    there: pd.DataFrame, trainings: Sequence[str], against: Sequence[str], column: str, where: Where
) -> Iterator[Part]:
    for one, other in product(trainings, against):
        sides = [there[there["training"] == training] for training in (one, other)]
        if one == other or any(side.empty for side in sides):
            continue
        found = combined([mean(side, column) for side in sides], [1, -1])
        yield _part(f"{where}: {title(one)} less {title(other)}", where, pd.concat(sides), found)


def _part(name: str, where: Where, members: pd.DataFrame, found: Estimate | None) -> Part:
    remark = "" if found else "fewer than two independent trainings of a kind"
    return Part(name, where.dataset, where.measure, members, found, remark)
