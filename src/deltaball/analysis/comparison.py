"""Trainings side by side, as paper 000 has them: accuracy, R2, which attack is the closest, corruptions, R4."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from deltaball.analysis.judges import entry
from deltaball.analysis.trainings import kinds, trainings
from deltaball.plan.measures import Measure
from deltaball.plan.plan import Plan
from deltaball.study.judges import JUDGES

ENSEMBLE, APART = "ensemble", "ensemble_apart"
ATTACKS = JUDGES[APART].members
SCORES = ("r2", "r4", "corrupted")

KNOWN = ["network_id", "cluster", "dataset", "grid", "architecture", "parameters", "epochs", "test_accuracy"]
COLUMNS = ["network_id", "cluster", "dataset", "grid", "kind", "training", "architecture", "parameters", "epochs"]
COLUMNS += ["test_accuracy", *(f"{one}{end}" for one in SCORES for end in ("", "_lower", "_upper", "_measure"))]
COLUMNS += ["r2_per_diameter", "cut_at", *ATTACKS, "found", "closest_by"]


def comparison(measured: pd.DataFrame, scored: pd.DataFrame, errors: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """One row per network: what Tables 1 to 5 and Figure 4 of paper 000 say of its training.

    `measured` are estimates of the networks that are compared, `scored` and `errors` their tables `scores` and
    `corruption_errors`. R2 is the mean L2 margin by `ensemble` (else by the attack that finds the nearest), cut at the
    largest δ, `cut_at`; it, R4 and `corrupted`, the mean accuracy on MNIST-C's fifteen, have tight intervals, and are
    estimates of the measures that are named. `fgsm`,
    `bg` and `pgd` are shares of the points at which something was `found`: where each was the closest, by
    `ensemble_apart` if that was asked.
    """
    known = measured.drop_duplicates("network_id")
    known = known.assign(kind=kinds(known), training=trainings(known))
    by_name = {one.name: one for one in plan.measures}
    r2 = _nearest(scored[scored["score"] == "R2"], by_name)
    found = {
        "r2": r2,
        "r4": scored[scored["score"] == "R4"],
        "corrupted": errors.rename(columns={"mean_accuracy": "estimate"}),
    }
    rows = known[[*KNOWN, "kind", "training"]].set_index("network_id", drop=False)
    for name, table in found.items():
        one = table.drop_duplicates("network_id").set_index("network_id")
        for column, end in (("estimate", ""), ("tight_lower", "_lower"), ("tight_upper", "_upper")):
            rows[f"{name}{end}"] = one[column].astype(float).reindex(rows.index)
        rows[f"{name}_measure"] = one["measure"].reindex(rows.index)
    of_r2 = r2.set_index("network_id")
    rows["r2_per_diameter"] = of_r2["per_diameter"].astype(float).reindex(rows.index)
    rows["cut_at"] = of_r2["measure"].map(lambda name: by_name[name].delta).astype(float).reindex(rows.index)
    shares = pd.DataFrame(_shares(measured, by_name), columns=["network_id", *ATTACKS, "found", "closest_by"])
    rows = rows.reset_index(drop=True).merge(shares, on="network_id", how="left", validate="one_to_one")
    return rows.reindex(columns=COLUMNS)


def _nearest(r2: pd.DataFrame, by_name: Mapping[str, Measure]) -> pd.DataFrame:
    """Of each network the R2 in L2 that reaches furthest, of these the ensemble's, else the smallest."""
    of = r2["measure"].map(by_name.get)
    rows = r2.assign(
        norm=of.map(lambda one: one.norm),
        reach=of.map(lambda one: one.delta).astype(float),
        other=of.map(lambda one: one.judge != ENSEMBLE).astype(bool),
        finds=of.map(lambda one: bool(one.attack)).astype(bool),
    )
    rows = rows[rows["finds"] & (rows["norm"] == "l2")]
    rows = rows.sort_values(["reach", "other", "estimate"], ascending=[False, True, True], kind="stable")
    return rows.drop_duplicates("network_id")


def _shares(measured: pd.DataFrame, by_name: Mapping[str, Measure]) -> list[list[Any]]:
    """Of each network how often each attack of an ensemble was the closest."""
    told = measured[measured["found_by"].notna() & measured["measure"].isin(by_name)]
    told = told[(told["norm"] == "l2") & (told["notion"] == "margin")]
    apart = told["attack"].map(lambda name: entry(name).name == APART).astype(bool)
    told = told.assign(apart=apart).sort_values(["apart", "delta"], ascending=False, kind="stable")
    return [_share(row) for row in told.drop_duplicates("network_id").to_dict("records")]


def _share(row: Mapping[str, Any]) -> list[Any]:
    counts = dict(one.split() for one in row["found_by"].split(", "))
    found = sum(map(int, counts.values()))
    each = [int(counts[name]) / found if found else None for name in ATTACKS]
    return [row["network_id"], *each, found, row["attack"]]
