"""Verdicts about pruning on simulated studies whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from deltaball.analysis.pruning import mean_difference, pruning_effects, pruning_tests

MARGIN = 0.05
PROPORTIONS = [0.5, 0.75, 0.9, 0.99]


def study(effect: dict[float, float] | float, trunks: int = 12, noise: float = 0.01, draw: int = 0) -> pd.DataFrame:
    """One measure of pruned networks: trunks differ, and each answers pruning in its own way (sd `noise`)."""
    generator = np.random.default_rng(draw)
    rows = []
    for trunk in range(trunks):
        base, own = generator.normal(0.5, 0.1), generator.normal(0, noise)
        for proportion in PROPORTIONS:
            change = effect[proportion] if isinstance(effect, dict) else effect
            for iteration in (1, 2, 5):
                value = base + change + own + generator.normal(0, noise)
                rows.append((f"t{trunk}", proportion, iteration, value, base, trunk % 6))
    table = pd.DataFrame(rows, columns=["cluster", "proportion", "iterations", "estimate", "trunk_estimate", "shape"])
    return table.assign(
        network_id=[f"n{index}" for index in range(len(table))],
        method="imp",
        dataset="mnist",
        measure="class_change_linf_0.1_fgsm",
        epochs=5,
        depth=1,
        width=table["shape"],
        activation="relu",
        test_accuracy=np.nan,
        trunk_accuracy=np.nan,
    )


def verdicts(table: pd.DataFrame) -> dict:
    effects = pruning_effects(table, MARGIN)
    return dict(zip(effects["proportion"], effects["verdict"], strict=True))


def test_no_effect_is_called_equivalent() -> None:
    assert set(verdicts(study(0.0)).values()) == {"equivalent within ±0.05"}


def test_a_large_effect_is_called_different_where_it_is() -> None:
    found = verdicts(study({0.5: 0.0, 0.75: 0.0, 0.9: -0.2, 0.99: -0.4}))
    assert (found[0.5], found[0.75]) == ("equivalent within ±0.05",) * 2
    assert (found[0.9], found[0.99]) == ("different",) * 2


def test_too_much_noise_is_called_undecided() -> None:
    assert set(verdicts(study(0.0, trunks=4, noise=0.2)).values()) == {"undecided"}


def test_too_few_trunks_are_no_test() -> None:
    effects = pruning_effects(study(0.0, trunks=2), MARGIN)
    assert effects["p_equivalence"].isna().all()
    assert set(effects["verdict"]) == {"undecided"}


def test_trunks_that_agree_exactly_do_not_divide_by_zero() -> None:
    table = study(0.0)
    table["estimate"] = table["trunk_estimate"]
    assert set(verdicts(table).values()) == {"equivalent within ±0.05"}


def test_differences_are_averaged_per_trunk() -> None:
    table = study(0.0, trunks=5)
    means = (table["estimate"] - table["trunk_estimate"]).groupby(table["cluster"]).mean()
    row = pruning_effects(table, MARGIN).iloc[0]
    expected = stats.ttest_1samp(means, 0)
    assert row["proportion"] == "all"
    assert row["difference"] == pytest.approx(means.mean())
    assert row["p_difference"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (row["lower"], row["upper"]) == pytest.approx(tuple(interval))
    upper, lower = (
        stats.ttest_1samp(means, end, alternative=side).pvalue for end, side in ((MARGIN, "less"), (-MARGIN, "greater"))
    )
    assert row["p_equivalence"] == pytest.approx(max(upper, lower))


@pytest.mark.parametrize(("truth", "wrong"), [(MARGIN, "p_equivalence"), (0.0, "p_difference")])
def test_wrong_claims_are_as_rare_as_promised(truth: float, wrong: str) -> None:
    # At the margin equivalence is false, at 0 a difference is: either may be claimed in 5 % of studies at most.
    runs, generator = 4000, np.random.default_rng(0)
    rows = [mean_difference(generator.normal(truth, 0.03, 6), MARGIN) for _ in range(runs)]
    room = 3 * np.sqrt(0.05 * 0.95 / runs)
    assert np.mean([row[wrong] < 0.05 for row in rows]) <= 0.05 + room
    assert np.mean([row["lower"] <= truth <= row["upper"] for row in rows]) >= 0.95 - room


def log_likelihood(value: np.ndarray, design: np.ndarray, groups: np.ndarray) -> float:
    """The maximum of a random-intercept model's likelihood, by brute force over the ratio of its two variances."""
    same = (groups[:, None] == groups[None]).astype(float)

    def negative(log_ratio: float) -> float:
        covariance = np.eye(len(value)) + np.exp(log_ratio) * same
        inverse = np.linalg.inv(covariance)
        slope = np.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ value)
        rest = value - design @ slope
        scale = rest @ inverse @ rest / len(value)
        return 0.5 * (len(value) * (np.log(2 * np.pi * scale) + 1) + np.linalg.slogdet(covariance)[1])

    return -min(optimize.minimize_scalar(negative, bounds=bounds).fun for bounds in ((-25, -5), (-5, 0), (0, 8)))


@pytest.mark.parametrize("draw", range(4))
def test_the_mixed_models_p_value_is_the_likelihood_ratios(draw: int) -> None:
    table = study({0.5: 0.0, 0.75: 0.01, 0.9: 0.02, 0.99: 0.03}, noise=0.05, draw=draw)
    dense = table.drop_duplicates(["cluster", "epochs"]).assign(proportion=0.0)
    value = np.concatenate([table["estimate"], dense["trunk_estimate"]])
    proportion = np.concatenate([table["proportion"], dense["proportion"]])
    groups = np.concatenate([table["shape"], dense["shape"]])
    levels = np.column_stack([np.ones(len(value)), *(proportion == one for one in PROPORTIONS)]).astype(float)
    gain = 2 * (log_likelihood(value, levels, groups) - log_likelihood(value, levels[:, :1], groups))
    row = pruning_tests(table).iloc[0]
    assert row["mixed"] == pytest.approx(stats.chi2.sf(gain, 4), rel=1e-2)
    assert row["architectures"] == 6


def test_the_usual_tests_see_a_strong_effect_and_not_its_absence() -> None:
    strong = pruning_tests(study({0.5: 0.0, 0.75: 0.0, 0.9: -0.2, 0.99: -0.4})).iloc[0]
    none = pruning_tests(study(0.0)).iloc[0]
    for test in ("anova", "kruskal", "mixed"):
        assert strong[test] < 1e-6
        assert none[test] > 0.01


def test_a_study_without_pruning_has_empty_tables() -> None:
    table = study(0.0).assign(method="sgd")
    assert pruning_effects(table, MARGIN).empty
    assert pruning_tests(table).empty
