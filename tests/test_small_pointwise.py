"""The tables of paper 002's small study in the repository: complete, and what its scorecard is made of."""

from pathlib import Path

import numpy as np
import pytest
from shipped import assert_complete, assert_drawn, assert_made_of

from deltaball.analysis.convergence import spread
from deltaball.analysis.distances import cumulative, distances
from deltaball.analysis.overestimates import overestimates, points
from deltaball.analysis.scorecard import VERDICTS, scorecard
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.tables import frames
from deltaball.workflow import stages

EXACT = "exact-10"


@pytest.fixture
def plan(root: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(root)
    return loading.planned(Path("studies/small-pointwise.yaml"))


def test_every_planned_network_is_trained_and_measured_on_the_catalogues_data(plan: Plan) -> None:
    assert_complete(plan)


def test_the_control_learned_from_no_example(plan: Plan) -> None:
    networks, _ = frames.load(plan)
    learned = networks.groupby("grid")["examples_learned"].sum()
    assert learned["fcn-nothing"] == 0
    assert learned["fcn-lp"] > 0


def test_the_tables_that_are_shipped_are_made_of_its_outcomes(plan: Plan) -> None:
    networks, robustness = frames.load(plan)
    measured, outcomes = frames.measured(networks, robustness), frames.load_outcomes(plan)
    settings, draws = plan.study.analysis, spread(networks, frames.load_curves(plan)[1])
    near = distances(measured, outcomes, settings.within)
    values = settings.equivalence_margin, plan.study.guarantee.confidence
    claims = scorecard(measured, draws, *values, plan.study.paper, near, outcomes=frames.load_outcomes(plan))
    curves = cumulative(measured, outcomes, settings.within)
    above = overestimates(points(measured, outcomes))
    assert_made_of(
        plan.study.folder,
        {"scorecard": claims, "distances": near, "distance_curves": curves, "overestimates": above},
    )
    assert set(claims["verdict"]) <= set(VERDICTS)


def test_no_attack_finds_what_the_exact_answer_excludes(plan: Plan) -> None:
    """ρ ≤ ρ̂ at every point that is decided: a violation within 20/255 is one of the ball."""
    outcomes = frames.load_outcomes(plan).set_index(["network_id", "measure"])["values"]
    decided = [key for key in outcomes.index if key[1].endswith(EXACT)]
    assert len(decided) == 3
    for network, measure in decided:
        robust = np.asarray(outcomes[network, measure]) == 1
        for one in plan.measures:
            if one.attack and one.notion == "margin" and (network, one.name) in outcomes.index:
                found = np.asarray(outcomes[network, one.name]) < one.delta
                assert not (robust & found[: len(robust)]).any()


def test_no_attack_is_nearer_than_exact_distances_allow(plan: Plan) -> None:
    outcomes = frames.load_outcomes(plan).set_index(["network_id", "measure"])["values"]
    attacks = [one.name for one in plan.measures if one.attack and one.notion == "margin"]
    exact = [key for key in outcomes.index if key[1].endswith("exact_distance")]
    assert len(exact) == 3
    for network, measure in exact:
        distance = np.asarray(outcomes[network, measure], float)
        assert np.isnan(distance).mean() < 0.02
        for name in attacks:
            found = np.asarray(outcomes[network, name], float)[: len(distance)]
            least = np.nan_to_num(distance[: len(found)]) * (1 - 0.01) * (1 - 1e-6)
            assert (least <= found).all()


def test_every_figure_of_the_study_is_there(plan: Plan) -> None:
    assert "distances_mnist" in stages.figures(plan)
    assert_drawn(plan)
