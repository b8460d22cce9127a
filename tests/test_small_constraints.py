"""The tables of paper 001's small study in the repository: complete, and what its scorecard and metrics are made of."""

from pathlib import Path

import pandas as pd
import pytest

from deltaball.analysis.convergence import spread
from deltaball.analysis.metrics import metrics
from deltaball.analysis.scorecard import VERDICTS, scorecard
from deltaball.data.catalogue import CATALOGUE
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.run import merging, pieces
from deltaball.tables import frames
from deltaball.workflow import stages


@pytest.fixture
def plan(root: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(root)
    return loading.planned(Path("studies/small-constraints.yaml"))


def test_every_planned_network_is_trained_and_measured_on_the_catalogues_data(plan: Plan) -> None:
    networks, robustness = frames.load(plan)
    assert set(networks["status"]) == {"trained"}
    assert set(networks["data_sha256"]) == {CATALOGUE["fashion_mnist"].fingerprint}
    assert merging.finished_shards(plan, pieces.of_folder(plan.study.folder)) == set(plan.shards)
    assert len(robustness) == len(plan.networks) * len(plan.measures)
    assert "-dirty" not in (plan.study.folder / "PROVENANCE.md").read_text()


def test_the_scorecard_and_the_metrics_that_are_shipped_are_made_of_its_tables(plan: Plan) -> None:
    networks, robustness = frames.load(plan)
    measured = frames.measured(networks, robustness)
    settings = plan.study.analysis.equivalence_margin, plan.study.guarantee.confidence
    claims = scorecard(measured, spread(networks, frames.load_curves(plan)[1]), *settings, plan.study.paper)
    for name, made in (("scorecard", claims), ("metrics", metrics(measured))):
        shipped = pd.read_csv(plan.study.folder / f"tables/{name}.csv")
        text = [column for column in made if made[column].dtype.kind not in "fiu"]
        assert made[text].astype("str").replace({"None": "nan", "<NA>": "nan"}).equals(shipped[text].astype("str")), (
            name
        )
        numbers = [column for column in made if column not in text]
        pd.testing.assert_frame_equal(
            made[numbers].astype(float), shipped[numbers].astype(float), rtol=1e-6, atol=1e-9, check_dtype=False
        )
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
    for name in stages.figures(plan):
        for kind in ("png", "svg", "csv"):
            assert (plan.study.folder / f"figures/{name}.{kind}").stat().st_size > 0
    assert sum(path.stat().st_size for path in plan.study.folder.glob("*.*")) < 6e6
