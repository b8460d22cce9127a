"""Does robustness rise with accuracy among Bayesian networks (paper 004, Section 4.4), or with convergence?

A chain that has not reached its posterior gives networks that are neither accurate nor Bayesian, so trends among
Bayesian networks are taken among all, among those that have converged and among those that have not.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from deltaball.analysis.clustered import CONFIDENCE, FEWEST, MANY
from deltaball.analysis.correlations import pearson
from deltaball.analysis.groups import Groups
from deltaball.analysis.multiplicity import benjamini_hochberg, holm
from deltaball.analysis.slopes import Slope, Slopes
from deltaball.base.statuses import TRAINED

# Of the chain's predictive quantities: the largest split R-hat, the smallest effective sample size.
RHAT, ESS = 1.05, 50
KEYS = ["dataset", "measure", "notion", "norm", "delta", "gamma", "attack"]
CORRELATED = ["pearson", "pearson_lower", "pearson_upper"]
FITTED = ["slope", "standard_error", "lower", "upper", "p", "inference"]
COLUMNS = [*KEYS, "networks_of", "networks", "trajectories", *CORRELATED, *FITTED, "p_holm", "p_bh", "confidence"]


def converged(networks: pd.DataFrame) -> pd.Series:
    """Whether each network's chain has converged by its last sample; False where there is no chain."""
    return (networks["status"] == TRAINED) & (networks["rhat_max"] <= RHAT) & (networks["ess_min"] >= ESS)


def bayes(groups: Groups) -> pd.DataFrame:
    """Per measure of Bayesian networks, a row for each of: `sgd`, `hmc`, `hmc, converged`, `hmc, not converged`.

    `slope` is the measure's change per unit of test accuracy, by least squares with errors clustered by trajectory. In
    the row `hmc, difference` it is the interaction of accuracy and convergence: the slope among converged networks
    minus that among the others. SGD networks are the fully connected ones. Null where trajectories are fewer than 5.
    `inference` is what the intervals and p-values are by: CR1 with t quantiles, or a wild cluster bootstrap where
    trajectories are fewer than 30, really or effectively (of `hmc, difference`: on either side). `p_holm` and `p_bh`
    are over the table.
    """
    rows = []
    measured = groups.measured
    bayesian = measured[measured["method"] == "hmc"]
    deterministic = measured[(measured["method"] == "sgd") & (measured["architecture"] == "fcn")]
    for key, members in bayesian.groupby(KEYS, sort=False, dropna=False):
        named = dict(zip(KEYS, key, strict=True))
        same = deterministic[
            (deterministic["dataset"] == named["dataset"]) & (deterministic["measure"] == named["measure"])
        ]
        rows += [{**named, **row} for row in _rows(members, same, groups.slopes)]
    table = pd.DataFrame(rows, columns=COLUMNS).assign(confidence=CONFIDENCE)
    p_values = table["p"].astype(float)
    return table.assign(p_holm=holm(p_values), p_bh=benjamini_hochberg(p_values))


def _rows(bayesian: pd.DataFrame, deterministic: pd.DataFrame, slopes: Slopes) -> Iterator[dict[str, object]]:
    mixing = converged(bayesian)
    subsets = {
        "sgd": deterministic,
        "hmc": bayesian,
        "hmc, converged": bayesian[mixing],
        "hmc, not converged": bayesian[~mixing],
    }
    for name, members in subsets.items():
        correlated = dict(zip(CORRELATED, pearson(members, slopes), strict=True))
        yield {**_counted(name, members), **correlated, **_fitted(slopes.on_accuracy(members))}
    yield {**_counted("hmc, difference", bayesian), **_fitted(_difference(bayesian, mixing.to_numpy(), slopes))}


def _difference(bayesian: pd.DataFrame, mixing: np.ndarray, slopes: Slopes) -> Slope | None:
    """By how much the slope on accuracy differs among converged networks."""
    fewest = min(bayesian.loc[side, "cluster"].nunique() for side in (mixing, ~mixing))
    if fewest < FEWEST:
        return None
    accuracy, estimate = bayesian["test_accuracy"].to_numpy(), bayesian["estimate"].to_numpy()
    others, few = np.column_stack([accuracy, mixing]), MANY if fewest >= MANY else len(bayesian) + 1
    return slopes.of(estimate, accuracy * mixing, others, bayesian["cluster"], few)


def _counted(name: str, members: pd.DataFrame) -> dict[str, object]:
    return {"networks_of": name, "networks": len(members), "trajectories": members["cluster"].nunique()}


def _fitted(found: Slope | None) -> dict[str, object]:
    if found is None:
        return {}
    return dict(
        zip(FITTED, (found.estimate, found.error, found.lower, found.upper, found.p, found.inference), strict=True)
    )
