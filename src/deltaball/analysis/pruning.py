"""Does pruning change robustness? Each pruned network beside the dense trunk it was pruned from (paper 004, 4.3)."""

import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM

from deltaball.analysis.clustered import Student
from deltaball.analysis.multiplicity import benjamini_hochberg, holm
from deltaball.analysis.ranges import highest
from deltaball.study.transfers import NONE

ALPHA = 0.05
FEWEST_TRUNKS = 3
EFFECTS = [
    "dataset",
    "measure",
    "proportion",
    "pairs",
    "trunks",
    "difference",
    "lower",
    "upper",
    "margin",
    "p_difference",
    "p_difference_holm",
    "p_difference_bh",
    "p_equivalence",
    "p_equivalence_holm",
    "p_equivalence_bh",
    "verdict",
]
TESTS = ["dataset", "measure", "networks", "architectures"]
TESTS += [f"{test}{corrected}" for test in ("anova", "kruskal", "mixed") for corrected in ("", "_holm", "_bh")]
TESTS += ["architecture_share"]


def in_range(measured: pd.DataFrame) -> pd.DataFrame:
    """Margins, which lie in [0, δ], in units of δ: one equivalence margin then means the same for every measure."""
    scale = highest(measured)
    scaled = {name: measured[name] / scale for name in ("estimate", "trunk_estimate")}
    return measured.assign(**scaled)


def pruning_effects(measured: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Mean of (pruned - trunk) per data set × measure, and accuracy, × proportion, and over all proportions.

    Networks of one trunk are not independent, so their differences are averaged per trunk and Student's t is used
    over trunks: [lower, upper] at 95 %. `p_difference` tests a mean of 0; `p_equivalence` is TOST's (Schuirmann 1987),
    that the mean lies within ±`margin`. Both are corrected by Holm (`_holm`) and by Benjamini and Hochberg (`_bh`) over
    the whole table, and the verdict follows Holm's at 5 %: ``equivalent within ±m``, ``different`` or ``undecided``.
    """
    rows = []
    for names, pairs in _pairs(measured):
        for proportion, chosen in [("all", pairs), *pairs.groupby("proportion")]:
            differences = per_trunk(chosen["difference"], chosen["cluster"])
            row = {**names, "proportion": proportion, "pairs": len(chosen), "trunks": len(differences)}
            rows.append({**row, "margin": margin, **mean_difference(differences, margin)})
    table = pd.DataFrame(rows, columns=EFFECTS)
    for name in ("p_difference", "p_equivalence"):
        table[f"{name}_holm"], table[f"{name}_bh"] = holm(table[name]), benjamini_hochberg(table[name])
    table["verdict"] = [_verdict(row, margin) for row in table.to_dict("records")]
    return table


def pruning_tests(measured: pd.DataFrame) -> pd.DataFrame:
    """Does the proportion matter at all, dense trunks (proportion 0) included? Per data set × measure, and accuracy.

    p-values of a one-way ANOVA, of Kruskal and Wallis' test (both take networks for independent, which they are not;
    they are what is usually reported), and of a likelihood-ratio test in a mixed model with the architecture as random
    effect, whose share of the variance is `architecture_share`. Each corrected over the table, by Holm and
    by Benjamini and Hochberg.
    """
    rows = []
    for names, pairs in _pairs(measured):
        trunks = pairs.drop_duplicates(["cluster", "epochs"]).assign(proportion=0.0, value=lambda one: one["trunk"])
        everything = pd.concat([pairs, trunks], ignore_index=True)
        shape = everything[["depth", "width", "activation"]].astype(str).agg(" ".join, axis=1)
        groups = [group["value"].to_numpy() for _, group in everything.groupby("proportion")]
        row = {**names, "networks": len(everything), "architectures": shape.nunique()}
        if everything["value"].nunique() > 1 and 1 < len(groups) < len(everything):
            row["anova"] = stats.f_oneway(*groups).pvalue
            row["kruskal"] = stats.kruskal(*groups).pvalue
            row["mixed"], row["architecture_share"] = _mixed(everything, shape)
        rows.append(row)
    table = pd.DataFrame(rows, columns=TESTS)
    for name in ("anova", "kruskal", "mixed"):
        table[f"{name}_holm"], table[f"{name}_bh"] = holm(table[name]), benjamini_hochberg(table[name])
    return table


def _pairs(measured: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Per data set × measure, and for accuracy: pruned networks with their `value`, their `trunk`'s, the difference."""
    # At proportion 0 nothing is pruned: such a network is its own trunk. Behind a transfer it is no longer that alone.
    alone = measured["transfer"].fillna(NONE) == NONE if "transfer" in measured else True
    pruned = measured[(measured["method"] == "imp") & (measured["proportion"] > 0) & alone]
    for dataset, members in pruned.groupby("dataset", sort=False):
        accuracy = members.drop_duplicates("network_id")
        yield from _paired(dataset, "test_accuracy", accuracy, "test_accuracy", "trunk_accuracy")
        for measure, alike in members.groupby("measure", sort=False):
            yield from _paired(dataset, measure, alike, "estimate", "trunk_estimate")


def _paired(
    dataset: str, measure: str, members: pd.DataFrame, value: str, trunk: str
) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    pairs = members.dropna(subset=[value, trunk])
    if len(pairs):
        values = {"value": pairs[value], "trunk": pairs[trunk], "difference": pairs[value] - pairs[trunk]}
        yield {"dataset": dataset, "measure": measure}, pairs.assign(**values)


def per_trunk(differences: pd.Series, clusters: pd.Series) -> np.ndarray:
    """Means of differences [n] over the networks of each trunk: only these are independent."""
    return differences.groupby(clusters).mean().to_numpy()


def independent_mean(differences: np.ndarray) -> Student:
    """The mean of independent differences [n]."""
    count = len(differences)
    return Student(float(differences.mean()), float(differences.std(ddof=1)) / np.sqrt(count), count - 1)


def mean_difference(differences: np.ndarray, margin: float) -> dict[str, float]:
    """The mean of `differences` [trunks], its interval at 95 %, and the p-values of `pruning_effects`."""
    if len(differences) < FEWEST_TRUNKS:
        return {"difference": float(differences.mean())}
    found = independent_mean(differences)
    lower, upper = found.interval(1 - ALPHA)
    tests = {"p_difference": found.p(0), "p_equivalence": _equivalence(found, margin)}
    return {"difference": found.estimate, "lower": lower, "upper": upper, **tests}


def _equivalence(found: Student, margin: float) -> float:
    """The larger p-value of the two one-sided tests that a mean lies beyond an end of ±`margin`."""
    inside = margin - abs(found.estimate)
    if found.error == 0:  # all trunks agree exactly; t would divide by zero
        return float(inside <= 0)
    return float(stats.t.sf(inside / found.error, found.freedom))


def _verdict(row: dict[str, float], margin: float) -> str:
    if row["p_equivalence_holm"] < ALPHA:
        return f"equivalent within ±{margin:g}"
    return "different" if row["p_difference_holm"] < ALPHA else "undecided"


def _mixed(everything: pd.DataFrame, shape: pd.Series) -> tuple[float, float]:
    """The p-value of the proportion in a model with a random intercept per architecture, and the intercepts' share."""
    if shape.nunique() < 2:
        return np.nan, np.nan
    levels = pd.get_dummies(everything["proportion"].astype(str), drop_first=True, dtype=float)
    design = levels.assign(intercept=1.0)
    with warnings.catch_warnings():
        # A variance at its border (architectures that do not differ) is a result here, not a failure.
        warnings.simplefilter("ignore")
        try:
            # statsmodels' gradient methods end far from the maximum here, and say they converged; Powell's does not.
            full, null = (
                MixedLM(everything["value"], columns, groups=shape).fit(reml=False, method=["powell"])
                for columns in (design, design[["intercept"]])
            )
        except np.linalg.LinAlgError:
            return np.nan, np.nan
    gain = 2 * (full.llf - null.llf)
    if not (full.converged and null.converged and np.isfinite(gain) and gain > -1e-6):
        return np.nan, np.nan
    between = float(full.cov_re.iloc[0, 0])
    return float(stats.chi2.sf(max(0.0, gain), levels.shape[1])), between / (between + full.scale)
