"""Verdicts on paper 000 in simulated studies where its claims are true, false, or not to be told."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from deltaball.analysis.comparison import COLUMNS
from deltaball.analysis.rules import RULES
from deltaball.analysis.scorecard import TESTS, scorecard
from deltaball.study.grids import all_axes
from deltaball.tables.columns import RESULTS, ROBUSTNESS

NO_DRAWS = pd.DataFrame(columns=["attack", "certificate", "notion"])
FASHION = ("fashion_mnist", "conv5", 2_931_594)
# Accuracy, R2, shares of BG and PGD, accuracy under corruptions, R4: as Tables 1 to 5 have them, where they do.
Numbers = Mapping[tuple[str, str], tuple[float, float, float, float, float, float]]
PAPERS: Numbers = {
    ("mnist", "baseline"): (0.9945, 1.0, 0.983, 0.012, 0.809, 0.9),
    ("mnist", "cross_lipschitz"): (0.9898, 1.5, 0.851, 0.139, 0.841, 0.9),
    ("mnist", "cotraining"): (0.9874, 2.0, 0.257, 0.731, 0.835, 0.9),
    ("fashion_mnist", "baseline"): (0.9372, 0.3, 0.941, 0.029, 0.5, 0.9),
    ("fashion_mnist", "cross_lipschitz"): (0.9330, 0.5, 0.935, 0.029, 0.53, 0.9),
    ("fashion_mnist", "cotraining"): (0.9329, 1.06, 0.892, 0.079, 0.52, 0.9),
    ("fashion_mnist", "on_manifold"): (0.9404, 0.471, 0.9, 0.05, 0.5, 0.905),
    ("fashion_mnist", "on_manifold_adversarial"): (0.9211, 0.4, 0.9, 0.05, 0.5, 0.88),
}
TURNED: Numbers = {
    ("mnist", "baseline"): (0.97, 2.0, 0.2, 0.7, 0.9, 0.9),
    ("mnist", "cross_lipschitz"): (0.93, 1.5, 0.3, 0.6, 0.8, 0.9),
    ("mnist", "cotraining"): (0.90, 1.0, 0.6, 0.3, 0.7, 0.9),
    ("fashion_mnist", "baseline"): (0.95, 1.5, 0.2, 0.7, 0.6, 0.9),
    ("fashion_mnist", "cross_lipschitz"): (0.91, 1.0, 0.3, 0.6, 0.5, 0.9),
    ("fashion_mnist", "cotraining"): (0.92, 0.5, 0.4, 0.5, 0.4, 0.95),
    ("fashion_mnist", "on_manifold"): (0.91, 0.9, 0.9, 0.05, 0.5, 0.8),
    ("fashion_mnist", "on_manifold_adversarial"): (0.92, 0.4, 0.9, 0.05, 0.5, 0.9),
}
MEASURED = pd.DataFrame(
    columns=[*all_axes(), *RESULTS, *ROBUSTNESS, "cluster", "trajectory_id", "method", "architecture", "parameters"]
)
MEASURED = MEASURED.assign(dataset=None, grid=None)


def compared(numbers: Numbers, seeds: int = 8, points: int = 100_000, scatter: float = 0.001) -> pd.DataFrame:
    """The table `comparison` of networks whose numbers scatter over seeds about these."""
    generator, rows = np.random.default_rng(0), []
    half = 1 / np.sqrt(points)
    for (dataset, training), (accuracy, r2, bg, pgd, corrupted, r4) in numbers.items():
        for seed in range(seeds):
            moved = scatter * generator.normal(size=4)
            identity = f"{dataset} {training} {seed}"
            row = {"network_id": identity, "cluster": identity, "dataset": dataset, "training": training, "epochs": 10}
            row |= {"kind": f"Conv5 {training}", "architecture": "conv5", "parameters": FASHION[2], "grid": training}
            row |= {"test_accuracy": accuracy + 0.1 * moved[0], "bg": bg, "pgd": pgd, "fgsm": 1 - bg - pgd}
            for name, value in (("r2", r2), ("corrupted", corrupted), ("r4", r4)):
                value += moved[len(row) % 4]
                row |= {name: value, f"{name}_lower": value - half, f"{name}_upper": value + half}
            rows.append(row | {"found": points})
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def verdicts(table: pd.DataFrame) -> dict[str, str]:
    found = scorecard(MEASURED, NO_DRAWS, 0.05, 0.95, "000", comparison=table)
    return found[found["part"] == "overall"].set_index("claim")["verdict"].to_dict()


NOT_HERE = {"reported_accuracy_on_cifar10", "reported_accuracy_on_svhn"}


def test_every_claim_names_a_test_and_a_section_that_there_are() -> None:
    stated = RULES["000"]
    names = [claim["claim"] for claim in stated["claims"]]
    assert len(set(names)) == len(names)
    for claim in stated["claims"]:
        assert claim["test"] in TESTS
        assert claim["section"] in stated["sections"]
        assert claim["of"]["what"] in COLUMNS


def test_the_papers_own_numbers_support_its_claims() -> None:
    found = verdicts(compared(PAPERS))
    assert {name for name, verdict in found.items() if verdict == "not run"} == NOT_HERE
    assert {verdict for name, verdict in found.items() if name not in NOT_HERE} == {"supported"}, found


def test_numbers_the_other_way_round_contradict_them() -> None:
    found = verdicts(compared(TURNED))
    assert {verdict for name, verdict in found.items() if name not in NOT_HERE} == {"contradicted"}, found


@pytest.mark.parametrize("changed", [{"points": 10, "seeds": 3}, {"scatter": 0.5, "seeds": 3}])
def test_few_points_or_trainings_that_differ_decide_nothing_of_r2(changed: dict) -> None:
    found = verdicts(compared(PAPERS, **changed))
    assert found["cotraining_is_more_robust_than_hein"] == "undecided"


def test_smaller_networks_answer_no_number_of_the_paper() -> None:
    found = verdicts(compared(PAPERS).assign(parameters=1000))
    assert {found[name] for name in found if name.startswith("reported")} == {"not run"}


def test_one_training_of_a_kind_cannot_be_tested() -> None:
    found = verdicts(compared(PAPERS, seeds=1))
    assert set(found.values()) == {"undecided", "not run"}


def test_a_data_set_on_which_a_number_is_not_asked_has_no_part_of_its_claims() -> None:
    table = compared(PAPERS)
    table.loc[table["dataset"] == "mnist", "r2"] = np.nan
    found = scorecard(MEASURED, NO_DRAWS, 0.05, 0.95, "000", comparison=table)
    parts = found[(found["part"] != "overall") & found["says"].notna()]
    of_r2 = {claim["claim"] for claim in RULES["000"]["claims"] if claim["of"]["what"] == "r2"}
    asked = parts[parts["claim"].isin(of_r2) & parts["dataset"].notna()]
    assert set(asked["dataset"]) == {"fashion_mnist"}
    assert {"mnist", "fashion_mnist"} == set(parts.loc[~parts["claim"].isin(of_r2), "dataset"].dropna())
