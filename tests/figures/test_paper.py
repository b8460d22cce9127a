"""The paper's own figures."""

from pathlib import Path

import numpy as np
import pytest
from builders import grid, planned
from drawn_figures import drawn, small
from synthetic_tables import two_data_sets, write_tables

from deltaball.tables import frames


def test_the_papers_figures_show_the_middle_delta_of_each_data_set(tmp_path: Path) -> None:
    plan = two_data_sets(tmp_path)
    write_tables(plan)
    every = frames.measured(*frames.load(plan))
    for name, methods in (("figure2", {"sgd"}), ("figure3", {"sgd", "imp"})):
        shown, said = drawn(plan, name)
        wanted = every[every["method"].isin(methods) & (every["delta"] == 0.1) & every["gamma"].isin([np.nan, 0.3])]
        if name == "figure3":
            wanted = wanted[(wanted["dataset"] == "mnist5k") & (wanted["architecture"] == "fcn")]
        assert shown[["network_id", "measure"]].apply(tuple, axis=1).is_unique
        assert set(zip(shown["network_id"], shown["estimate"].round(9), strict=True)) == set(
            zip(wanted["network_id"], wanted["estimate"].round(9), strict=True)
        )
        assert f"{wanted['network_id'].nunique()} of {wanted['network_id'].nunique()} planned networks" in said


@pytest.mark.parametrize("weaker", [True, False])
def test_sgd_networks_are_shown_under_a_tenth_of_delta_where_the_study_has_it(tmp_path: Path, weaker: bool) -> None:
    measures = [{"notion": "softmax_variation", "delta": [0.03, 0.06, 0.1]}]
    measures += [{"notion": "softmax_variation", "delta": 0.006, "only": {"method": "sgd"}}] * weaker
    grids = [grid(name="one", width=[64, 128]), grid("fcn", "hmc", name="five", width=[64, 128])]
    plan = planned(*grids, measures=measures, results=str(tmp_path))
    write_tables(plan)
    shown, said = drawn(plan, "figure4")
    pairs = shown.groupby("panel")[["method", "delta"]].apply(lambda rows: set(map(tuple, rows.to_numpy())))
    assert pairs["variation, δ = 0.06"] == {("sgd", 0.06), ("hmc", 0.06)}
    if weaker:
        assert pairs["SGD at δ = 0.006, HMC at 0.06"] == {("sgd", 0.006), ("hmc", 0.06)}
    assert ("The paper attacked SGD" in said) == (not weaker)
    assert len(pairs) == 1 + weaker
    assert "8 of 8 planned networks" in said


def test_the_middle_delta_is_chosen_by_what_was_asked() -> None:
    from deltaball.figures.paper import middle_level

    assert middle_level({("linf", None, 0.1): 9, ("linf", None, 0.03): 9, ("linf", None, 0.06): 9}) == (
        "linf",
        None,
        0.06,
    )
    assert middle_level({("linf", None, 0.02): 9, ("linf", None, 0.05): 9}) == ("linf", None, 0.05)
    assert middle_level({("linf", None, 0.006): 5, ("linf", None, 0.06): 9}) == ("linf", None, 0.06)
    assert middle_level({("l2", 0.3, 1.0): 9, ("l2", 0.5, 2.0): 9}) == ("l2", 0.3, 1.0)


def test_figure_1_shows_the_exact_answer_else_the_attack(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    shown, said = drawn(plan, "figure1")
    assert set(shown["certificate"]) == {"exact"}
    assert len(shown) == 2 * 5 * 50
    assert "2 of 2 planned networks" in said
    attacked = [{"measure": {"notion": "class_change", "delta": 0.06, "attack": "pgd", "certificate": "crown"}}]
    plan = small(tmp_path / "attacked", convergence=[attacked[0] | {"epsilon": [0.2, 0.1], "draws": 5}])
    write_tables(plan)
    shown, said = drawn(plan, "figure1")
    assert set(shown["attack"]) == {"pgd"}
