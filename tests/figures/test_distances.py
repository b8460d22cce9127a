"""The curve of distances, a panel per judge and a line per kind of network."""

from pathlib import Path

import pytest
from drawn_figures import drawn, small
from synthetic_tables import write_tables

from deltaball.base.guarantees import epsilon_reached
from deltaball.workflow import stages

NAME = "distances_mnist5k"


def test_every_network_has_a_curve_with_its_band(tmp_path: Path) -> None:
    plan = small(tmp_path, analysis={"within": [0.05, 0.5]})
    write_tables(plan)
    assert NAME in stages.figures(plan)
    shown, said = drawn(plan, NAME)
    assert set(shown["by"]) == {"fmn"}  # who proves has no curve
    assert shown["network_id"].nunique() == 6
    assert {"FCN", "CNN"} == set(shown["kind"])
    assert shown["within"].max() == 0.2  # a line at 0.5 would be beyond all that was sought
    half = epsilon_reached(int(shown["samples"].iloc[0]), 0.95)
    inner = shown[(shown["lower"] > 0) & (shown["upper"] < 1)]
    assert (inner["upper"] - inner["lower"]).to_list() == pytest.approx([2 * half] * len(inner))
    assert "6 of 6 planned networks" in said
    assert f"± {half:.3f} with confidence 0.95" in said
    assert "FMN" in said


def test_where_no_distance_is_sought_there_is_no_curve(tmp_path: Path) -> None:
    plan = small(tmp_path, measures=[{"notion": "margin", "delta": 0.1, "certificate": "crown"}])
    assert NAME not in stages.figures(plan)
    assert "distances" not in stages.tables(plan)


def test_without_the_points_own_outcomes_the_figure_says_so(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    (plan.study.folder / "outcomes.parquet").unlink()
    shown, said = drawn(plan, NAME)
    assert shown.empty
    assert "0 of 6 planned networks: nothing is measured yet." in said
