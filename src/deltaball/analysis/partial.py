"""Correlations of robustness with one thing, all others held fixed."""

import numpy as np
import pandas as pd

from deltaball.analysis.clustered import CONFIDENCE
from deltaball.analysis.designs import ACCURACY, thin
from deltaball.analysis.groups import EVERY, NAMES, Groups
from deltaball.analysis.multiplicity import benjamini_hochberg, holm
from deltaball.analysis.slopes import Slopes

COLUMNS = [*NAMES, "term", "unit", "correlation", "partial", "lower", "upper", "p", "p_holm", "p_bh", "confidence"]


def partial_correlations(groups: Groups) -> pd.DataFrame:
    """Per group of one architecture: of each measure with accuracy given all hyper-parameters, and with each of these.

    `correlation` is Pearson's with nothing held fixed, `partial` that of the residuals on all other terms. Its
    interval is that of the slope between residuals in units of their standard deviations, clustered by trajectory (by
    a wild bootstrap where these are few) and cut to [-1, 1]. `p_holm` and `p_bh` are over the table.
    """
    rows = []
    for names, members in groups:
        if names["architecture"] == EVERY or len(members) < 3:
            continue
        axes, units = groups.designs.joint(members)
        design = pd.concat([members[[ACCURACY]].reset_index(drop=True), axes], axis=1)
        units = {ACCURACY: "", **units}
        clusters, response = members["cluster"].to_numpy(), members["estimate"].to_numpy()
        for term in design:
            others = design.drop(columns=term).to_numpy(float)
            tested = {}
            if not thin(design[[term]], clusters):
                tested = _tested(response, design[term].to_numpy(float), others, clusters, groups.slopes)
            rows.append({**names, "term": term, "unit": units[term], **tested})
    table = pd.DataFrame(rows, columns=COLUMNS).assign(confidence=CONFIDENCE)
    p_values = table["p"].astype(float)
    return table.assign(p_holm=holm(p_values), p_bh=benjamini_hochberg(p_values))


def _tested(
    response: np.ndarray, term: np.ndarray, others: np.ndarray, clusters: np.ndarray, slopes: Slopes
) -> dict[str, float]:
    if np.ptp(response) == 0 or np.ptp(term) == 0:
        return {}
    found = {"correlation": np.corrcoef(response, term)[0, 1]}
    fitted = slopes.of(response, term, others, clusters)
    if fitted is None:
        return found
    partial = fitted.correlation(response, term, others)
    return {**found, **dict(zip(("partial", "lower", "upper"), partial, strict=True)), "p": fitted.p}
