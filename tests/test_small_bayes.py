"""The tables of the small study of Bayesian networks: all of two data sets, chains that converge and others."""

from pathlib import Path

import pandas as pd
import pytest
from shipped import assert_complete, assert_drawn

from deltaball.analysis.bayes import converged
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.tables import frames

MIXING = ["mixing", "fashion-mixing"]


@pytest.fixture
def plan(root: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(root)
    return loading.planned(Path("studies/small-bayes.yaml"))


@pytest.fixture
def chains(plan: Plan) -> pd.DataFrame:
    networks = frames.load(plan)[0]
    return networks[networks["method"] == "hmc"]


def test_every_planned_network_is_trained_and_measured_on_the_catalogues_data(plan: Plan) -> None:
    assert_complete(plan)
    assert_drawn(plan)


def test_many_bayesian_networks_saw_every_image_and_have_their_diagnostics(chains: pd.DataFrame) -> None:
    assert chains["train_points"].isna().all()
    counts = chains.groupby("dataset").size()
    assert counts["mnist"] >= 60
    assert counts["fashion_mnist"] >= 30
    assert chains[["acceptance", "divergences", "ess_min", "rhat_max", "energies"]].notna().all(axis=None)


def test_some_chains_converge_on_both_data_sets_and_none_in_steps_too_short(chains: pd.DataFrame) -> None:
    mixed = converged(chains)
    assert set(chains.loc[mixed, "dataset"]) == {"mnist", "fashion_mnist"}
    assert set(chains.loc[mixed, "grid"]) == set(MIXING)


def test_chains_that_mix_have_a_twin_each_in_short_steps(chains: pd.DataFrame) -> None:
    alike = ["dataset", "architecture", "depth", "width", "activation", "leapfrog_steps", "thinning", "prior_scale"]
    alike += ["likelihood_scale", "start", "burn_in", "warm_epochs", "seed"]
    long = chains[chains["grid"].isin(MIXING)].drop_duplicates("trajectory_id")
    short = chains[chains["grid"].str.endswith("short-steps")].drop_duplicates("trajectory_id")
    assert len(long.merge(short, on=alike)) == len(long) == len(short)
    assert long["acceptance"].between(0.6, 0.95).all()
