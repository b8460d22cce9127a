"""Verdicts on simulated studies of which every claim is true, false, or not to be told; and what a verdict may say."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import pruned, simulated

from deltaball.analysis.claims import Deviation, Evidence, Part, Share
from deltaball.analysis.clustered import Student
from deltaball.analysis.rules import RULES
from deltaball.analysis.scorecard import (
    COLUMNS,
    TESTS,
    VERDICTS,
    row_of_part,
    scorecard,
    verdict_of_parts,
    with_verdict,
    write_json,
)

CLAIMS = [claim["claim"] for claim in RULES["004"]["claims"]]
SETTINGS = {"margin": 0.05, "confidence": 0.95}


def draws(sd_at_five_percent: float, power: float, draws: int, within: float, levels: int = 6) -> pd.DataFrame:
    """What `analysis.convergence.spread` says of one network whose estimates scatter as ε to a power."""
    epsilon = np.geomspace(0.3, 0.05, levels)
    samples = np.ceil(np.log(40) / (2 * epsilon**2)).astype(int)
    factor = np.sqrt((10_000 - samples) / 9999)
    # A known wobble around the power law, as draws would make.
    sd = sd_at_five_percent * (epsilon / 0.05) ** power * np.exp(np.resize([1, -1], levels) / np.sqrt(2 * draws))
    return pd.DataFrame(
        {
            "experiment": 0,
            "network_id": "drawn",
            "dataset": "mnist",
            "measure": "class_change_linf_0.1_exact",
            "notion": "class_change",
            "norm": "linf",
            "delta": 0.1,
            "gamma": np.nan,
            "attack": None,
            "certificate": "exact",
            "epsilon": epsilon,
            "samples": samples,
            "test_points": 10_000,
            "draws": draws,
            "sd": sd * factor,
            "overlap_factor": factor,
            "sd_expected": sd * factor,
            "within_epsilon": within,
        }
    )


def true() -> tuple[pd.DataFrame, pd.DataFrame]:
    falls = {"slope": -2.0, "capacity": -0.15, "duration": -0.15, "noise": 0.02, "spread": 0.03}
    sgd = simulated(**falls)
    harder = simulated(dataset="cifar10", accuracy=0.6, **falls | {"spread": 0.06, "noise": 0.12})
    # Networks that fit the training data better than the test data are the vulnerable ones.
    dense = [one.assign(train_accuracy=one["test_accuracy"] + 0.1 * (1 - one["estimate"])) for one in (sgd, harder)]
    bayes = simulated("hmc", trajectories=200, slope=2.0, capacity=0.03, noise=0.02, spread=0.04, level=0.9)
    return pd.concat([*dense, pruned(sgd, cost=0.01), bayes]), draws(0.015, 1, 200, 1.0)


def false() -> tuple[pd.DataFrame, pd.DataFrame]:
    rises = {"slope": 10.0, "capacity": 0.5, "duration": 0.1, "noise": 0.02}
    dense = [simulated(**rises | {"spread": 0.04}), simulated(dataset="cifar10", accuracy=0.6, **rises)]
    # Neither capacity nor training is what matters most, and the easier data has the larger scatter.
    dense = [
        one.assign(
            estimate=one["estimate"] + effect * (one["activation"] == "tanh"),
            train_accuracy=one["test_accuracy"] + 0.1 * one["estimate"],
        )
        for one, effect in zip(dense, (1.2, 0.6), strict=True)
    ]
    imp = pruned(simulated(slope=25.0, seed=1), effect=0.2, cost=-0.03)
    bayes = simulated("hmc", slope=-3.0, capacity=-0.2, noise=0.02, level=-0.5)
    return pd.concat([*dense, imp, bayes]), draws(0.1, -0.5, 200, 0.5)


def unclear() -> tuple[pd.DataFrame, pd.DataFrame]:
    few = {"trajectories": 7, "noise": 0.3}
    sgd, harder = simulated(slope=-1, **few), simulated(dataset="cifar10", accuracy=0.6, slope=-1, **few)
    imp = pruned(simulated(slope=-1, **few, seed=1), cost=0.03, noise=0.2)
    return pd.concat([sgd, harder, imp, simulated("hmc", slope=1, **few)]), draws(0.02, 1, 4, 1.0, levels=3)


@pytest.fixture(scope="module", params=[true, false, unclear])
def judged(request: pytest.FixtureRequest) -> tuple[str, pd.DataFrame]:
    measured, spread = request.param()
    verdict = {true: "supported", false: "contradicted", unclear: "undecided"}[request.param]
    table = scorecard(measured, spread, **SETTINGS)
    return verdict, table


@pytest.mark.parametrize("claim", [one for one in CLAIMS if one != "samples_at_five_percent"])
def test_every_claim_gets_the_verdict_it_deserves(judged: tuple[str, pd.DataFrame], claim: str) -> None:
    verdict, table = judged
    parts = table[table["claim"] == claim]
    assert parts["verdict"].iloc[0] == verdict, parts[["part", "effect", "lower", "upper", "p_holm", "why"]].to_string()


def test_the_samples_are_arithmetic_and_not_a_test(judged: tuple[str, pd.DataFrame]) -> None:
    row = judged[1].set_index("claim").loc["samples_at_five_percent"].iloc[0]
    assert (row["effect"], row["verdict"]) == (738, "supported")
    assert np.isnan(row["p"])
    claim = next(one for one in RULES["004"]["claims"] if one["claim"] == "samples_at_five_percent")
    nothing = Evidence(pd.DataFrame(columns=["network_id"]), draws(1, 1, 2, 1), SETTINGS, {})
    (part,) = TESTS["samples"](nothing, 0.04, 0.95)
    assert _verdict(claim, part.found)["verdict"] == "contradicted"  # 1,153 points


def test_the_table_is_whole_and_the_same_as_the_json(judged: tuple[str, pd.DataFrame], tmp_path: Path) -> None:
    table = judged[1]
    assert table.columns.tolist() == COLUMNS
    assert table.loc[table["part"] == "overall", "claim"].tolist() == CLAIMS
    assert set(table["verdict"]) <= set(VERDICTS)
    assert (table["p_bh"].dropna() <= table["p_holm"].dropna() + 1e-12).all()
    assert table[["why", "rule", "says"]].notna().all(axis=None)
    write_json(table, tmp_path / "scorecard.json")
    read = json.loads((tmp_path / "scorecard.json").read_text())
    assert [one["claim"] for one in read] == CLAIMS
    counts = table[table["part"] != "overall"].groupby("claim").size()
    assert [len(one["parts"]) for one in read] == [counts[one] for one in CLAIMS]
    assert [
        np.nan if part["effect"] is None else part["effect"] for one in read for part in one["parts"]
    ] == pytest.approx(table.loc[table["part"] != "overall", "effect"].tolist(), nan_ok=True)


def test_what_a_study_lacks_is_not_run() -> None:
    table = scorecard(simulated(), draws(0.015, 1, 50, 1.0)[:0], **SETTINGS).set_index("claim")
    lacking = [one for one in CLAIMS if one.startswith(("bayes", "imp", "pruning", "harder", "estimates"))]
    assert (table.loc[lacking, "verdict"] == "not run").all()
    assert (table.loc["sgd_tradeoff", "verdict"] == "undecided").all()


def test_networks_trained_to_be_robust_say_nothing_of_the_paper() -> None:
    plain, spread = simulated(slope=-2.0, spread=0.03, noise=0.02), draws(0.015, 1, 50, 1.0)
    robust = simulated(slope=10.0, spread=0.03, noise=0.02, seed=1).assign(objective="adversarial")
    robust = robust.assign(network_id="robust " + robust["network_id"], cluster="robust " + robust["cluster"])
    alone, beside = (scorecard(table, spread, **SETTINGS) for table in (plain, pd.concat([plain, robust])))
    pd.testing.assert_frame_equal(beside, alone)
    # As networks of the paper they would turn its claim around.
    taken = pd.concat([plain, robust.assign(objective="cross_entropy")])
    assert not scorecard(taken, spread, **SETTINGS).equals(alone)


def test_an_empty_study_has_a_scorecard() -> None:
    table = scorecard(simulated()[:0], draws(0.015, 1, 50, 1.0)[:0], **SETTINGS)
    assert (table["verdict"] == "not run").sum() == len(CLAIMS) - 1


def test_few_trajectories_and_constant_measures_are_undecided() -> None:
    for table in (simulated(trajectories=4), simulated(estimate=1.0)):
        found = scorecard(table, draws(0.015, 1, 50, 1.0)[:0], **SETTINGS).set_index("claim").loc["sgd_tradeoff"]
        assert (found["verdict"] == "undecided").all()
        assert found["why"].iloc[1].startswith("cannot be tested")


def test_more_variation_is_less_robust() -> None:
    """D counts as 1 - D: the same networks, measured by D, earn the same verdicts."""
    table = simulated(slope=-3.0)
    turned = table.assign(notion="softmax_variation", estimate=1 - table["estimate"])
    verdicts = [scorecard(one, draws(0.015, 1, 50, 1.0), **SETTINGS) for one in (table, turned)]
    assert verdicts[0]["effect"].tolist() == pytest.approx(verdicts[1]["effect"].tolist(), nan_ok=True)
    assert verdicts[0]["verdict"].tolist() == verdicts[1]["verdict"].tolist()


def test_certificates_and_margins_earn_no_verdict() -> None:
    bound = simulated(slope=-3.0, attack=None, certificate="crown", measure="crown")
    distance = simulated(slope=-3.0, notion="margin", attack="fmn", measure="margin")
    found = scorecard(pd.concat([bound, distance]), draws(0.015, 1, 50, 1.0)[:0], **SETTINGS)
    assert (found["verdict"] == "not run").sum() == len(CLAIMS) - 1


@given(
    st.sampled_from([one for one in RULES["004"]["claims"] if one["test"] not in ("samples", "within", "scatter")]),
    st.floats(-1, 1),
    st.floats(1e-6, 1),
    st.integers(1, 400),
)
@settings(max_examples=400, deadline=None)
def test_a_verdict_never_says_more_than_its_interval(claim: dict, effect: float, error: float, tests: int) -> None:
    row = _verdict(claim, Student(effect, error, 20), tests)
    low, high = (claim["holds"].get(end, default) for end, default in (("from", -np.inf), ("to", np.inf)))
    low, high = (-0.05 if one == "-margin" else 0.05 if one == "margin" else one for one in (low, high))
    if row["verdict"] == "supported":
        smallest = claim.get("smallest", 0)
        assert low <= row["lower"] <= row["upper"] <= high
        assert abs(effect) >= (0.05 if smallest == "margin" else smallest)
    if row["verdict"] == "contradicted":
        assert row["upper"] < low or row["lower"] > high
    # Its size, and the correction for looking often, take verdicts away and never give one.
    if row["verdict"] == "undecided":
        assert _verdict(claim, Student(effect, error, 20), 2 * tests)["verdict"] == "undecided"


def _verdict(claim: dict, found: object, tests: int = 1) -> dict:
    """What becomes of one part among as many tests, all others of which have larger p-values."""
    row = row_of_part(claim, Part("part", None, None, pd.DataFrame({"network_id": ["n"]}), found), SETTINGS)
    return with_verdict({"lower": np.nan, **row, "p_holm": min(1, tests * row["p"])}, claim, SETTINGS)


@pytest.mark.parametrize(
    ("over", "supported", "contradicted", "undecided", "expected"),
    [
        ("every", 3, 0, 0, "supported"),
        ("every", 2, 0, 1, "undecided"),
        ("every", 2, 1, 0, "contradicted"),
        ("every", 0, 0, 2, "undecided"),
        ("most", 2, 0, 1, "supported"),
        ("most", 2, 0, 2, "undecided"),
        ("most", 5, 1, 0, "undecided"),
        ("most", 0, 2, 1, "contradicted"),
        ("most", 1, 2, 0, "undecided"),
    ],
)
def test_parts_make_the_verdict_by_the_stated_rule(
    over: str, supported: int, contradicted: int, undecided: int, expected: str
) -> None:
    counts = {"supported": supported, "contradicted": contradicted, "undecided": undecided}
    assert verdict_of_parts(over, counts, sum(counts.values())) == expected


@pytest.mark.parametrize(("found", "truth"), [(Share(93, 100), 0.95), (Deviation(0.02, 50), 0.025)])
def test_p_values_and_intervals_agree(found: Share | Deviation, truth: float) -> None:
    lower, upper = found.interval(0.95)
    assert lower < found.estimate < upper
    assert [found.p(end) for end in (lower, upper)] == pytest.approx([0.05, 0.05], abs=1e-6)
    assert (found.p(truth) >= 0.05) == (lower <= truth <= upper)


def test_every_claim_is_complete_and_every_test_is_used() -> None:
    assert len(set(CLAIMS)) == len(CLAIMS)
    every = [one for stated in RULES.values() for one in stated["claims"]]
    assert {one["test"] for one in every} == set(TESTS)
    for claim in every:
        assert set(claim) - {"of", "smallest", "range"} == {
            *("claim", "section", "says", "test", "effect", "unit", "plain", "holds", "over")
        }
        assert set(claim["holds"]) <= {"from", "to"}
