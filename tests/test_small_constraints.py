"""The tables of paper 001's small studies in the repository: complete, and what their scorecards are made of."""

from pathlib import Path

import pytest
from shipped import assert_complete, assert_drawn, assert_made_of

from deltaball.analysis.convergence import spread
from deltaball.analysis.metrics import metrics
from deltaball.analysis.scorecard import VERDICTS, scorecard
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.tables import frames
from deltaball.workflow import stages

STUDIES = ("small-constraints", "small-gtsrb")


@pytest.fixture(params=STUDIES)
def plan(request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(root)
    return loading.planned(Path(f"studies/{request.param}.yaml"))


def test_every_planned_network_is_trained_and_measured_on_the_catalogues_data(plan: Plan) -> None:
    assert_complete(plan)


def test_the_scorecard_and_the_metrics_that_are_shipped_are_made_of_its_tables(plan: Plan) -> None:
    networks, robustness = frames.load(plan)
    measured = frames.measured(networks, robustness)
    settings = plan.study.analysis.equivalence_margin, plan.study.guarantee.confidence
    claims = scorecard(
        measured,
        spread(networks, frames.load_curves(plan)[1]),
        *settings,
        plan.study.paper,
        outcomes=frames.load_outcomes(plan),
    )
    assert_made_of(plan.study.folder, {"scorecard": claims, "metrics": metrics(measured)})
    assert set(claims["verdict"]) <= set(VERDICTS)


def test_no_network_violates_what_the_definitions_imply(plan: Plan) -> None:
    """What is proven is no more than what survives the attack, and LR(ε, 10) implies SR(ε, 10)."""
    shares = metrics(frames.measured(*frames.load(plan)))
    both = shares.dropna(subset=["security", "satisfaction"])
    assert (both["satisfaction"] <= both["security"] + 1e-12).all()
    keys = ["training", "delta"]
    standard, lipschitz = (
        shares[shares["notion"] == one].set_index(keys)["security"]
        for one in ("standard_robustness", "lipschitz_robustness")
    )
    assert (lipschitz <= standard).all()


def test_every_figure_of_the_study_is_there(plan: Plan) -> None:
    assert stages.figures(plan)[0] == "trainings"
    assert_drawn(plan)
