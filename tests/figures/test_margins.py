"""Margin curves: frequencies turned round, with R2, the area below."""

from pathlib import Path

import numpy as np
import pytest
from drawn_figures import drawn, small
from synthetic_tables import write_tables

from deltaball.workflow import stages

NAME = "margins_mnist5k"


def test_the_area_below_a_curve_is_r2(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    assert NAME in stages.figures(plan)
    shown, said = drawn(plan, NAME)
    for _, curve in shown.groupby("network_id"):
        assert curve["margin"].is_monotonic_decreasing
        assert ((curve["lower"] <= curve["margin"]) & (curve["margin"] <= curve["upper"])).all()
        # 40 steps: no further from the mean of the distances than one of them is long.
        area = np.trapezoid(curve["margin"], curve["within"])
        assert curve["r2"].iloc[0] == pytest.approx(area, abs=0.2 / 40)
    assert f"R2 = {shown.drop_duplicates('network_id').groupby('kind')['r2'].mean().iloc[0]:.3g}" in said
    assert "6 of 6 planned networks" in said


def test_where_no_distance_is_sought_there_is_no_curve(tmp_path: Path) -> None:
    plan = small(tmp_path, measures=[{"notion": "class_change", "delta": 0.1}])
    assert NAME not in stages.figures(plan)


def test_without_the_points_own_outcomes_the_figure_says_so(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    (plan.study.folder / "outcomes.parquet").unlink()
    shown, said = drawn(plan, NAME)
    assert shown.empty
    assert "0 of 6 planned networks: nothing is measured yet." in said
