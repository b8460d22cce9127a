"""Does robustness rise with accuracy among Bayesian networks (paper 004, Section 4.4), or with convergence?

A chain that has not reached its posterior gives networks that are neither accurate nor Bayesian, so trends among
Bayesian networks are taken among all, among those that have converged and among those that have not.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import statsmodels.api as sm

from deltaball.analysis.clustered import MANY, Wild, slope
from deltaball.analysis.correlations import CONFIDENCE, correlation
from deltaball.analysis.multiplicity import benjamini_hochberg, holm
from deltaball.base.statuses import TRAINED

# Of the chain's predictive quantities: the largest split R-hat, the smallest effective sample size.
RHAT, ESS = 1.05, 50
FEWEST_TRAJECTORIES = 5
KEYS = ["dataset", "measure", "notion", "norm", "delta", "gamma", "attack"]
CORRELATED = ["pearson", "pearson_lower", "pearson_upper"]
FITTED = ["slope", "standard_error", "lower", "upper", "p"]
WILD = ["wild_p", "wild_lower", "wild_upper"]
COLUMNS = [
    *KEYS,
    "networks_of",
    "networks",
    "trajectories",
    *CORRELATED,
    *FITTED,
    *WILD,
    "p_holm",
    "p_bh",
    "confidence",
]


def converged(networks: pd.DataFrame) -> pd.Series:
    """Whether each network's chain has converged by its last sample; False where there is no chain."""
    return (networks["status"] == TRAINED) & (networks["rhat_max"] <= RHAT) & (networks["ess_min"] >= ESS)


def bayes(measured: pd.DataFrame) -> pd.DataFrame:
    """Per measure of Bayesian networks, a row for each of: `sgd`, `hmc`, `hmc, converged`, `hmc, not converged`.

    `slope` is the measure's change per unit of test accuracy, by least squares with errors clustered by trajectory
    (CR1, t quantiles at clusters - 1 degrees of freedom). In the row `hmc, difference` it is the interaction of
    accuracy and convergence: the slope among converged networks minus that among the others. SGD networks are the
    fully connected ones. Null where trajectories are fewer than 5. `wild_*` is the wild cluster bootstrap's answer
    where they are fewer than 30, really or effectively (of `hmc, difference`: on either side). `p_holm` and `p_bh`
    are over the table, of `wild_p` where there is one and of `p` where not.
    """
    rows = []
    bayesian = measured[measured["method"] == "hmc"]
    deterministic = measured[(measured["method"] == "sgd") & (measured["architecture"] == "fcn")]
    for key, members in bayesian.groupby(KEYS, sort=False, dropna=False):
        named = dict(zip(KEYS, key, strict=True))
        same = deterministic[
            (deterministic["dataset"] == named["dataset"]) & (deterministic["measure"] == named["measure"])
        ]
        rows += [{**named, **row} for row in _rows(members, same)]
    table = pd.DataFrame(rows, columns=COLUMNS).assign(confidence=CONFIDENCE)
    p_values = table["wild_p"].astype(float).fillna(table["p"].astype(float))
    return table.assign(p_holm=holm(p_values), p_bh=benjamini_hochberg(p_values))


def _rows(bayesian: pd.DataFrame, deterministic: pd.DataFrame) -> Iterator[dict[str, object]]:
    mixing = converged(bayesian)
    subsets = {
        "sgd": deterministic,
        "hmc": bayesian,
        "hmc, converged": bayesian[mixing],
        "hmc, not converged": bayesian[~mixing],
    }
    for name, members in subsets.items():
        accuracy, clusters = members["test_accuracy"].to_numpy(), _clusters(members)
        found = correlation(accuracy, members["estimate"].to_numpy(), clusters, rank=False)
        fitted = _slope(members["estimate"], accuracy[:, None], clusters)
        yield {**_counted(name, members), **dict(zip(CORRELATED, found, strict=True)), **fitted}
    accuracy, flag = bayesian["test_accuracy"].to_numpy(), mixing.to_numpy(float)
    design, clusters = np.column_stack([accuracy, flag, accuracy * flag]), _clusters(bayesian)
    fewest = min(len(np.unique(clusters[flag == side])) for side in (0, 1))
    fitted = dict.fromkeys([*FITTED, *WILD], np.nan)
    if fewest >= FEWEST_TRAJECTORIES:
        fitted = _slope(bayesian["estimate"], design, clusters, few=MANY if fewest >= MANY else len(clusters) + 1)
    yield {**_counted("hmc, difference", bayesian), **dict.fromkeys(CORRELATED, np.nan), **fitted}


def _counted(name: str, members: pd.DataFrame) -> dict[str, object]:
    return {"networks_of": name, "networks": len(members), "trajectories": members["cluster"].nunique()}


def _clusters(members: pd.DataFrame) -> np.ndarray:
    return members["cluster"].astype("category").cat.codes.to_numpy()


def _slope(response: pd.Series, design: np.ndarray, clusters: np.ndarray, few: int = MANY) -> dict[str, float]:
    """What is fitted of the last column of a design [n, terms]."""
    nothing = dict.fromkeys([*FITTED, *WILD], np.nan)
    enough = len(np.unique(clusters)) >= max(FEWEST_TRAJECTORIES, design.shape[1] + 2)
    if not enough or response.nunique() < 2 or np.linalg.matrix_rank(sm.add_constant(design)) <= design.shape[1]:
        return nothing
    values = response.to_numpy()
    fit = sm.OLS(values, sm.add_constant(design)).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    ends = fit.conf_int(1 - CONFIDENCE)[-1]
    found = dict(zip(FITTED, (fit.params[-1], fit.bse[-1], *ends, fit.pvalues[-1]), strict=True))
    wild = slope(values, design[:, -1], design[:, :-1], clusters, few=few)
    if isinstance(wild, Wild):
        nothing |= dict(zip(WILD, (wild.p(0), *wild.interval(CONFIDENCE)), strict=True))
    return {**nothing, **found}
