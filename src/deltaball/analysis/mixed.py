"""The slope of robustness on accuracy beside a random effect of the architecture."""

import numpy as np
import pandas as pd
from scipy import optimize, stats

from deltaball.analysis.clustered import CONFIDENCE
from deltaball.analysis.designs import ACCURACY
from deltaball.analysis.groups import EVERY, NAMES, Groups
from deltaball.analysis.multiplicity import benjamini_hochberg, holm
from deltaball.study.architectures import Cnn, Fcn

FEWEST_SHAPES = 5
SHAPE = sorted({*Fcn.model_fields, *Cnn.model_fields} - {"architecture"})
# Logarithms, between which the ratio of the variances between and within architectures is looked for.
RATIOS = ((-20.0, -6.0), (-6.0, 0.0), (0.0, 12.0))
FITTED = ("slope", "standard_error", "lower", "upper", "p")
COLUMNS = [*NAMES, "shapes", *FITTED, "p_holm", "p_bh", "architecture_share", "confidence"]


def mixed(groups: Groups) -> pd.DataFrame:
    """Per group of one kind of architecture, a random intercept per shape (all axes of the architecture), by REML.

    Checkpoints of one trajectory are not independent, so it is their means that are fitted, one row per trajectory
    (of pruned networks, per trunk and shape). `architecture_share` is the intercepts' share of the variance that
    accuracy leaves. Student's t with trajectories - 2 degrees of freedom. Null with fewer than 5 shapes, or as many
    shapes as trajectories. `p_holm` and `p_bh` are over the table.
    """
    rows = []
    for names, members in groups:
        if names["architecture"] == EVERY:
            continue
        axes = [axis for axis in SHAPE if members[axis].notna().any()]
        shape = members.groupby(axes, dropna=False, sort=False).ngroup() if axes else 0
        means = members.assign(shape=shape).groupby(["cluster", "shape"], sort=False)[[ACCURACY, "estimate"]].mean()
        means = means.reset_index()
        rows.append({**names, "shapes": means["shape"].nunique(), **_fitted(means)})
    table = pd.DataFrame(rows, columns=COLUMNS).assign(confidence=CONFIDENCE)
    p_values = table["p"].astype(float)
    return table.assign(p_holm=holm(p_values), p_bh=benjamini_hochberg(p_values))


def _fitted(means: pd.DataFrame) -> dict[str, float]:
    shapes = means["shape"].nunique()
    if shapes < FEWEST_SHAPES or shapes == len(means) or min(means[ACCURACY].std(), means["estimate"].std()) < 1e-9:
        return {}
    accuracy = means[ACCURACY] - means[ACCURACY].mean()
    slope, error, share = random_intercept(means["estimate"].to_numpy(), accuracy.to_numpy(), means["shape"].to_numpy())
    freedom = len(means) - 2
    half = stats.t.isf((1 - CONFIDENCE) / 2, freedom) * error
    p_value = 2 * stats.t.sf(abs(slope) / error, freedom) if error > 0 else float(slope == 0)
    values = (slope, error, slope - half, slope + half, p_value)
    return {**dict(zip(FITTED, values, strict=True)), "architecture_share": share}


def random_intercept(response: np.ndarray, term: np.ndarray, groups: np.ndarray) -> tuple[float, float, float]:
    """Slope, its standard error, and the intercepts' share of the variance in y = a + b x + u_group + e, by REML.

    The likelihood is a function of one number, the ratio θ of the two variances, once the others are solved for
    (Pinheiro and Bates 2000, Section 2.2). statsmodels' MixedLM finds the same maximum (a test holds it to that), if
    by its one slow method that does not stop short of it.
    """
    columns = np.column_stack([np.ones(len(term)), term, response])
    codes = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(codes)
    sums = np.column_stack([np.bincount(codes, column) for column in columns.T])
    whole, freedom = columns.T @ columns, len(term) - 2

    def solved(ratio: float) -> tuple[np.ndarray, np.ndarray, float]:
        moments = whole - sums.T @ (sums * (ratio / (1 + ratio * sizes))[:, None])
        coefficients = np.linalg.solve(moments[:2, :2], moments[:2, 2])
        return moments[:2, :2], coefficients, max(float(moments[2, 2] - coefficients @ moments[:2, 2]), 0.0)

    def negative(log_ratio: float) -> float:
        ratio = np.exp(log_ratio)
        design, _, squares = solved(ratio)
        return freedom * np.log(squares + 1e-300) + np.log1p(ratio * sizes).sum() + np.linalg.slogdet(design)[1]

    # The likelihood may have a second, lower maximum at the border, so its ends are searched on their own.
    found = [optimize.minimize_scalar(negative, bounds=ends, method="bounded") for ends in RATIOS]
    ratio = float(np.exp(min(found, key=lambda one: one.fun).x))
    design, coefficients, squares = solved(ratio)
    error = np.sqrt(squares / freedom * np.linalg.inv(design)[1, 1])
    return float(coefficients[1]), float(error), ratio / (1 + ratio)
