"""How far attacks overestimate the distance to the closest violation: beside exact distances, point by point."""

import numpy as np
import pandas as pd

from deltaball.analysis.judges import decides, settings
from deltaball.analysis.trainings import kinds
from deltaball.study.notions import NOTIONS

BALL = ["dataset", "norm", "delta"]
POINTS = ["dataset", "network_id", "kind", "norm", "delta", "certificate", "attack", "point", "exact", "found", "ratio"]
OF = ["dataset", "kind", "norm", "delta", "certificate", "attack"]
COLUMNS = [*OF, "networks", "points", "near", "missed", "median", "most", "largest"]
ALIKE = 1e-6  # of two distances in float32
MOST = 0.9  # the quantile of the column `most`


def points(measured: pd.DataFrame, outcomes: pd.DataFrame | None) -> pd.DataFrame:
    """One row per network × attack × test point of which the exact distance is known, and smaller than δ.

    `exact` is that distance ρ, `found` the attack's ρ̂, null where it finds nothing within δ; `ratio` is ρ̂ / ρ, infinite
    there. Points whose own class is ambiguous, ρ = 0, are left out. `outcomes` is outcomes.parquet; there are no rows
    without it.
    """
    sought = measured.assign(kind=kinds(measured)) if len(measured) else measured.assign(kind="")
    sought = sought[sought["notion"].map(lambda notion: NOTIONS[notion].is_distance).astype(bool)]
    exact, attacked = sought[decides(sought["certificate"])], sought[sought["attack"].notna()]
    if outcomes is None or exact.empty or attacked.empty:
        return pd.DataFrame(columns=POINTS)
    values, keys = outcomes.set_index(["network_id", "measure"])["values"], [*BALL, "network_id"]
    exact = exact[[*keys, "kind", "measure", "samples", "certificate"]]
    pairs = exact.merge(attacked[[*keys, "measure", "samples", "attack"]], on=keys, suffixes=("", "_attack"))
    compared = [_compared(values, row) for row in pairs.to_dict("records")]
    return pd.concat(compared, ignore_index=True)[POINTS] if compared else pd.DataFrame(columns=POINTS)


def _compared(values: pd.Series, row: dict) -> pd.DataFrame:
    samples = min(row["samples"], row["samples_attack"])
    exact, found = (
        np.asarray(values.loc[(row["network_id"], row[name])][:samples], float)
        for name in ("measure", "measure_attack")
    )
    cut = row["delta"] * (1 - ALIKE)
    (places,) = np.nonzero((exact > 0) & (exact < cut))
    exact, found = exact[places], np.where(found < cut, found, np.inf)[places]
    told = {"point": places, "exact": exact, "found": np.where(np.isinf(found), np.nan, found), "ratio": found / exact}
    return pd.DataFrame(told).assign(**{name: row[name] for name in POINTS if name in row})


def overestimates(compared: pd.DataFrame) -> pd.DataFrame:
    """One row per data set × kind of network × ball × exact distance × attack, of what `points` compared.

    `near` is the share of points at which ρ̂ is as near as the exact distance is known, `missed` the share at which the
    attack finds nothing; `median`, `most` (a quantile, MOST) and `largest` are ρ̂ / ρ of the points at which it does.
    """
    rows = []
    for key, members in compared.groupby(OF, sort=False):
        row = dict(zip(OF, key, strict=True))
        found = members.loc[np.isfinite(members["ratio"].astype(float)), "ratio"].astype(float)
        tolerance = settings(row["certificate"])["tolerance"]
        row |= {"networks": members["network_id"].nunique(), "points": len(members)}
        row |= {"near": (found * (1 - tolerance) <= 1 + ALIKE).sum() / len(members)}
        row |= {"missed": 1 - len(found) / len(members), "median": found.median()}
        rows.append(row | {"most": found.quantile(MOST), "largest": found.max()})
    return pd.DataFrame(rows, columns=COLUMNS)
