"""The value that counts is that of the closest accuracy on held-out training images, and test images have no say."""

import numpy as np
import pandas as pd
import pytest
from builders import grid, planned

from deltaball.analysis.choices import choices, settled
from deltaball.plan.plan import Plan
from deltaball.report import sentences
from deltaball.workflow import stages

PLAIN = {"name": "plain", "validation": 500, "epochs": 5, "seed": [0, 1]}
HEIN = PLAIN | {"name": "hein", "objective": "cross_lipschitz", "beta": [1.0, 0.1, 0.01]}


@pytest.fixture
def plan() -> Plan:
    return planned(grid(**PLAIN), grid(**HEIN, choose={"axis": "beta", "to": "plain"}))


def table(plan: Plan, accuracies: dict[tuple[float | None, int], float], **changed: str) -> pd.DataFrame:
    """Networks by (β, seed) with accuracies on held-out images; those on test images would choose otherwise."""
    rows = []
    for network in plan.networks:
        beta, seed = network.axes.get("beta"), network.axes["seed"]
        rows.append(
            {
                "network_id": network.id,
                "status": changed.get(f"{beta} {seed}", "trained"),
                "validation_accuracy": accuracies[beta, seed],
                "test_accuracy": 0.9 if beta in (None, 1.0) else 0.1,
            }
        )
    return pd.DataFrame(rows)


FOUND = {(None, 0): 0.95, (1.0, 0): 0.80, (0.1, 0): 0.94, (0.01, 0): 0.97}
FOUND |= {(None, 1): 0.96, (1.0, 1): 0.90, (0.1, 1): 0.93, (0.01, 1): 0.95}


def chosen(found: pd.DataFrame) -> dict[str, float]:
    return dict(found[found["chosen"]][["setting", "value"]].itertuples(index=False))


def test_each_setting_has_the_value_that_is_closest(plan: Plan) -> None:
    found = choices(table(plan, FOUND), plan)
    assert chosen(found) == {"seed 0": 0.1, "seed 1": 0.01}
    assert np.allclose(found[found["chosen"]]["distance"], 0.01)
    assert "choices" in stages.tables(plan)
    told = sentences.choices(found)
    assert told.startswith("Grid hein chose beta 0.01 for 1 of 2 settings and 0.1 for 1 of 2 settings")


def test_of_equally_close_ones_the_first_that_the_study_lists_counts(plan: Plan) -> None:
    # 0.95 - 0.94 and 0.96 - 0.95 differ in their last bit.
    alike = FOUND | {(1.0, 0): 0.96, (0.1, 0): 0.94, (0.01, 0): 0.94}
    assert chosen(choices(table(plan, alike), plan))["seed 0"] == 1.0


def test_nothing_is_chosen_while_a_network_is_to_be_trained_yet(plan: Plan) -> None:
    waiting = choices(table(plan, FOUND, **{"1.0 0": "planned"}), plan)
    assert chosen(waiting) == {"seed 1": 0.01}


def test_what_diverged_is_not_chosen_and_nothing_is_where_there_is_nothing_to_be_close_to(plan: Plan) -> None:
    assert chosen(choices(table(plan, FOUND, **{"0.1 0": "diverged"}), plan))["seed 0"] == 0.01
    assert chosen(choices(table(plan, FOUND, **{"None 0": "failed"}), plan)) == {"seed 1": 0.01}


def test_comparisons_are_of_the_chosen_and_of_all_that_do_not_choose(plan: Plan) -> None:
    networks = table(plan, FOUND)
    left = settled(networks, choices(networks, plan))
    axes = {one.id: (one.axes.get("beta"), one.axes["seed"]) for one in plan.networks}
    assert {axes[one] for one in left["network_id"]} == {(None, 0), (None, 1), (0.1, 0), (0.01, 1)}


def test_other_axes_of_an_objective_make_settings_of_their_own() -> None:
    slopes = planned(grid(**PLAIN), grid(**HEIN, slopes=["all", "random"], choose={"axis": "beta", "to": "plain"}))
    found = choices(table(slopes, FOUND), slopes)
    assert set(chosen(found)) == {f"seed {seed}, slopes {one}" for seed in (0, 1) for one in ("all", "random")}
    assert not choices(table(slopes, FOUND), planned(grid(**PLAIN))).size
