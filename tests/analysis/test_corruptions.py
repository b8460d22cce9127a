"""Agreement and accuracy under corruption as a table, and mCE by hand."""

import re

import numpy as np
import pytest
from builders import grid, planned, study
from corrupted_tables import measured

from deltaball.analysis.corruptions import COLUMNS, ERRORS, corruptions, errors
from deltaball.base.guarantees import epsilon_reached
from deltaball.plan.plan import Plan
from deltaball.study.corruptions import FIFTEEN
from deltaball.study.study import Study
from deltaball.workflow import stages

GRIDS = [grid(name="reference", epochs=5), grid(name="other", epochs=5, width=8)]
ASKED = [
    {"notion": "class_change", "perturbation": ["fog", "mnist_c"]},
    {"notion": "classification", "perturbation": ["identity", "fog", "stripe", "mnist_c"]},
    {"notion": "classification", "perturbation": "shear", "severity": [1, 2, 5], "draws": 2},
    {"notion": "classification", "perturbation": "shear"},
]
OTHERS = [
    {"notion": "class_change", "delta": 0.1},
    {"notion": "class_change", "perturbation": "gaussian", "sigma": 0.1},
    {"notion": "class_change", "perturbation": "fog", "sampling": "unanimous"},
    {"notion": "softmax_variation", "perturbation": "fog"},
]
# Accuracy of the reference and of the other network.
ACCURACIES = {
    "classification_identity_mean-1": (0.9, 0.5),
    "classification_fog_mean-1": (0.6, 0.8),  # errors 0.4 and 0.2: 0.5
    "classification_stripe_mean-1": (0.5, 0.0),  # 0.5 and 1: 2
    "classification_mnist_c_mean-15": (0.55, 0.45),
    "classification_shear_1_mean-2": (0.9, 0.8),  # 0.1 and 0.2
    "classification_shear_mean-2": (0.8, 0.8),  # with the next 0.3 and 0.2 on average
    "classification_shear_mean-1": (0.6, 0.8),
    "classification_shear_5_mean-2": (0.4, 0.4),  # 0.6 and 0.6: (0.2 + 0.2 + 0.6) / (0.1 + 0.3 + 0.6) = 1
}


def study_of(*measures: dict, **changed: object) -> Plan:
    return planned(*GRIDS, measures=list(measures), **changed)


def test_a_row_says_what_of_which_corruption_and_severity():
    plan = study_of(*ASKED, *OTHERS)
    found = corruptions(measured(plan, ACCURACIES), plan)
    assert list(found.columns) == COLUMNS
    assert len(found) == 2 * 10
    assert set(found["quantity"]) == {"agreement", "accuracy"}
    assert not found["title"].isna().any()
    shear = found[(found["corruption"] == "shear") & (found["grid"] == "other")].set_index("measure")
    assert dict(shear["severity"]) == {
        "classification_shear_1_mean-2": 1,
        "classification_shear_mean-2": 2,
        "classification_shear_5_mean-2": 5,
        "classification_shear_mean-1": 2,
    }
    assert shear["usual"].tolist() == [False, True, False, True]
    assert found[found["corruption"] == "stripe"]["severity"].isna().all()
    assert found[found["corruption"].isin(["stripe", "mnist_c", "identity"])]["usual"].all()


def test_mce_by_hand():
    plan = study_of(*ASKED, *OTHERS)
    found = errors(corruptions(measured(plan, ACCURACIES), plan), "reference").set_index("grid")
    assert list(found.reset_index().columns.sort_values()) == sorted(ERRORS)
    assert found.loc["reference", "mce"] == pytest.approx(1)
    assert found.loc["other", "mce"] == pytest.approx((0.5 + 2 + 1) / 3)  # identity is none, and the mean is no other
    assert found["corruptions"].tolist() == [3, 3]
    assert found["mean_accuracy"].tolist() == [0.55, 0.45]


def test_without_a_reference_or_what_it_measured_there_is_no_mce():
    plan = study_of(*ASKED)
    table = corruptions(measured(plan, ACCURACIES), plan)
    nobody = errors(table, None)
    assert nobody["mce"].isna().all()
    assert nobody["mean_accuracy"].tolist() == [0.55, 0.45]
    perfect = table.assign(estimate=np.where(table["grid"] == "reference", 1.0, table["estimate"]))
    assert errors(perfect, "reference")["mce"].isna().all()  # it errs nowhere
    only_agreement = table[table["quantity"] == "agreement"]
    assert errors(only_agreement, "reference").empty


def test_tables_and_figures_are_those_of_studies_with_corruptions():
    plan = study_of(*ASKED)
    assert {"corruptions", "corruption_errors"} <= {*stages.tables(plan)}
    assert {"corruptions_mnist5k", "severities_mnist5k"} <= {*stages.figures(plan)}
    without = study_of(*OTHERS)
    assert not {"corruptions", "corruption_errors"} & {*stages.tables(without)}
    assert not {"corruptions_mnist5k", "severities_mnist5k"} & {*stages.figures(without)}
    assert "severities_mnist5k" not in stages.figures(study_of(ASKED[0]))


def test_a_reference_that_is_no_grid_is_refused():
    message = "analysis.reference: no grid 'refernce'; did you mean 'reference'?"
    with pytest.raises(ValueError, match=re.escape(message)):
        Study.model_validate(study(*GRIDS, measures=ASKED, analysis={"reference": "refernce"}))
    assert Study.model_validate(study(*GRIDS, measures=ASKED, analysis={"reference": "other"})).analysis.reference


def test_networks_adapted_to_a_corruption_each_are_one_system():
    adapted = grid(
        "fcn", "adapt", name="adapted", corruption=[*FIFTEEN, "mnist_c"], corrupted_images=8, adaptation="coral"
    )
    plan = planned(
        grid(name="reference", epochs=5),
        adapted,
        measures=[{"notion": "classification", "perturbation": [*FIFTEEN, "mnist_c"]}],
        analysis={"reference": "reference"},
    )
    rows = measured(plan, {})
    accuracies = {f"classification_{name}_mean-1": 0.5 + 0.02 * place for place, name in enumerate(FIFTEEN)}
    rows["estimate"] = rows["measure"].map(accuracies).fillna(0.7)
    found = corruptions(rows, plan)
    separate = found[found["pooled"] == "separate"]
    assert separate["system"].nunique() == 1
    assert set(separate["kind"]) == {"FCN, CORAL, separate 8"}
    assert len(separate) == 16
    (mean,) = separate[separate["corruption"] == "mnist_c"].to_dict("records")
    assert mean["estimate"] == pytest.approx(0.64)
    half = epsilon_reached(738, 0.95)
    assert (mean["lower"], mean["upper"]) == pytest.approx((0.64 - half, 0.64 + half))
    assert mean["cluster"] == found[found["grid"] == "reference"]["cluster"].iloc[0]
    assert len(found[found["pooled"] == "joint"]) == 16
    each = errors(found, "reference").set_index("kind")
    assert each.loc["FCN, CORAL, separate 8", ["corruptions", "mce", "mean_accuracy"]].tolist() == [15, 1, 0.64]
    assert len(each) == 3
    # Where one of the fifteen is missing, there is no such mean.
    fewer = corruptions(rows[rows["measure"] != "classification_fog_mean-1"], plan)
    assert "mnist_c" not in set(fewer[fewer["pooled"] == "separate"]["corruption"])
