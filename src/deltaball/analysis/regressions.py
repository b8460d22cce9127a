"""Least squares of each measure on accuracy and on hyper-parameters, with errors clustered by trajectory."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from deltaball.analysis.clustered import CONFIDENCE, FEWEST
from deltaball.analysis.designs import ACCURACY, Designs, inflations, thin
from deltaball.analysis.groups import EVERY, NAMES, Groups
from deltaball.analysis.multiplicity import benjamini_hochberg, holm
from deltaball.analysis.points import CORRECTED, TWO_WAY, SharedPoints, corrected
from deltaball.analysis.ranges import highest
from deltaball.analysis.slopes import Slopes

FITTED = ("slope", "standard_error", "lower", "upper", "p", "inference", "r_squared")
PER_UNIT = "per unit of accuracy"
COLUMNS = [*NAMES, "model", "term", "unit", *FITTED, "p_holm", "p_bh", *CORRECTED, *TWO_WAY, "vif"]


def regressions(
    groups: Groups, test_points: Mapping[str, int] | None = None, shared: SharedPoints | None = None
) -> pd.DataFrame:
    """One row per group × model × term.

    `simple` models have one term: `test_accuracy`, a hyper-parameter, or `parameters`; a text hyper-parameter and the
    seed have an indicator per level but the first. The model `accuracy_adjusted` has accuracy and all hyper-parameters
    at once; `interactions` adds the products of accuracy with each of these columns, all centred, and its rows are the
    products: by how much the slope on accuracy differs per unit of the hyper-parameter. Hyper-parameters are looked at
    within one architecture, and only where they vary.

    Standard errors are cluster-robust (CR1). `inference` says what made the interval and the p-value: CR1 with t
    quantiles at clusters - 1 degrees of freedom, or a wild cluster bootstrap where clusters are fewer than 30, really
    or effectively (`clustered`). `p_holm` and `p_bh` are corrected over all rows of this table. Null where too few
    trajectories (5 in all, 4 at a level) carry a term. `vif` is the term's variance inflation.

    Beside the naive slope on accuracy alone: `slope_corrected`, freed of attenuation given the sizes of the test splits
    `test_points`, and `two_way_*`, from a bootstrap over test points and trajectories given `shared` outcomes.
    """
    rows = []
    for names, members in groups:
        designs = None if names["architecture"] == EVERY else groups.designs
        for model, fitted in _models(members.reset_index(drop=True), designs, groups.slopes):
            for row in fitted:
                beside = {}
                if model == "simple" and row["term"] == ACCURACY and not np.isnan(row["slope"]):
                    beside = _beside(members, row, (test_points or {}).get(names["dataset"]), shared)
                rows.append({**names, "model": model, **row, **beside})
    table = pd.DataFrame(rows, columns=COLUMNS)
    p_values = table["p"].astype(float)
    return table.assign(p_holm=holm(p_values), p_bh=benjamini_hochberg(p_values))


def _models(
    members: pd.DataFrame, designs: Designs | None, slopes: Slopes
) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Each model's name and rows; that on accuracy alone where there are no `designs`."""
    accuracy = members[[ACCURACY]]
    yield "simple", _fitted(members, accuracy, {ACCURACY: PER_UNIT}, slopes)
    if designs is None:
        return
    for design, unit in designs.blocks(members).values():
        yield "simple", _fitted(members, design, dict.fromkeys(design, unit), slopes)
    axes, units = designs.joint(members)
    if axes.empty:
        return
    whole = pd.concat([accuracy, axes], axis=1)
    yield "accuracy_adjusted", _fitted(members, whole, {ACCURACY: PER_UNIT, **units}, slopes)
    products = {f"{ACCURACY} × {term}": f"{PER_UNIT}, {unit}" for term, unit in units.items()}
    centred = whole - whole.mean()
    both = centred[list(axes)].mul(centred[ACCURACY], axis=0).set_axis(list(products), axis=1)
    tested = [
        product for product, term in zip(products, axes, strict=True) if not thin(axes[[term]], members["cluster"])
    ]
    fitted = _fitted(members, pd.concat([centred, both], axis=1), products, slopes, tested)
    yield "interactions", fitted


_NOTHING = dict.fromkeys((*FITTED, "vif"), np.nan) | {"inference": None}


def _fitted(
    members: pd.DataFrame,
    design: pd.DataFrame,
    units: Mapping[str, str],
    slopes: Slopes,
    tested: Sequence[str] | None = None,
) -> list[dict[str, object]]:
    """A row per term of `units`, columns of the design, from one fit; null where it is not to be `tested`."""
    rows = {term: {"term": term, "unit": unit, **_NOTHING} for term, unit in units.items()}
    response, clusters = members["estimate"].to_numpy(float), members["cluster"]
    if clusters.nunique() < max(FEWEST, design.shape[1] + 2) or len(np.unique(response)) < 2:
        return list(rows.values())
    values = np.column_stack([np.ones(len(design)), design])
    single = len({term.partition(":")[0] for term in design}) == 1
    if np.linalg.matrix_rank(values) < values.shape[1] or (single and thin(design, clusters)):
        return list(rows.values())
    explained, inflated = _explained(values, response), dict(zip(design, inflations(design), strict=True))
    for term, row in rows.items():
        if (tested is not None and term not in tested) or (not single and thin(design[[term]], clusters)):
            continue
        others = design.drop(columns=term).to_numpy(float) if design.shape[1] > 1 else None
        found = slopes.of(response, design[term].to_numpy(float), others, clusters)
        if found is not None:
            fitted = (found.estimate, found.error, found.lower, found.upper, found.p, found.inference, explained)
            row |= dict(zip(FITTED, fitted, strict=True)) | {"vif": inflated[term]}
    return list(rows.values())


def _explained(values: np.ndarray, response: np.ndarray) -> float:
    """R² of a response [n] on a design [n, k] with a constant."""
    residuals = response - values @ np.linalg.lstsq(values, response, rcond=None)[0]
    return 1 - float(residuals @ residuals) / float(np.sum((response - response.mean()) ** 2))


def _beside(
    members: pd.DataFrame, row: dict[str, object], points: int | None, shared: SharedPoints | None
) -> dict[str, float]:
    scale = highest(members).iloc[0]
    accuracy, robust = members[ACCURACY].to_numpy(), members["estimate"].to_numpy()
    naive = row["slope"], row["lower"], row["upper"]
    found = corrected(accuracy, robust, naive, points, scale) if points else {}
    return {**found, **(shared.two_way(members, FEWEST, CONFIDENCE) if shared else {})}
