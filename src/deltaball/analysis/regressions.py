"""Ordinary least squares of each measure on accuracy and on each hyper-parameter, errors clustered by trajectory."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import statsmodels.api as sm

from deltaball.analysis.groups import EVERY, NAMES, groups
from deltaball.analysis.multiplicity import holm
from deltaball.study import all_axes

CONFIDENCE = 0.95
FEWEST_TRAJECTORIES = 5
FEWEST_AT_A_LEVEL = 4
FITTED = ("slope", "standard_error", "lower", "upper", "p", "r_squared")


def regressions(measured: pd.DataFrame) -> pd.DataFrame:
    """One simple regression per group × term; the rows of one categorical term come from one regression.

    Terms: `test_accuracy` (per unit), numeric hyper-parameters and `parameters` (per doubling, or per unit where one
    is 0), text hyper-parameters and the seed (each level against the first). Standard errors are cluster-robust (CR1)
    with t quantiles at clusters - 1 degrees of freedom. `p_holm` is Holm's over all rows of this table.
    Hyper-parameters are looked at within one architecture, and only where they vary. Null where too few trajectories
    (5 in all, 4 at a level) carry a term.
    """
    rows = []
    for names, members in groups(measured):
        clusters = members["cluster"].astype("category").cat.codes.to_numpy()
        for design, unit in _designs(members, names["architecture"] == EVERY):
            rows += [{**names, **term, "unit": unit} for term in _fitted(members["estimate"], design, clusters)]
    table = pd.DataFrame(rows, columns=[*NAMES, "term", "unit", *FITTED, "p_holm"])
    return table.assign(p_holm=holm(table["p"]))


def _designs(members: pd.DataFrame, accuracy_alone: bool) -> Iterator[tuple[pd.DataFrame, str]]:
    yield members[["test_accuracy"]], "per unit of accuracy"
    if accuracy_alone:
        return
    for axis, kind in {**all_axes(), "parameters": int}.items():
        values = members[axis].dropna()
        if values.nunique() < 2 or len(values) < len(members):
            continue
        if kind is str or axis == "seed":
            levels = [str(level) for level in values.unique()]
            design = {f"{axis}: {level}": (values.astype(str) == level).astype(float) for level in levels[1:]}
            yield pd.DataFrame(design), f"against {levels[0]}"
        elif (values > 0).all():
            yield pd.DataFrame({axis: np.log2(values.astype(float))}), "per doubling"
        else:
            yield pd.DataFrame({axis: values.astype(float)}), "per unit"


def _thin(design: pd.DataFrame, clusters: np.ndarray) -> bool:
    """Whether a level (of a two-valued column, or the reference level) rests on too few clusters for its error.

    With one to three clusters at a level, clustered errors claim effects that are not there far too often.
    """
    levels = [column == value for _, column in design.items() if column.nunique() == 2 for value in column.unique()]
    if design.shape[1] > 1:
        levels.append((design == 0).all(axis=1))
    return any(len(np.unique(clusters[level.to_numpy()])) < FEWEST_AT_A_LEVEL for level in levels)


def _fitted(response: pd.Series, design: pd.DataFrame, clusters: np.ndarray) -> list[dict[str, object]]:
    enough = len(np.unique(clusters)) >= max(FEWEST_TRAJECTORIES, design.shape[1] + 2)
    if not enough or response.nunique() < 2 or (design.nunique() < 2).any() or _thin(design, clusters):
        return [{"term": term, **dict.fromkeys(FITTED, np.nan)} for term in design]
    fit = sm.OLS(response.to_numpy(), sm.add_constant(design.to_numpy())).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True
    )
    bounds = fit.conf_int(1 - CONFIDENCE)
    return [
        {
            "term": term,
            "slope": fit.params[index],
            "standard_error": fit.bse[index],
            "lower": bounds[index, 0],
            "upper": bounds[index, 1],
            "p": fit.pvalues[index],
            "r_squared": fit.rsquared,
        }
        for index, term in enumerate(design, 1)
    ]
