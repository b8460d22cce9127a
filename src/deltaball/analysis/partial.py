"""Correlations of robustness with one thing, all others held fixed."""

import numpy as np
import pandas as pd

from deltaball.analysis.clustered import CONFIDENCE, slope, standardised
from deltaball.analysis.designs import ACCURACY, Designs, thin
from deltaball.analysis.groups import EVERY, NAMES, groups
from deltaball.analysis.multiplicity import benjamini_hochberg, holm

REPLICATES = 1999
COLUMNS = [*NAMES, "term", "unit", "correlation", "partial", "lower", "upper", "p", "p_holm", "p_bh", "confidence"]


def partial_correlations(measured: pd.DataFrame) -> pd.DataFrame:
    """Per group of one architecture: of each measure with accuracy given all hyper-parameters, and with each of these.

    `correlation` is Pearson's with nothing held fixed, `partial` that of the residuals on all other terms. Its
    interval is that of the slope between residuals in units of their standard deviations, clustered by trajectory (by
    a wild bootstrap where these are few) and cut to [-1, 1]. `p_holm` and `p_bh` are over the table.
    """
    rows, designs = [], Designs()
    for names, members in groups(measured):
        if names["architecture"] == EVERY or len(members) < 3:
            continue
        axes, units = designs.joint(members)
        design = pd.concat([members[[ACCURACY]].reset_index(drop=True), axes], axis=1)
        units = {ACCURACY: "", **units}
        clusters, response = members["cluster"].to_numpy(), members["estimate"].to_numpy()
        for term in design:
            others = design.drop(columns=term).to_numpy(float)
            tested = (
                {} if thin(design[[term]], clusters) else _tested(response, design[term].to_numpy(), others, clusters)
            )
            rows.append({**names, "term": term, "unit": units[term], **tested})
    table = pd.DataFrame(rows, columns=COLUMNS).assign(confidence=CONFIDENCE)
    p_values = table["p"].astype(float)
    return table.assign(p_holm=holm(p_values), p_bh=benjamini_hochberg(p_values))


def _tested(response: np.ndarray, term: np.ndarray, others: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    if np.ptp(response) == 0 or np.ptp(term) == 0:
        return {}
    found = {"correlation": np.corrcoef(response, term)[0, 1]}
    scaled, measured_term, ratio = standardised(response, term, others)
    fitted = slope(scaled, measured_term, others, clusters, replicates=REPLICATES) if np.isfinite(ratio) else None
    if fitted is None:
        return found
    lower, upper = np.clip(fitted.interval(CONFIDENCE), -1, 1)
    return {**found, "partial": fitted.estimate, "lower": lower, "upper": upper, "p": fitted.p(0)}
