"""What each stage settles and costs, as a picture."""

from pathlib import Path

import pandas as pd
import pytest
from builders import grid
from drawn_figures import drawn, page_without_pictures, small
from synthetic_tables import write_tables

from deltaball.analysis import writing
from deltaball.figures import settling
from deltaball.plan.plan import Plan
from deltaball.workflow import jobs, stages

NAME = "settling_mnist5k_class_change"


def recorded(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    judging = {one.name: {network.id: (one.samples, 2.0) for network in plan.networks} for one in plan.measures}
    monkeypatch.setattr(jobs, "records", lambda _: [{"judging": judging}])


def test_bars_stand_for_kinds_of_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    recorded(plan, monkeypatch)
    assert NAME in stages.figures(plan)
    shown, said = drawn(plan, NAME)
    assert set(shown["kind"]) == {"FCN 1×64", "FCN 1×128", "CNN"}
    assert shown["seconds"].eq(2).all()
    assert all(word in said for word in ("FCN 1×64", "FGSM", "CROWN", "the exact answer", "open"))
    assert "not recorded" not in said
    left = 1 - shown.groupby(["network_id", "delta"])["settled"].sum()
    assert f"{100 * left.mean():.1f} % are left open" in said
    by_judge = shown.groupby("judge")["seconds"].sum()
    assert f"{100 * by_judge.max() / by_judge.sum():.0f} % of the time went to" in said


def test_without_records_no_cost_is_shown(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    shown, said = drawn(plan, NAME)
    assert shown["seconds"].isna().all()
    assert "What it took was not recorded" in said
    assert "of the time went to" not in said


def test_it_is_drawn_where_branch_and_bound_is_asked_for(tmp_path: Path) -> None:
    measures = [{"notion": "class_change", "delta": 0.1, "attack": "pgd", "certificate": "crown"}]
    plan = small(tmp_path, measures=measures, convergence=[])
    assert not [name for name in stages.figures(plan) if name.startswith("settling")]
    assert "settling" not in stages.tables(plan)
    branched = {
        "notion": "variation_above",
        "gamma": 0.5,
        "delta": 0.1,
        "certificate": "branched",
        "only": {"grid": "two"},
    }
    plan = small(tmp_path, measures=[*measures, branched], convergence=[])
    assert "settling" in stages.tables(plan)
    assert [name for name in stages.figures(plan) if name.startswith("settling")] == [
        "settling_mnist5k_variation_above"
    ]


def test_many_kinds_are_shown_by_architecture() -> None:
    rows = [("fcn", depth, width, name) for depth in (1, 2) for width in range(9) for name in ("relu", "tanh")]
    table = pd.DataFrame(rows, columns=["architecture", "depth", "width", "activation"])
    table["network_id"] = [f"{index}" for index in table.index]
    assert settling.named(table.head(4)).tolist() == ["FCN 1×0 relu", "FCN 1×0 tanh", "FCN 1×1 relu", "FCN 1×1 tanh"]
    assert set(settling.named(table)) == {"FCN"}


def test_the_page_tells_stage_by_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small(tmp_path, grids=[grid(name="one", width=64, learning_rate=0.1)], convergence=[])
    write_tables(plan)
    recorded(plan, monkeypatch)
    writing.write_tables(plan)
    page = page_without_pictures(plan).read_text()
    assert "What each stage settled and cost" in page
    table = pd.read_csv(plan.study.folder / "tables/settling.csv")
    assert set(table["judge"]) >= {"fgsm", "pgd", "crown", "exact"}
    assert set(table["seconds"]) == {2.0}
