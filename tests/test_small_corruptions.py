"""The tables of the small study of corruptions in the repository: complete, and what its scorecard is made of."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shipped import assert_complete, assert_drawn, assert_made_of

from deltaball.analysis.convergence import spread
from deltaball.analysis.corruptions import MEAN, corruptions, errors
from deltaball.analysis.scorecard import VERDICTS, scorecard
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.study.corruptions import FIFTEEN
from deltaball.tables import frames
from deltaball.workflow import stages


@pytest.fixture
def plan(root: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(root)
    return loading.planned(Path("studies/small-corruptions.yaml"))


@pytest.fixture
def under(plan: Plan) -> pd.DataFrame:
    return corruptions(frames.measured(*frames.load(plan)), plan)


def test_every_planned_network_is_trained_and_measured_on_the_catalogues_data(plan: Plan) -> None:
    assert_complete(plan)


def test_the_tables_that_are_shipped_are_made_of_its_outcomes(plan: Plan, under: pd.DataFrame) -> None:
    networks, robustness = frames.load(plan)
    measured = frames.measured(networks, robustness)
    settings, draws = plan.study.analysis, spread(networks, frames.load_curves(plan)[1])
    values = settings.equivalence_margin, plan.study.guarantee.confidence
    claims = scorecard(measured, draws, *values, plan.study.paper, corrupted=under, outcomes=frames.load_outcomes(plan))
    made = {"scorecard": claims, "corruptions": under, "corruption_errors": errors(under, settings.reference)}
    assert_made_of(plan.study.folder, made)
    assert set(claims["verdict"]) <= set(VERDICTS)


def test_the_mean_of_fifteen_is_that_of_the_corruptions(under: pd.DataFrame) -> None:
    """Of networks that are asked both ways: the fifteen in turn are the images that each corruption alone draws."""
    accuracies = under[(under["quantity"] == "accuracy") & under["usual"].astype(bool)]
    wide = accuracies.pivot_table(index="system", columns="corruption", values="estimate")
    np.testing.assert_allclose(wide[[*FIFTEEN]].mean(axis=1), wide[MEAN], atol=1e-6)
    # Networks and machines, plain and noisy, and normalised ones; of each adaptation and count as many, separate and
    # joint; three transfers of six.
    assert len(wide) == 15 + 3 * (2 + 1) * 2 * 2 + 3 * 3 * 2


def test_impulse_noise_costs_more_the_severer_it_is(under: pd.DataFrame) -> None:
    noise = under[(under["corruption"] == "impulse_noise") & (under["adaptation"] == "none")]
    means = noise.groupby(["grid", "severity"])["estimate"].mean().unstack()
    assert list(means.columns) == [1, 2, 3, 4, 5]
    assert (means.diff(axis=1).iloc[:, 1:] < 0.02).all(axis=None)
    assert (means[5] < means[1]).all()


def test_every_figure_of_the_study_is_there(plan: Plan) -> None:
    assert {"corruptions_mnist5k", "severities_mnist5k", "adaptations_mnist5k"} <= set(stages.figures(plan))
    assert_drawn(plan)
