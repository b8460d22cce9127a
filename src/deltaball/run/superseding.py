"""What a study's own tables have in another form than the study asks by now: it is left out, and made anew.

A study file may be edited at any time. An estimate from other test points or with another guarantee is another number
(`frames.SAME`), and a network of other data is another network.
"""

import numpy as np
import pandas as pd

from deltaball.base.guarantees import samples_needed
from deltaball.plan.plan import Plan
from deltaball.run.pieces import Piece


def current(plan: Plan, piece: Piece) -> Piece:
    """The tables of a piece without the rows that the plan asks for in another form."""
    tables = dict(piece.tables)
    stale = _of_other_data(plan, tables["networks"])
    tables = {name: table[~table["network_id"].isin(stale)] for name, table in tables.items()}
    robustness = tables["robustness"]
    other_points = robustness["points_seed"] != plan.study.guarantee.seed
    superseded = other_points | _guaranteed_otherwise(plan, robustness)
    drawn = set(robustness["network_id"][~other_points]) if other_points.any() else None
    tables["robustness"] = robustness[~superseded]
    for name in ("outcomes", "curves", "convergence") if drawn is not None else ():
        tables[name] = tables[name][tables[name]["network_id"].isin(drawn)]
    tables["outcomes"] = _as_long_as_asked(plan, tables["outcomes"])
    tables["curves"] = tables["curves"][~tables["curves"]["network_id"].isin(robustness["network_id"][superseded])]
    tables["convergence"] = tables["convergence"][_drawn_as_asked(plan, tables["convergence"])]
    return Piece(piece.source, {name: table.reset_index(drop=True) for name, table in tables.items()})


def _of_other_data(plan: Plan, networks: pd.DataFrame) -> set[str]:
    fingerprints = {network.id: plan.facts[network.dataset].fingerprint for network in plan.networks}
    known = networks["data_sha256"].notna() & networks["network_id"].isin(fingerprints)
    other = networks["data_sha256"] != networks["network_id"].map(fingerprints)
    return set(networks["network_id"][known & other])


def _guaranteed_otherwise(plan: Plan, robustness: pd.DataFrame) -> pd.Series:
    """Which estimates have other numbers of points, ε or confidence than the plan; none that it does not ask for."""
    guarantees = {
        (network.id, one.name): (one.samples, one.epsilon, one.confidence)
        for network in plan.networks
        for one in plan.measures_of(network)
    }
    rows = robustness[["network_id", "measure", "samples", "epsilon", "confidence"]].itertuples(index=False, name=None)
    differs = [(found := tuple(rest)) != guarantees.get((one, name), found) for one, name, *rest in rows]
    return pd.Series(differs, robustness.index, dtype=bool)


def _as_long_as_asked(plan: Plan, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Lists of outcomes cut to the points that are asked for; without those that are too short."""
    points = {
        (network.id, one.name): count for network in plan.networks for one, count in plan.asked_of(network).items()
    }
    keys = outcomes[["network_id", "measure"]].itertuples(index=False, name=None)
    wanted = [points.get(key) for key in keys]
    lists = list(zip(outcomes["values"], wanted, strict=True))
    outcomes = outcomes.assign(values=pd.Series([values[:count] for values, count in lists], outcomes.index, object))
    return outcomes[np.array([count is None or len(values) >= count for values, count in lists], bool)]


def _drawn_as_asked(plan: Plan, convergence: pd.DataFrame) -> np.ndarray:
    confidence = plan.study.guarantee.confidence
    rows = convergence[["epsilon", "confidence", "samples"]].itertuples(index=False)
    as_asked = [row.confidence == confidence and row.samples == samples_needed(row.epsilon, confidence) for row in rows]
    return np.array(as_asked, bool)
