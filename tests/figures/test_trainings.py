"""The figures of paper 001, of synthetic tables."""

from pathlib import Path

import pandas as pd
import pytest
from builders import grid, planned
from drawn_figures import drawn, page_without_pictures
from synthetic_tables import write_tables

from deltaball.analysis import writing
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.tables import frames
from deltaball.workflow import stages

SR, LR, SCR = "standard_robustness", "lipschitz_robustness", "strong_classification"
MEASURES = [
    {"notion": SR, "bound": 10, "delta": [0.05, 0.1], "attack": "pgd"},
    {"notion": LR, "lipschitz": 10, "delta": [0.05, 0.1], "attack": "pgd"},
    {"notion": SCR, "eta": 0.52, "delta": 0.1, "attack": "pgd"},
    {"notion": SR, "bound": 10, "delta": 0.1, "sampling": "uniform", "certificate": "crown"},
    {"notion": SCR, "eta": 0.52, "delta": 0.1, "sampling": "uniform", "certificate": "crown"},
]
NAMES = [*stages.PAPERS_FIGURES["001"], "metrics_mnist5k"]


def study(folder: Path, **changed: object) -> Plan:
    seeds = {"width": 100, "seed": [0, 1], "epochs": [5, 10]}
    grids = [
        grid(name="baseline", **seeds),
        grid(name="augmented", objective="augmented", noise=["uniform", "fgsm"], **seeds),
        grid(name="adversarial", objective="adversarial", against=SR, **seeds),
        grid(name="constrained", objective="constrained", constraint=[SR, LR, SCR], **seeds),
        grid(name="larger", **(seeds | {"width": 200})),
    ]
    return planned(*grids, **{"measures": MEASURES, "results": str(folder), "paper": "001", **changed})


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    found = study(tmp_path_factory.mktemp("trainings"))
    write_tables(found)
    writing.write_tables(found)
    return found


def test_a_study_of_another_paper_has_its_figures_and_no_others(tmp_path: Path, plan: Plan) -> None:
    assert stages.figures(plan)[: len(NAMES)] == NAMES
    assert not any(
        stages.figure_kind(name) in {*stages.PAPERS_FIGURES["004"], "tradeoff"} for name in stages.figures(plan)
    )
    of_004 = study(tmp_path, paper="004")
    assert not set(NAMES) & set(stages.figures(of_004))
    assert "figure2" in stages.figures(of_004)
    assert "metrics" in stages.tables(plan)
    assert "metrics" not in stages.tables(of_004)
    alone = planned(grid(), paper="001", measures=MEASURES)
    assert [name for name in NAMES if name in stages.figures(alone)] == ["metrics_mnist5k"]


@pytest.mark.parametrize("name", stages.PAPERS_FIGURES["001"])
def test_the_last_checkpoints_of_the_trainings_that_a_figure_compares_are_shown(plan: Plan, name: str) -> None:
    shown, said = drawn(plan, name)
    every = frames.measured(*frames.load(plan))
    wanted = every[every["attack"].notna() & (every["epochs"] == 10)]
    small, constraint = wanted["width"] == 100, wanted["constraint"]
    wanted = {
        "trainings": wanted[small & (constraint.isna() | (constraint == SR))],
        "constraints": wanted[small & wanted["objective"].isin(["cross_entropy", "constrained"])],
        "attacks": wanted[small & ((wanted["objective"] == "adversarial") | constraint.isin([SR, LR]))],
        "sizes": wanted[wanted["notion"] == SCR],
    }[name]
    keys = ["network_id", "measure"]
    assert set(map(tuple, shown[keys].to_numpy())) == set(map(tuple, wanted[keys].to_numpy()))
    count = wanted["network_id"].nunique()
    assert f"{count} of {count} planned networks" in said
    assert "Security at δ = 0.1" in said


def test_the_three_metrics_are_in_one_figure_and_one_table(plan: Plan) -> None:
    shown, said = drawn(plan, "metrics_mnist5k")
    table = pd.read_csv(plan.study.folder / "tables/metrics.csv")
    # At the other radius there is security alone.
    table = table[table["delta"] == 0.1].reset_index(drop=True)
    pd.testing.assert_frame_equal(shown, table, check_dtype=False)
    whole = table[["security", "accuracy", "satisfaction"]].dropna()
    assert len(whole) == 2 * 8
    assert (whole["satisfaction"] <= whole["security"]).all()
    assert (whole["security"] <= whole["accuracy"]).all()
    assert "neither proven nor attacked" in said


def test_the_page_begins_with_the_papers_figures_and_says_where_the_study_differs(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("study: test\n")
    page = page_without_pictures(plan, tmp_path / "config.yaml").read_text()
    places = [page.index(f'<figure id="{name}"') for name in NAMES]
    assert places == sorted(places)
    assert places[-1] < page.index('id="explorer"')
    assert "Paper 001: Network Robustness as a Mathematical Property" in page
    assert "Where this study does not follow the paper" in page
    assert "test split" in page
    assert "learning_rate 0.01 (0.0001); epochs 5, 10 (100); attack_steps 10 (50)" in page


def test_the_studies_of_paper_001_are_planned_without_data(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, small = (loading.planned(root / f"studies/{name}.yaml") for name in ("constraints", "small-constraints"))
    # Eight trainings and five seeds, on two data sets, in two networks.
    assert len(whole.networks) == 8 * 5 * 2 * 2
    assert set(whole.facts) == {"fashion_mnist", "gtsrb10"}
    # Eight in the paper's network, and in a larger one those that its claims compare.
    assert len(small.networks) == (8 + 5) * 3
    for plan in (whole, small):
        assert set(stages.PAPERS_FIGURES["001"]) - {"sizes"} <= set(stages.figures(plan))
    assert "sizes" in stages.figures(whole)
