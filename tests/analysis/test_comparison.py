"""Trainings side by side: which of several measures a number is of, and what stands beside it."""

import numpy as np
import pandas as pd
import pytest
from builders import grid, planned

from deltaball.analysis.comparison import COLUMNS, comparison
from deltaball.analysis.corruptions import corruptions, errors
from deltaball.analysis.scores import scores
from deltaball.plan.plan import Plan
from deltaball.workflow import stages

MEASURES = [
    {"notion": "margin", "norm": "l2", "delta": [1, 3], "attack": ["fmn", "ensemble"]},
    {"notion": "margin", "norm": "l2", "delta": 3, "attack": "ensemble_apart", "guarantee": {"epsilon": 0.2}},
    {"notion": "margin", "norm": "linf", "delta": 0.9, "attack": "ensemble"},
    {"notion": "class_change", "perturbation": "near", "delta": 28, "density": "reciprocal", "least": 2.0},
    {"notion": "classification", "perturbation": "mnist_c"},
]
GRIDS = [
    grid("conv5", name="plain", epochs=5),
    grid("conv5", name="ours", epochs=5, objective="cotraining", beta=0.5),
]


def compared(plan: Plan, found_by: str = "fgsm 1, bg 30, pgd 16") -> pd.DataFrame:
    rows = []
    for network in plan.networks:
        own = {"network_id": network.id, "cluster": network.trajectory_id, **network.groups, "parameters": 7}
        own |= {"test_accuracy": 0.9, "objective": network.axes["objective"], "epochs": 5}
        for place, one in enumerate(plan.measures):
            value = one.highest * (0.5 + 0.01 * place)
            row = {"measure": one.name, "notion": one.notion, "norm": one.norm, "delta": one.delta}
            row |= {"attack": one.attack, "samples": one.samples, "confidence": 0.95, "estimate": value}
            row |= {"tight_lower": value - 0.1, "tight_upper": value + 0.1, "lower": value - 0.2, "upper": value + 0.2}
            row |= {"inequality": "hoeffding", "tight_inequality": "betting", "side": "upper"}
            by = found_by if one.attack == "ensemble_apart" else "fgsm 0, bg 0, pgd 9"
            rows.append(own | row | {"found_by": by if one.attack and one.attack != "fmn" else None})
    measured = pd.DataFrame(rows).assign(noise=None, against=None, constraint=None)
    under = corruptions(measured, plan)
    return comparison(measured, scores(measured, plan), errors(under, "plain"), plan).set_index("grid")


def test_r2_is_the_ensembles_in_l2_that_reaches_furthest_and_shares_are_of_the_attacks_apart() -> None:
    plan = planned(*GRIDS, measures=MEASURES, paper="000")
    table = compared(plan)
    assert table["training"].to_dict() == {"plain": "baseline", "ours": "cotraining"}
    places = {one.name: place for place, one in enumerate(plan.measures)}
    r2 = 3 * (0.5 + 0.01 * places["margin_l2_3.0_ensemble"])
    assert table["r2"].to_list() == pytest.approx([r2] * 2)
    assert table["r2_per_diameter"].to_list() == pytest.approx([r2 / 28] * 2)
    assert table["cut_at"].eq(3).all()
    assert np.allclose(table[["fgsm", "bg", "pgd"]], np.array([1, 30, 16]) / 47)
    assert table["closest_by"].eq("ensemble_apart").all()
    near = next(place for name, place in places.items() if "near" in name)
    assert table["r4"].to_list() == pytest.approx([0.5 + 0.01 * near] * 2)
    assert (table["corrupted_upper"] - table["corrupted_lower"]).to_list() == pytest.approx([0.2] * 2)
    assert "comparison" in stages.tables(plan)


def test_where_nothing_was_found_no_attack_was_the_closest() -> None:
    table = compared(planned(*GRIDS, measures=MEASURES), "fgsm 0, bg 0, pgd 0")
    assert table["found"].eq(0).all()
    assert table[["fgsm", "bg", "pgd"]].isna().all(axis=None)


def test_what_was_not_measured_is_null() -> None:
    plan = planned(*GRIDS, measures=[{"notion": "margin", "norm": "linf", "delta": 0.9, "attack": "ensemble"}])
    table = compared(plan).reset_index()
    assert set(table) == set(COLUMNS)
    assert table[["r2", "r4", "corrupted", "cut_at", "bg"]].isna().all(axis=None)
    assert table["test_accuracy"].eq(0.9).all()
