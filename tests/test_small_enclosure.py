"""The tables of the small study of enclosures in the repository: complete, and no proof contradicts what is found."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shipped import assert_complete, assert_drawn, assert_made_of

from deltaball.analysis.enclosures import enclosures
from deltaball.analysis.settling import settling
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.tables import frames
from deltaball.workflow import jobs

NOTIONS = {"class_change": "exact-0.15", "softmax_variation": "branched-0.1", "variation_above_0.5": "branched-0.1"}


@pytest.fixture
def plan(root: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(root)
    return loading.planned(Path("studies/small-enclosure.yaml"))


def test_every_planned_network_is_trained_and_measured_on_the_catalogues_data(plan: Plan) -> None:
    assert_complete(plan)
    assert_drawn(plan)


def test_the_enclosures_that_are_shipped_are_made_of_its_tables(plan: Plan) -> None:
    networks, robustness = frames.load(plan)
    found = enclosures(networks, robustness, frames.load_curves(plan)[0])
    every = frames.measured(frames.distinct(networks, robustness), robustness)
    settled = settling(every, frames.load_outcomes(plan), jobs.records(plan))
    assert_made_of(plan.study.folder, {"enclosures": found, "settling": settled})


def test_what_every_judge_took_is_known(plan: Plan) -> None:
    settled = pd.read_csv(plan.study.folder / "tables/settling.csv")
    assert set(settled["network_id"]) == {network.id for network in plan.networks}
    assert (settled["seconds"] > 0).all()


def test_at_every_point_attacks_and_proofs_agree_and_branching_proves_no_less_than_crown(plan: Plan) -> None:
    outcomes = frames.load_outcomes(plan).set_index(["network_id", "measure"])["values"]
    compared = 0
    for network in plan.networks:
        asked = {one.name for one in plan.measures_of(network)}
        for notion, judge in NOTIONS.items():
            for delta in (0.02, 0.05, 0.1):
                if f"{notion}_linf_{delta}_{judge}" not in asked:
                    continue

                def told(by: str, notion: str = notion, delta: float = delta, own: str = network.id) -> np.ndarray:
                    return np.asarray(outcomes[own, f"{notion}_linf_{delta}_{by}"])

                attacked, crown, branched = told("pgd"), told("crown"), told(judge)
                sign = -1 if notion == "softmax_variation" else 1
                decided = ~np.isnan(branched)
                assert (sign * branched <= sign * attacked + 1e-6)[decided].all()
                assert (sign * crown <= sign * branched + 1e-6)[decided].all()
                compared += 1
    assert compared == 52 * 2 + 12 * 2 * 2


def test_branch_and_bound_closes_what_crown_leaves(plan: Plan) -> None:
    robustness = frames.load(plan)[1]
    proven = robustness[robustness["notion"] == "softmax_variation"].pivot_table(
        index=["network_id", "delta"], columns="certificate", values="estimate"
    )
    assert isinstance(proven, pd.DataFrame)
    assert (proven["branched-0.1"] < proven["crown"]).all()
