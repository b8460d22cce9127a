"""How many more trainings would decide a claim: against simulations, and where nothing can be said."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deltaball.analysis.deciding import POWER, more_trainings, side, trainings_needed
from deltaball.analysis.rules import RULES
from deltaball.analysis.scorecard import ALPHA

SETTINGS = {"margin": 0.05, "confidence": 0.95}
RULE = {one["claim"]: one for one in RULES["004"]["claims"]}


def row(effect: float, p: float, trajectories: int = 20, verdict: str = "undecided") -> dict[str, object]:
    return {"effect": effect, "p": p, "trajectories": trajectories, "verdict": verdict}


@pytest.mark.parametrize("tests", [1, 20])
def test_with_so_many_trainings_a_test_rejects_as_often_as_promised(tests: int) -> None:
    generator = np.random.default_rng(0)
    effect = 0.4  # in units of the scatter of one training
    p = 2 * stats.t.sf(effect * np.sqrt(15), 14)
    needed = round(trainings_needed(p, 15, tests))
    drawn = generator.normal(effect, 1, (4000, needed))
    rejected = stats.ttest_1samp(drawn, 0, axis=1).pvalue < ALPHA / tests
    assert rejected.mean() == pytest.approx(POWER, abs=0.04)


def test_an_effect_on_the_threshold_is_never_decided() -> None:
    assert trainings_needed(1.0, 20, 1) == np.inf


def test_the_side_is_that_of_the_effect_if_it_is_large_enough() -> None:
    rule = RULE["sgd_tradeoff"]
    assert [side(effect, rule, SETTINGS) for effect in (-0.3, -0.05, 0.01)] == ["supported", None, "contradicted"]


def test_a_claim_about_every_part_waits_for_the_slowest_or_for_the_first_against_it() -> None:
    rule = RULE["sgd_tradeoff"]
    slow, quick = row(-0.2, 0.2), row(-0.4, 0.01)
    waits = more_trainings([slow, quick], rule, SETTINGS, 2)
    assert waits == more_trainings([slow], rule, SETTINGS, 2)
    assert waits[1] == "supported"
    more, verdict = more_trainings([slow, quick, row(0.3, 0.02)], rule, SETTINGS, 2)
    assert verdict == "contradicted"
    assert more < waits[0]


def test_a_claim_about_most_parts_is_never_decided_where_they_disagree() -> None:
    rule = RULE["capacity_lowers_robustness"]
    assert more_trainings([row(-0.3, 0.001, verdict="supported"), row(0.3, 0.04)], rule, SETTINGS, 2) is None
    assert more_trainings([row(-0.3, 0.04), row(-0.3, 0.04), row(0.01, 0.9)], rule, SETTINGS, 3)[1] == "supported"


def test_nothing_is_said_of_parts_that_cannot_be_tested_or_effects_too_small_to_count() -> None:
    rule = RULE["sgd_tradeoff"]
    assert more_trainings([row(np.nan, np.nan)], rule, SETTINGS, 1) is None
    assert more_trainings([row(-0.05, 0.3)], rule, SETTINGS, 1) is None
    assert more_trainings([row(-0.2, 0.99)], rule, SETTINGS, 1) is None
    assert more_trainings([row(-0.2, 0.1) | {"trajectories": pd.NA}], rule, SETTINGS, 1) is None
