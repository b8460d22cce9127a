"""The table of robustness scores: what each is called, what a constant classifier has, and Proposition 6."""

import math

import numpy as np
import pandas as pd
import pytest
from builders import grid, planned
from scipy import stats

from deltaball.analysis.scores import COLUMNS, scores
from deltaball.plan.plan import Plan
from deltaball.workflow import stages

KERNELS = [
    {"notion": "class_change", "perturbation": "gaussian", "sigma": 0.1, "sampling": ["mean", "share"]},
    {"notion": "class_change", "perturbation": "near", "delta": 28, "density": "reciprocal", "least": 2.0},
    {"notion": "class_change", "perturbation": "near", "delta": 5, "labels": "kept"},
    {"notion": "class_change", "perturbation": "gaussian", "sigma": 0.1, "points": "cube"},
    {"notion": "margin", "delta": 3, "norm": "l2"},
    {"notion": "margin", "delta": 0.5},
]
OTHERS = [
    {"notion": "softmax_variation", "perturbation": "gaussian", "sigma": 0.1},  # rises with what changes
    {"notion": "classification", "perturbation": "gaussian", "sigma": 0.1},  # an accuracy
    {"notion": "class_change", "delta": 0.1},
]


def study(*measures: dict) -> Plan:
    return planned(grid(epochs=5), measures=list(measures))


def found(plan: Plan, estimate: float = 0.9, accuracy: float = 0.95) -> pd.DataFrame:
    return scores(measured(plan, estimate, accuracy), plan).set_index("measure")


def measured(plan: Plan, estimate: float = 0.9, accuracy: float = 0.95) -> pd.DataFrame:
    (network,) = plan.networks
    known = {"network_id": network.id, "test_accuracy": accuracy, "objective": "cross_entropy", **network.groups}
    known |= dict.fromkeys(("noise", "against", "constraint", "adversary", "rounds"))
    rows = [
        known
        | {
            "measure": one.name,
            "notion": one.notion,
            "samples": one.samples,
            "confidence": 0.95,
            "estimate": estimate * one.highest,
            "lower": 0.8,
            "upper": 0.99,
            "tight_lower": 0.85,
            "tight_upper": 0.93,
            "inequality": "hoeffding",
            "tight_inequality": "betting",
            "side": "exact",
        }
        for one in plan.measures
    ]
    return pd.DataFrame(rows)


def test_scores_are_named_as_the_papers_name_them():
    table = found(study(*KERNELS, *OTHERS))
    r4, kept = (name for name in table.index if "near" in name)
    assert set(table.index) == {one.name for one in study(*KERNELS).measures}
    assert table.loc[["margin_l2_3.0_fmn", "margin_linf_0.5_fmn"], "score"].tolist() == ["R2", "R2"]
    assert table.loc[r4, ["score", "type", "range"]].tolist() == ["R4", 2, "[2, 28]"]
    assert table.loc[kept, "type"] == 3
    assert table.loc["class_change_gaussian_0.1_cube_mean", "type"] == 1
    assert pd.isna(table.loc[kept, "score"])
    assert table.loc["class_change_gaussian_0.1_share", "shape"] == "ρ ≥ 0.95"
    assert table.loc["class_change_gaussian_0.1_mean", "kernel"] == "Gaussian noise, σ = 0.1"


def test_beside_each_stands_what_a_constant_classifier_has():
    table = found(study(*KERNELS))
    assert table["of_constant"].to_list() == pytest.approx([0.9] * len(table))
    assert table.loc["margin_l2_3.0_fmn", ["constant", "estimate"]].tolist() == pytest.approx([3, 2.7])
    # mnist5k has 28 × 28 pixels; in L∞ the diameter is 1.
    assert table.loc["margin_l2_3.0_fmn", "per_diameter"] == pytest.approx(2.7 / 28)
    assert table.loc["margin_linf_0.5_fmn", "per_diameter"] == pytest.approx(0.45)
    # R4 as the paper integrates it: ∫ over [2, 28] of 1/ε is ln 14, of a constant classifier.
    assert table["scale"].max() == pytest.approx(math.log(14))
    assert (found(study(*KERNELS), estimate=1.0)["of_constant"] == 1).all()


def test_proposition_6_splits_what_may_go_wrong_and_prints_what_it_assumes():
    plan = study(*KERNELS)
    table = found(plan)
    bound = table["accuracy_at_least"]
    tests = plan.facts["mnist5k"].test
    accuracy = stats.binomtest(round(0.95 * tests), tests).proportion_ci(0.95, "exact").low
    assert bound["class_change_gaussian_0.1_mean"] == pytest.approx(accuracy + 0.85 - 1)
    assert "keeps the label" in table.loc["class_change_gaussian_0.1_mean", "provided_that"]
    kept = next(name for name in table.index if "kept" in name)
    assert table.loc[kept, "provided_that"] == "labels are kept, as the kernel has it"
    others = table.drop(index=["class_change_gaussian_0.1_mean", kept])
    assert others[["accuracy_at_least", "provided_that"]].isna().all(axis=None)
    assert found(plan, accuracy=0.1)["accuracy_at_least"].min() == 0
    assert found(plan, accuracy=np.nan)["accuracy_at_least"].isna().all()


def test_proposition_6_covers_accuracies_that_are_known():
    """Points are right with probability .9, and a perturbation changes the class of a tenth, right or wrong."""
    random, missed, plan = np.random.default_rng(0), 0, study(KERNELS[0])
    tests = plan.facts["mnist5k"].test
    for _ in range(300):
        right, same = random.uniform(size=tests) < 0.9, random.uniform(size=tests) < 0.9
        ends = stats.binomtest(int(same[:200].sum()), 200).proportion_ci(0.95, "exact")
        accuracy = stats.binomtest(int(right.sum()), tests).proportion_ci(0.95, "exact").low
        missed += max(0, accuracy + ends.low - 1) > 0.9 * 0.9
    assert missed <= 15


def test_studies_without_kernels_and_distances_have_no_such_table():
    assert "scores" not in stages.tables(study({"notion": "class_change", "delta": 0.1}))
    assert "scores" in stages.tables(study(KERNELS[0]))
    assert "scores" in stages.tables(study(KERNELS[-1]))
    plan = study(KERNELS[0])
    assert list(scores(measured(plan)[:0], plan)) == COLUMNS
