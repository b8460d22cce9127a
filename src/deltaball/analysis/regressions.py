"""Least squares of each measure on accuracy and on hyper-parameters, with errors clustered by trajectory."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import statsmodels.api as sm

from deltaball.analysis.clustered import FEWEST, Wild, slope
from deltaball.analysis.designs import ACCURACY, Designs, inflations, thin
from deltaball.analysis.groups import EVERY, NAMES, groups
from deltaball.analysis.multiplicity import benjamini_hochberg, holm
from deltaball.analysis.points import CORRECTED, TWO_WAY, SharedPoints, corrected
from deltaball.analysis.ranges import highest

CONFIDENCE = 0.95
# Enough for intervals; a p-value from fewer replicates than tests cannot survive their correction.
REPLICATES = 1999
FITTED = ("slope", "standard_error", "lower", "upper", "p", "r_squared")
WILD = ("wild_p", "wild_lower", "wild_upper")
PER_UNIT = "per unit of accuracy"
COLUMNS = [*NAMES, "model", "term", "unit", *FITTED, *WILD, "p_holm", "p_bh", *CORRECTED, *TWO_WAY, "vif"]


def regressions(
    measured: pd.DataFrame, test_points: Mapping[str, int] | None = None, shared: SharedPoints | None = None
) -> pd.DataFrame:
    """One row per group × model × term.

    `simple` models have one term: `test_accuracy`, a hyper-parameter, or `parameters`; a text hyper-parameter and the
    seed have an indicator per level but the first. The model `accuracy_adjusted` has accuracy and all hyper-parameters
    at once; `interactions` adds the products of accuracy with each of these columns, all centred, and its rows are the
    products: by how much the slope on accuracy differs per unit of the hyper-parameter. Hyper-parameters are looked at
    within one architecture, and only where they vary.

    Standard errors are cluster-robust (CR1) with t quantiles at clusters - 1 degrees of freedom. `wild_*` is the wild
    cluster bootstrap's answer where clusters are fewer than 30, really or effectively (`clustered`). `p_holm` and
    `p_bh` are corrected over all rows of this table, of `wild_p` where there is one and of `p` where not. Null where
    too few trajectories (5 in all, 4 at a level) carry a term. `vif` is the term's variance inflation.

    Beside the naive slope on accuracy alone: `slope_corrected`, freed of attenuation given the sizes of the test splits
    `test_points`, and `two_way_*`, from a bootstrap over test points and trajectories given `shared` outcomes.
    """
    rows, designs = [], Designs()
    for names, members in groups(measured):
        for model, fitted in _models(
            members.reset_index(drop=True), None if names["architecture"] == EVERY else designs
        ):
            for row in fitted:
                beside = {}
                if model == "simple" and row["term"] == ACCURACY and not np.isnan(row["slope"]):
                    beside = _beside(members, row, (test_points or {}).get(names["dataset"]), shared)
                rows.append({**names, "model": model, **row, **beside})
    table = pd.DataFrame(rows, columns=COLUMNS)
    p_values = table["wild_p"].astype(float).fillna(table["p"].astype(float))
    return table.assign(p_holm=holm(p_values), p_bh=benjamini_hochberg(p_values))


def _models(members: pd.DataFrame, designs: Designs | None) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Each model's name and rows; that on accuracy alone where there are no `designs`."""
    clusters = pd.factorize(members["cluster"])[0]
    response, accuracy = members["estimate"], members[[ACCURACY]]
    yield "simple", _fitted(response, accuracy, clusters, {ACCURACY: PER_UNIT})
    if designs is None:
        return
    for design, unit in designs.blocks(members).values():
        yield "simple", _fitted(response, design, clusters, dict.fromkeys(design, unit))
    axes, units = designs.joint(members)
    if axes.empty:
        return
    whole = pd.concat([accuracy, axes], axis=1)
    yield "accuracy_adjusted", _fitted(response, whole, clusters, {ACCURACY: PER_UNIT, **units})
    products = {f"{ACCURACY} × {term}": f"{PER_UNIT}, {unit}" for term, unit in units.items()}
    centred = whole - whole.mean()
    both = centred[list(axes)].mul(centred[ACCURACY], axis=0).set_axis(list(products), axis=1)
    fitted = _fitted(response, pd.concat([centred, both], axis=1), clusters, {**dict.fromkeys(whole, ""), **products})
    thin_terms = {f"{ACCURACY} × {term}" for term in axes if thin(axes[[term]], clusters)}
    yield (
        "interactions",
        [
            {"term": row["term"], "unit": row["unit"], **_NOTHING} if row["term"] in thin_terms else row
            for row in fitted
            if row["term"] in products
        ],
    )


_NOTHING = dict.fromkeys((*FITTED, *WILD, "vif"), np.nan)


def _fitted(
    response: pd.Series, design: pd.DataFrame, clusters: np.ndarray, units: Mapping[str, str]
) -> list[dict[str, object]]:
    """A row per column of the design, from one fit."""
    rows = [{"term": term, "unit": units[term], **_NOTHING} for term in design]
    count = len(np.unique(clusters))
    if count < max(FEWEST, design.shape[1] + 2) or response.nunique() < 2:
        return rows
    values = sm.add_constant(design.to_numpy(float), has_constant="add")
    if np.linalg.matrix_rank(values) < values.shape[1]:
        return rows
    single = len({term.partition(":")[0] for term in design}) == 1
    if single and thin(design, clusters):
        return rows
    fit = sm.OLS(response.to_numpy(float), values).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    bounds, inflated = fit.conf_int(1 - CONFIDENCE), inflations(design)
    for index, (term, row) in enumerate(zip(design, rows, strict=True), 1):
        if not single and thin(design[[term]], clusters):
            continue
        found = (fit.params[index], fit.bse[index], *bounds[index], fit.pvalues[index], fit.rsquared)
        row |= dict(zip(FITTED, found, strict=True))
        row["vif"] = inflated[index - 1]
        row |= _wild(response.to_numpy(float), design[term], design.drop(columns=term), clusters)
    return rows


def _wild(response: np.ndarray, term: pd.Series, others: pd.DataFrame, clusters: np.ndarray) -> dict[str, float]:
    """What `clustered.slope` says of the term, where clusters are too few for CR1; else nulls."""
    found = slope(response, term.to_numpy(float), others.to_numpy(float), clusters, replicates=REPLICATES)
    if not isinstance(found, Wild):
        return dict.fromkeys(WILD, np.nan)
    return dict(zip(WILD, (found.p(0), *found.interval(CONFIDENCE)), strict=True))


def _beside(
    members: pd.DataFrame, row: dict[str, object], points: int | None, shared: SharedPoints | None
) -> dict[str, float]:
    scale = highest(members).iloc[0]
    accuracy, robust = members[ACCURACY].to_numpy(), members["estimate"].to_numpy()
    naive = row["slope"], row["lower"], row["upper"]
    found = corrected(accuracy, robust, naive, points, scale) if points else {}
    return {**found, **(shared.two_way(members, FEWEST, CONFIDENCE) if shared else {})}
