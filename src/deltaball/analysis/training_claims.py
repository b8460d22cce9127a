"""The tests of paper 001's empirical claims: how networks of different trainings compare under attacks by definition.

Every number is a mean over independent trainings, or a sum of such means with weights; `means` says how large its
error is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import pandas as pd

from deltaball.analysis.claims import Evidence, Part
from deltaball.analysis.clustered import Estimate
from deltaball.analysis.judges import display_name, judge_of
from deltaball.analysis.means import AT_POINTS, Mean, combined, level, mean
from deltaball.analysis.trainings import title
from deltaball.study.notions import NOTIONS

PAPERS_SIZE, LARGER = "paper", "larger"


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
                yield _part(name, where, members, level(_secure(members)))


def _security_difference(
    evidence: Evidence,
    trainings: Sequence[str],
    against: Sequence[str],
    notions: Sequence[str],
    delta: float | None = None,
    size: str = PAPERS_SIZE,
) -> Iterator[Part]:
    for where, there in _situations(evidence.judged, notions, delta, size):
        yield from _differences(there, trainings, against, _secure, where)


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
            found = combined([_secure(one) for one in sides], [1, -1])
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
            found = combined([_secure(part) for part in members], weights)
            yield _part(name, Where(dataset, network, None, ""), pd.concat(members), found)


def _accuracy_difference(
    evidence: Evidence, trainings: Sequence[str], against: Sequence[str], size: str = PAPERS_SIZE
) -> Iterator[Part]:
    rows = evidence.judged[evidence.judged["size"] == size].drop_duplicates("network_id")
    for (dataset, network), there in rows.groupby(["dataset", "network"], sort=False):
        yield from _differences(there, trainings, against, _accurate, Where(dataset, network, None, ""))


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


def _secure(rows: pd.DataFrame) -> Mean | None:
    return mean(rows, "robust", "samples", at=AT_POINTS)


def _accurate(rows: pd.DataFrame) -> Mean | None:
    return mean(rows, "test_accuracy")


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
    there: pd.DataFrame,
    trainings: Sequence[str],
    against: Sequence[str],
    meant: Callable[[pd.DataFrame], Mean | None],
    where: Where,
) -> Iterator[Part]:
    for one, other in product(trainings, against):
        sides = [there[there["training"] == training] for training in (one, other)]
        if one == other or any(side.empty for side in sides):
            continue
        found = combined([meant(side) for side in sides], [1, -1])
        yield _part(f"{where}: {title(one)} less {title(other)}", where, pd.concat(sides), found)


def _part(name: str, where: Where, members: pd.DataFrame, found: Estimate | None) -> Part:
    remark = "" if found else "fewer than two independent trainings of a kind"
    return Part(name, where.dataset, where.measure, members, found, remark)
