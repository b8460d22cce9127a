"""The tests of paper 004's empirical claims, as claims_004.yaml names them: evidence in, parts out."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from deltaball.analysis import clustered
from deltaball.analysis.bayes import converged
from deltaball.analysis.clustered import FEWEST, MANY, Estimate, Scaled, Student
from deltaball.analysis.judges import display_name, judge_of
from deltaball.analysis.pruning import FEWEST_TRUNKS, independent_mean, per_trunk
from deltaball.analysis.rules import CONFIDENCE
from deltaball.base.guarantees import samples_needed
from deltaball.study.grids import all_axes
from deltaball.study.neighbourhoods import NORMS

SEVERE = 0.9
# Draws of more than this share of the test split overlap so much that they agree whatever the estimator does.
LARGEST_SHARE = 0.5
PER_TEN_POINTS = 0.1


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a study measured: `judged` has a row per network × measure, with `robust` and, of pruned, `trunk_robust`.

    `sampled` has those of random images; `learned_from` is the test accuracy, per data set, from which a network has
    learned. How networks were trained, `training`, and whether they are of the `paper`'s size or `larger` ones, `size`,
    are columns of both where the paper's claims are about trainings. `near` says of every network how near each judge
    finds violations (`distance_claims.near`), `corrupted` how accurate it is under corruptions
    (`corruption_claims.corrupted`); `compared` is the table `comparison` of the longest trainings.
    """

    judged: pd.DataFrame
    spread: pd.DataFrame
    values: Mapping[str, float]  # margin and confidence, as the study file sets them
    learned_from: Mapping[str, float]
    sampled: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    near: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    compared: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    corrupted: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)


@dataclasses.dataclass(frozen=True)
class Part:
    """One test of a claim. `found` is None where nothing could be tested, and `remark` then says why."""

    part: str
    dataset: str | None
    measure: str | None
    members: pd.DataFrame
    found: Estimate | None
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Known:
    """A number without error."""

    estimate: float

    def p(self, null: float) -> float:
        return np.nan

    def interval(self, confidence: float) -> tuple[float, float]:
        return self.estimate, self.estimate


@dataclasses.dataclass(frozen=True)
class Share:
    """A share `count` / `draws`, by the binomial law (Clopper and Pearson's interval)."""

    count: int
    draws: int

    @property
    def estimate(self) -> float:
        return self.count / self.draws

    def p(self, null: float) -> float:
        law = stats.binom(self.draws, null)
        return float(min(1, 2 * min(law.cdf(self.count), law.sf(self.count - 1))))

    def interval(self, confidence: float) -> tuple[float, float]:
        return tuple(stats.binomtest(self.count, self.draws).proportion_ci(confidence, method="exact"))


@dataclasses.dataclass(frozen=True)
class Deviation:
    """A standard deviation of `draws` values, by the χ² law."""

    estimate: float
    draws: int

    def p(self, null: float) -> float:
        law, ratio = stats.chi2(self.draws - 1), (self.draws - 1) * (self.estimate / null) ** 2
        return float(2 * min(law.cdf(ratio), law.sf(ratio)))

    def interval(self, confidence: float) -> tuple[float, float]:
        law, tail = stats.chi2(self.draws - 1), (1 - confidence) / 2
        return tuple(self.estimate * np.sqrt((self.draws - 1) / law.ppf([1 - tail, tail])))


def _tightening(evidence: Evidence) -> Iterator[Part]:
    for name, members in _experiments(evidence.spread):
        usable = members[(members["sd_expected"] > 0) & (members["sd"] > 0)]
        if len(usable) < 3:
            yield Part(*name, members, None, "the estimates do not scatter")
            continue
        x = np.log(usable["epsilon"].to_numpy())
        y = np.log((usable["sd"] / usable["overlap_factor"]).to_numpy())
        fit = stats.linregress(x, y)
        # Of the logarithm of a standard deviation of normal draws; residuals that happen to be smaller say no more.
        known = np.sqrt(np.mean(1 / (2 * (usable["draws"] - 1))) / np.sum((x - x.mean()) ** 2))
        yield Part(*name, members, Student(float(fit.slope), max(fit.stderr, known), len(x) - 2))


def _scatter(evidence: Evidence, epsilon: float) -> Iterator[Part]:
    for name, members in _experiments(evidence.spread):
        below = members[(members["epsilon"] <= epsilon) & (members["sd_expected"] > 0)]
        if below.empty:
            yield Part(*name, members, None, f"no draws at ε up to {epsilon:g} from more points than they take")
            continue
        at = below.loc[below["epsilon"].idxmax()]
        found = Deviation(at["sd"] / at["overlap_factor"], int(at["draws"])) if at["sd"] > 0 else None
        yield Part(*name, members, found, f"at ε = {at['epsilon']:g}" if found else "the estimates do not scatter")


def _within(evidence: Evidence) -> Iterator[Part]:
    for name, members in _experiments(evidence.spread):
        apart = members[members["samples"] <= LARGEST_SHARE * members["test_points"]]
        draws = int(apart["draws"].sum())
        count = int((apart["within_epsilon"] * apart["draws"]).round().sum())
        yield Part(*name, members, Share(count, draws) if draws else None, f"{count} of {draws} draws")


def _samples(evidence: Evidence, epsilon: float, confidence: float) -> Iterator[Part]:
    name = f"Hoeffding, ε = {epsilon:g}, confidence {confidence:g}"
    yield Part(name, None, None, evidence.judged[:0], Known(samples_needed(epsilon, confidence)))


def _trend(evidence: Evidence, networks: Mapping[str, Any], over: str, within: Sequence[str] = ()) -> Iterator[Part]:
    per = {"parameters": "doubling", "epochs": "doubling"}.get(over, "10 points")
    for name, members in _measures(evidence, networks, [over]):
        found, slope = _correlation(members, over, within)
        if found is None:
            yield Part(*name, members, None, _untestable(members, over))
            continue
        remarks = [f"robustness {number(slope)} per {per}"]
        for subset, kept in _subsets(members, evidence):
            inner, _ = _correlation(members[kept], over, within)
            said = "too few or too alike to say" if inner is None else f"r = {_said(inner)}"
            remarks.append(f"among the {int(kept.sum())} networks {subset}: {said}")
        yield Part(*name, members, found, "; ".join(remarks))


def _trend_difference(
    evidence: Evidence, networks: Mapping[str, Any], against: Mapping[str, Any], over: str
) -> Iterator[Part]:
    for name, members, first in _both(evidence, networks, against, [over]):
        x, flag = _term(members, over), first.to_numpy(float)
        found = _side_by_side(members, first, flag * x, np.column_stack([flag, x]))
        yield Part(*name, members, found, "" if found else _untestable(members, over))


def _level_difference(evidence: Evidence, networks: Mapping[str, Any], against: Mapping[str, Any]) -> Iterator[Part]:
    for name, members, first in _both(evidence, networks, against, []):
        found = _side_by_side(members, first, first.to_numpy(float), None)
        gap = members.loc[first, "test_accuracy"].mean() - members.loc[~first, "test_accuracy"].mean()
        remark = f"their test accuracies differ by {number(100 * gap)} points on average"
        yield Part(*name, members, found, remark if found else _untestable(members, "method"))


def _variety(evidence: Evidence, networks: Mapping[str, Any]) -> Iterator[Part]:
    rows = _chosen(evidence.judged, networks).drop_duplicates("network_id")
    squares = {
        dataset: members.assign(square=(members["test_accuracy"] - members["test_accuracy"].mean()) ** 2)
        for dataset, members in rows.groupby("dataset", sort=False)
    }
    yield from _log_ratios(squares, "")


def _noise(evidence: Evidence, networks: Mapping[str, Any]) -> Iterator[Part]:
    rows = _chosen(evidence.judged, networks)
    for (notion, norm, gamma), alike in rows.groupby(["notion", "norm", "gamma"], sort=False, dropna=False):
        left = []
        for _, members in alike.groupby(["dataset", "measure"], sort=False):
            x, y = members["test_accuracy"].to_numpy(), members["robust"].to_numpy()
            if len(x) > 2 and np.ptp(x) > 0:
                left.append(members.assign(square=(y - np.polyval(np.polyfit(x, y, 1), x)) ** 2))
        if left:
            # A data set has its own δ's, of which the mean is taken.
            together = pd.concat(left).groupby(["dataset", "network_id", "cluster"], sort=False, as_index=False)
            means = together[["square", "test_accuracy"]].mean()
            squares = dict(list(means.groupby("dataset", sort=False)))
            yield from _log_ratios(squares, f", {_notion(notion, gamma)}, {NORMS[norm]}")


def _foremost(evidence: Evidence, networks: Mapping[str, Any], named: Sequence[str]) -> Iterator[Part]:
    for (part, dataset, measure), several in _measures(evidence, networks, named):
        for architecture, members in several.groupby("architecture", sort=False):
            name = (f"{part}, {architecture.upper()}", dataset, measure)
            rivals = _rivals(members, named)
            if not rivals or any(members[axis].nunique() < 2 for axis in named) or members["robust"].nunique() < 2:
                yield Part(*name, members, None, "no other hyper-parameter varies, or one of these does not")
                continue
            if members["cluster"].nunique() < FEWEST:
                yield Part(*name, members, None, _untestable(members, named[0]))
                continue
            shares = {axis: _shares(members, axis) for axis in [*named, *rivals]}
            ahead = np.min([shares[axis] for axis in named], 0) - np.max([shares[axis] for axis in rivals], 0)
            remark = ", ".join(f"{axis} {number(shares[axis][0])}" for axis in shares)
            yield Part(*name, members, _jackknife(ahead), f"adjusted R² of {remark}")


def _pruning(evidence: Evidence, of: str, proportions: str) -> Iterator[Part]:
    pruned = evidence.judged[evidence.judged["pruned"]]
    if of == "accuracy":
        pairs = {
            (dataset, None, ""): (members["test_accuracy"] - members["trunk_accuracy"], members)
            for dataset, members in pruned.drop_duplicates("network_id").groupby("dataset", sort=False)
        }
    else:
        pairs = {
            (dataset, measure, f", {_described(members)}"): (members["robust"] - members["trunk_robust"], members)
            for (dataset, measure), members in pruned.groupby(["dataset", "measure"], sort=False)
        }
    for (dataset, measure, described), (difference, members) in pairs.items():
        levels = sorted(members["proportion"].unique())
        for level in levels[-1:] if proportions == "severest" else levels:
            if proportions == "severest" and level < SEVERE:
                continue
            at = members["proportion"] == level
            means = per_trunk(difference[at].dropna(), members.loc[at, "cluster"])
            name = f"{dataset}{described}, {100 * level:g} % removed"
            found = independent_mean(means) if len(means) >= FEWEST_TRUNKS else None
            yield Part(name, dataset, measure, members[at], found, "" if found else f"{len(means)} dense trunks")


TESTS: dict[str, Callable[..., Iterator[Part]]] = {
    "tightening": _tightening,
    "scatter": _scatter,
    "within": _within,
    "samples": _samples,
    "trend": _trend,
    "trend_difference": _trend_difference,
    "level_difference": _level_difference,
    "foremost": _foremost,
    "variety": _variety,
    "noise": _noise,
    "pruning": _pruning,
}


# ------------------------------------------------------------------------------------------------- what the tests share


def _experiments(spread: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    for (_, network, measure), members in spread.groupby(["experiment", "network_id", "measure"], sort=False):
        dataset = members["dataset"].iloc[0]
        yield (f"{dataset}, {_described(members)}, network {network}", dataset, measure), members


def _chosen(rows: pd.DataFrame, networks: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    return rows[np.logical_and.reduce([rows[name].isin(values) for name, values in networks.items()])]


def _measures(
    evidence: Evidence, networks: Mapping[str, Any], needed: Sequence[str]
) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """The chosen networks per data set × measure, those that have what is `needed`."""
    rows = _chosen(evidence.judged, networks).dropna(subset=[*needed, "robust", "test_accuracy"])
    for (dataset, measure), members in rows.groupby(["dataset", "measure"], sort=False):
        yield (f"{dataset}, {_described(members)}", dataset, measure), members


def _both(
    evidence: Evidence, networks: Mapping[str, Any], against: Mapping[str, Any], needed: Sequence[str]
) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame, pd.Series]]:
    """As `_measures`, of measures that both kinds of networks have; the last value says which are of the first kind."""
    others = {name[1:]: members for name, members in _measures(evidence, against, needed)}
    for name, members in _measures(evidence, networks, needed):
        if name[1:] in others:
            both = pd.concat([members, others[name[1:]]])
            yield name, both.reset_index(drop=True), pd.Series(np.arange(len(both)) < len(members))


def _term(members: pd.DataFrame, over: str) -> np.ndarray:
    values = members[over].to_numpy(float)
    return np.log2(values) if over in ("parameters", "epochs") else values / PER_TEN_POINTS


def _correlation(members: pd.DataFrame, over: str, within: Sequence[str]) -> tuple[Estimate | None, float]:
    """Pearson's r of robustness with a term, within levels of `within`; and the slope in the term's own units."""
    if len(members) < 3:
        return None, np.nan
    levels = [pd.get_dummies(members[name], drop_first=True, dtype=float) for name in within]
    others = pd.concat(levels, axis=1).to_numpy() if levels else None
    response, term = members["robust"].to_numpy(), _term(members, over)
    if np.ptp(response) == 0 or np.ptp(term) == 0:
        return None, np.nan
    if _carried(term, members["cluster"]) < FEWEST:
        return None, np.nan
    found = clustered.slope(response, term, others, members["cluster"].to_numpy())
    if found is None:
        return None, np.nan
    return Scaled(found, clustered.correlation_per_slope(response, term, others)), found.estimate


def _carried(term: np.ndarray, clusters: pd.Series) -> int:
    """How many clusters carry the rarer side of a term of two values; any number where it has more."""
    if len(np.unique(term)) > 2:
        return clusters.nunique()
    return min(clusters[term == value].nunique() for value in np.unique(term))


def _side_by_side(
    members: pd.DataFrame, first: pd.Series, term: np.ndarray, others: np.ndarray | None
) -> Estimate | None:
    fewest = min(members.loc[side, "cluster"].nunique() for side in (first, ~first))
    if fewest < FEWEST:
        return None
    few = len(members) + 1 if fewest < MANY else MANY
    return clustered.slope(members["robust"].to_numpy(), term, others, members["cluster"].to_numpy(), few=few)


def _subsets(members: pd.DataFrame, evidence: Evidence) -> Iterator[tuple[str, pd.Series]]:
    """Subsets within which a trend is looked for again, where they leave any network out."""
    level = evidence.learned_from[members["dataset"].iloc[0]]
    yield f"that learned (accuracy from {level:.2f})", members["test_accuracy"] >= level
    if (members["method"] == "hmc").all():
        yield "whose chains have converged", converged(members)


def _log_ratios(squares: Mapping[str, pd.DataFrame], described: str) -> Iterator[Part]:
    """Log ratios of root mean squares for all pairs of data sets, the one on which the best network is worse first."""
    ranked = sorted(squares, key=lambda dataset: squares[dataset]["test_accuracy"].max())
    for harder, easier in itertools.combinations(ranked, 2):
        both = [squares[harder], squares[easier]]
        few = min(one["cluster"].nunique() for one in both)
        means = [one["square"].mean() for one in both]
        name, members = f"{harder} over {easier}{described}", pd.concat(both)
        if few < FEWEST or min(means) <= 0:
            yield Part(name, None, None, members, None, f"{few} trajectories, or no scatter at all")
            continue
        variance = 0.0
        for one, mean in zip(both, means, strict=True):
            sums = ((one["square"] - mean) / (2 * mean * len(one))).groupby(one["cluster"]).sum()
            variance += len(sums) / (len(sums) - 1) * float((sums**2).sum())
        yield Part(name, None, None, members, Student(0.5 * float(np.log(means[0] / means[1])), variance**0.5, few - 1))


def _rivals(members: pd.DataFrame, named: Sequence[str]) -> list[str]:
    """Hyper-parameters that vary and are neither named nor, where capacity is, part of what makes it."""
    varying = [axis for axis in all_axes() if members[axis].nunique() > 1]
    known = {axis for axis in varying if members[axis].notna().all()} - {*named, "seed"}
    return sorted(axis for axis in known if _sizes(members, [one for one in varying if one != axis]) < 2)


def _sizes(members: pd.DataFrame, fixed: Sequence[str]) -> int:
    """The most sizes that networks have which agree in the axes `fixed`."""
    sizes = (
        members.groupby(fixed, dropna=False)["parameters"].nunique().max() if fixed else members["parameters"].nunique()
    )
    return int(sizes)


def _shares(members: pd.DataFrame, axis: str) -> np.ndarray:
    """Adjusted R² of robustness on an axis, in all clusters and then with each cluster left out [1 + clusters].

    Numbers enter as logarithms where all are positive. Clusters take the place of rows in the adjustment.
    """
    values = members[axis]
    if all_axes().get(axis) is str:
        design = pd.get_dummies(values, drop_first=True, dtype=float).to_numpy()
    else:
        numbers = values.to_numpy(float)[:, None]
        design = np.log2(numbers) if (numbers > 0).all() else numbers
    rows = np.column_stack(
        [np.ones(len(design)), design - design.mean(0), members["robust"] - members["robust"].mean()]
    )
    clusters = pd.factorize(members["cluster"])[0]
    count, width = clusters.max() + 1, rows.shape[1]
    cells = np.zeros((count, width, width))
    np.add.at(cells, clusters, rows[:, :, None] * rows[:, None])
    moments = np.concatenate([cells.sum(0, keepdims=True), cells.sum(0) - cells])
    known, cross, squares = moments[:, :-1, :-1], moments[:, :-1, -1], moments[:, -1, -1]
    explained = np.einsum("gi,gij,gj->g", cross, np.linalg.pinv(known, hermitian=True), cross)
    whole = cross[:, 0] ** 2 / known[:, 0, 0]
    share = (explained - whole) / (squares - whole)
    return 1 - (1 - share) * (count - 1) / (count - width + 1)


def _jackknife(values: np.ndarray) -> Student:
    """A value and its error, from the same with each cluster left out."""
    count = len(values) - 1
    error = np.sqrt((count - 1) / count * np.sum((values[1:] - values[1:].mean()) ** 2))
    return Student(float(values[0]), float(error), count - 1)


def _untestable(members: pd.DataFrame, over: str) -> str:
    if members["robust"].nunique() < 2:
        return f"robustness is {members['robust'].iloc[0]:.2f} for all networks"
    return f"too few of {members['cluster'].nunique()} trajectories tell levels of {over} apart"


def _notion(notion: str, gamma: float) -> str:
    return notion if np.isnan(gamma) else f"{notion} {gamma:g}"


def _described(members: pd.DataFrame) -> str:
    one = members.iloc[0]
    by = display_name(judge_of(one))
    return f"{_notion(one['notion'], one['gamma'])}, {NORMS[one['norm']]} δ {one['delta']:g}, {by}"


def _said(found: Estimate) -> str:
    lower, upper = np.clip(found.interval(CONFIDENCE), -1, 1)
    return f"{number(found.estimate)} [{number(lower)}, {number(upper)}]"


def number(value: float) -> str:
    if not np.isfinite(value):
        return "∞" if value > 0 else "−∞"
    digits = f"{value:.2f}" if 0.095 <= abs(value) < 100 else f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"
    return digits.replace("-", "−")
