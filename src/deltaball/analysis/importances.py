"""Which hyper-parameters matter? How much worse robustness is predicted when one is shuffled; and their slopes."""

import numpy as np
import pandas as pd
import statsmodels.api as sm
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import OrdinalEncoder

from deltaball.analysis.clustered import CONFIDENCE, FEWEST, Student
from deltaball.analysis.designs import thin
from deltaball.analysis.groups import EVERY, NAMES, Groups
from deltaball.analysis.judges import judged
from deltaball.analysis.multiplicity import benjamini_hochberg, holm
from deltaball.analysis.slopes import Slopes
from deltaball.study.grids import all_axes

FOLDS = 5
SHUFFLES = 5
EFFECT = ("effect_term", "standardised_effect", "effect_lower", "effect_upper", "effect_p")
COLUMNS = [*NAMES, "hyper_parameter", "importance", "lower", "upper", *EFFECT, "p_holm", "p_bh", "r_squared"]
COLUMNS += ["confidence"]


def importances(groups: Groups) -> pd.DataFrame:
    """A row per hyper-parameter that varies, for each attack that is shown and all networks of one architecture.

    `importance` is the permutation importance of gradient-boosted trees: by how much the squared error on networks of
    trajectories that the trees have not seen (5 folds, no trajectory in two) rises when the hyper-parameter is shuffled
    among them, as a share of the measure's variance. Its interval is Student's over trajectories; it speaks of these
    trees, not of other training sets. `r_squared` is what the trees predict of that variance.

    Beside it the slope in the regression on all hyper-parameters at once, in standard deviations of both, clustered by
    trajectory: of a text hyper-parameter that of the level with the largest one. `p_holm` and `p_bh` correct
    `effect_p` over the table.
    """
    shown = set(judged(groups.measured)[["dataset", "measure"]].itertuples(index=False, name=None))
    rows = []
    for names, members in groups:
        several = names["architecture"] == EVERY or names["networks_of"] != EVERY
        if several or (names["dataset"], names["measure"]) not in shown:
            continue
        axes = [axis for axis in groups.designs.blocks(members) if axis in all_axes()]
        if axes and members["cluster"].nunique() >= FEWEST and members["estimate"].nunique() > 1:
            effects = _effects(members, groups.designs.joint(members)[0], groups.slopes)
            share, found = _permuted(members, axes)
            for axis in axes:
                importance = found[axis]
                lower, upper = importance.interval(CONFIDENCE)
                row = {"importance": importance.estimate, "lower": lower, "upper": upper, "r_squared": share}
                rows.append({**names, "hyper_parameter": axis, **row, **effects.get(axis, {})})
    table = pd.DataFrame(rows, columns=COLUMNS).assign(confidence=CONFIDENCE)
    p_values = table["effect_p"].astype(float)
    return table.assign(p_holm=holm(p_values), p_bh=benjamini_hochberg(p_values))


def _permuted(members: pd.DataFrame, axes: list[str]) -> tuple[float, dict[str, Student]]:
    """R² on trajectories left out, and the importance of each axis with its error over trajectories."""
    kinds = all_axes()
    text = [axis for axis in axes if kinds[axis] is str]
    features = members[axes].astype({axis: float for axis in axes if axis not in text})
    features[text] = OrdinalEncoder().fit_transform(features[text].astype(str)) if text else features[text]
    values = features.to_numpy(float)
    response, clusters = members["estimate"].to_numpy(), pd.factorize(members["cluster"])[0]
    generator, variance = np.random.default_rng(0), float(np.var(response))
    # Trees are asked once per fold: the shuffled copies of its rows lie under each other.
    worse, error = np.zeros((len(axes), len(response))), np.zeros(len(response))
    folds = GroupKFold(min(FOLDS, clusters.max() + 1), shuffle=True, random_state=0)
    for seen, unseen in folds.split(values, response, clusters):
        trees = HistGradientBoostingRegressor(
            max_iter=40,
            max_leaf_nodes=8,
            min_samples_leaf=5,
            early_stopping=False,
            learning_rate=0.2,
            random_state=0,
            categorical_features=[axis in text for axis in axes],
        ).fit(values[seen], response[seen])
        copies = np.tile(values[unseen], (1 + len(axes) * SHUFFLES, 1, 1))
        for index in range(len(axes)):
            for shuffle in range(SHUFFLES):
                copy = copies[1 + index * SHUFFLES + shuffle]
                copy[:, index] = generator.permutation(copy[:, index])
        predicted = trees.predict(copies.reshape(-1, len(axes))).reshape(len(copies), -1)
        squares = (predicted - response[unseen]) ** 2
        error[unseen] = squares[0]
        worse[:, unseen] = squares[1:].reshape(len(axes), SHUFFLES, -1).mean(1) - squares[0]
    count = clusters.max() + 1
    found = {}
    for axis, gains in zip(axes, worse / variance, strict=True):
        mean = float(gains.mean())
        sums = np.bincount(clusters, gains - mean) / len(gains)
        found[axis] = Student(mean, float(np.sqrt(count / (count - 1) * np.sum(sums**2))), count - 1)
    return 1 - float(error.mean()) / variance, found


def _effects(members: pd.DataFrame, design: pd.DataFrame, slopes: Slopes) -> dict[str, dict[str, object]]:
    """Per axis the largest standardised slope in the regression on all axes, with its interval."""
    clusters, response = members["cluster"].to_numpy(), members["estimate"].to_numpy()
    found: dict[str, dict[str, object]] = {}
    if design.shape[1] + 2 > members["cluster"].nunique():
        return found
    fit = sm.OLS(response, sm.add_constant(design.to_numpy(float), has_constant="add")).fit()
    sizes = fit.params[1:] * design.std(ddof=0).to_numpy() / response.std()
    for position in np.argsort(np.abs(sizes)):
        term = design.columns[position]
        axis = term.partition(":")[0]
        if thin(design[[term]], clusters):
            continue
        # Larger ones come later and replace it.
        found[axis] = {"effect_term": term, "standardised_effect": sizes[position]}
    for effect in found.values():
        term, others = design[effect["effect_term"]], design.drop(columns=effect["effect_term"])
        tested = slopes.of(response, term.to_numpy(float), others.to_numpy(float), clusters)
        if tested is not None:
            scale = term.std(ddof=0) / response.std()
            effect |= {"effect_lower": scale * tested.lower, "effect_upper": scale * tested.upper}
            effect["effect_p"] = tested.p
    return found
