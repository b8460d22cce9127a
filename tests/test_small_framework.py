"""The tables of paper 000's small study in the repository: complete, chosen by held-out images, and what they say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shipped import assert_complete, assert_drawn, assert_made_of

from deltaball.analysis.choices import choices, settled
from deltaball.analysis.comparison import comparison
from deltaball.analysis.convergence import spread
from deltaball.analysis.corruptions import corruptions, errors
from deltaball.analysis.distances import distances
from deltaball.analysis.scorecard import VERDICTS, scorecard
from deltaball.analysis.scores import scores
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.tables import frames
from deltaball.workflow import stages


@pytest.fixture
def plan(root: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(root)
    return loading.planned(Path("studies/small-framework.yaml"))


def test_every_planned_network_is_trained_and_measured_on_the_catalogues_data(plan: Plan) -> None:
    assert_complete(plan)


def test_the_tables_that_are_shipped_are_made_of_its_outcomes(plan: Plan) -> None:
    networks, robustness = frames.load(plan)
    chosen = choices(networks, plan)
    compared = settled(frames.measured(networks, robustness), chosen)
    settings, draws = plan.study.analysis, spread(networks, frames.load_curves(plan)[1])
    near = distances(compared, frames.load_outcomes(plan), settings.within)
    scored, under = scores(compared, plan), corruptions(compared, plan)
    together = comparison(compared, scored, errors(under, settings.reference), plan)
    values = settings.equivalence_margin, plan.study.guarantee.confidence
    claims = scorecard(compared, draws, *values, plan.study.paper, near, together, outcomes=frames.load_outcomes(plan))
    made = {"scorecard": claims, "choices": chosen, "distances": near, "scores": scored, "comparison": together}
    assert_made_of(plan.study.folder, made)
    assert set(claims["verdict"]) <= set(VERDICTS)


def test_one_value_of_each_weight_is_chosen_per_seed_and_test_images_have_no_say(plan: Plan) -> None:
    networks, _ = frames.load(plan)
    chosen = choices(networks.assign(test_accuracy=np.random.default_rng(0).random(len(networks))), plan)
    assert chosen["chosen"].equals(choices(networks, plan)["chosen"])
    assert chosen.groupby(["grid", "setting"])["chosen"].sum().eq(1).all()
    table = pd.read_csv(plan.study.folder / "tables/comparison.csv")
    assert table["grid"].value_counts().to_dict() == dict.fromkeys([grid.name for grid in plan.study.grids], 3)


def test_the_closest_of_several_attacks_is_no_further_than_the_margin_that_is_asked(plan: Plan) -> None:
    networks, robustness = frames.load(plan)
    assert robustness["found_by"].notna().sum() == 2 * len(networks)
    margins = robustness[robustness["notion"] == "margin"]
    assert (margins["estimate"] <= 3).all()


def test_every_figure_of_the_study_is_there(plan: Plan) -> None:
    assert {"margins_mnist", "margins_fashion_mnist"} <= set(stages.figures(plan))
    assert_drawn(plan)
    assert (plan.study.folder / "examples/violations_mnist.png").stat().st_size > 0
