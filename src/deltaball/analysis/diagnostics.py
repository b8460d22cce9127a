"""May the regressions be believed? Residuals, leverage and collinearity of the model with all terms at once."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.diagnostic import het_breuschpagan
from statsmodels.stats.outliers_influence import OLSInfluence

from deltaball.analysis.clustered import effective_clusters
from deltaball.analysis.designs import ACCURACY, inflations
from deltaball.analysis.groups import EVERY, NAMES, Groups

FOUND = ["terms", "vif_largest", "vif_term", "leverage_mean", "leverage_largest", "leverage_network", "cook_largest"]
FOUND += ["cook_network", "skewness", "excess_kurtosis", "breusch_pagan_p", "effective_clusters"]
COLUMNS = [*NAMES, *FOUND]
POINTS = ["network_id", "fitted", "residual", "studentised", "leverage", "cook"]


def diagnostics(groups: Groups) -> pd.DataFrame:
    """Per group of one architecture, of the regression on accuracy and all hyper-parameters (`accuracy_adjusted`).

    The largest variance inflation and its term; mean and largest leverage, and Cook's distance, with their networks;
    skewness and excess kurtosis of the residuals; Breusch and Pagan's p-value that their variance is constant (the
    clustered errors do not assume it); and Carter, Schnepel and Steigerwald's (2017) effective number of clusters for
    the slope on accuracy, with which CR1's errors should be trusted or not.
    """
    rows = []
    for names, design, members in _models(groups):
        values = sm.add_constant(design.to_numpy(float), has_constant="add")
        points = _points(members, values)
        inflated = inflations(design)
        worst = int(np.argmax(inflated))
        lever, cook = points.loc[points["leverage"].idxmax()], points.loc[points["cook"].idxmax()]
        found = (
            design.shape[1],
            inflated[worst],
            design.columns[worst],
            points["leverage"].mean(),
            lever["leverage"],
            lever["network_id"],
            cook["cook"],
            cook["network_id"],
            stats.skew(points["residual"]),
            stats.kurtosis(points["residual"]),
            het_breuschpagan(points["residual"], values)[1],
            _effective(values, members["cluster"].to_numpy()),
        )
        rows.append({**names, **dict(zip(FOUND, found, strict=True))})
    return pd.DataFrame(rows, columns=COLUMNS)


def residuals(groups: Groups) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """Of each model that `diagnostics` judges: the group's names, and a row per network with the columns POINTS."""
    for names, design, members in _models(groups):
        yield names, _points(members, sm.add_constant(design.to_numpy(float), has_constant="add"))


def _models(groups: Groups) -> Iterator[tuple[dict[str, object], pd.DataFrame, pd.DataFrame]]:
    for names, members in groups:
        if names["architecture"] == EVERY or members["estimate"].nunique() < 2 or members[ACCURACY].nunique() < 2:
            continue
        design = pd.concat([members[[ACCURACY]].reset_index(drop=True), groups.designs.joint(members)[0]], axis=1)
        values = sm.add_constant(design.to_numpy(float), has_constant="add")
        if len(members) > values.shape[1] + 1 and np.linalg.matrix_rank(values) == values.shape[1]:
            yield names, design, members


def _points(members: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
    fit = sm.OLS(members["estimate"].to_numpy(float), values).fit()
    influence = OLSInfluence(fit)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = (
            members["network_id"].to_numpy(),
            fit.fittedvalues,
            fit.resid,
            influence.resid_studentized_internal,
            influence.hat_matrix_diag,
            influence.cooks_distance[0],
        )
    return pd.DataFrame(dict(zip(POINTS, columns, strict=True)))


def _effective(values: np.ndarray, clusters: np.ndarray) -> float:
    """The effective number of clusters for the slope on the first term of a design whose first column is constant."""
    others = np.delete(values, 1, axis=1)
    kept = values[:, 1] - others @ np.linalg.lstsq(others, values[:, 1], rcond=None)[0]
    return effective_clusters(kept, np.unique(clusters, return_inverse=True)[1])
