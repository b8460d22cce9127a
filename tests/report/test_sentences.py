"""Sentences at the head of sections: counts of what intervals say, in every mixture of verdicts."""

import numpy as np
import pandas as pd

from deltaball.report import sentences


def correlations(*trends: str, **fixed: str) -> pd.DataFrame:
    rows = [{"trend": trend, "networks_of": of} for trend in trends for of in ("all", "learned")]
    return pd.DataFrame(rows).assign(**{"dataset": "mnist", "method": "sgd", "architecture": "fcn", **fixed})


def test_trends_are_counted_among_all_networks_and_those_that_learned() -> None:
    table = correlations("falls", "falls", "undecided", "rises")
    table.loc[table["networks_of"] == "learned", "trend"] = "not tested"
    assert sentences.trends(table) == (
        "Among the SGD networks of mnist robustness falls in 2, rises in 1 and is undecided in 1 of 4 measures; "
        "among those that learned it is not tested in 4 of 4 measures."
    )


def test_architectures_together_stand_for_each_of_them() -> None:
    both = pd.concat([correlations("falls", architecture="all"), correlations("rises"), correlations("rises")])
    assert "robustness falls in 1 of 1 measure;" in sentences.trends(both)


def test_pruning_counts_measures_and_leaves_accuracy_out() -> None:
    rows = [("a", "0.5", "equivalent within ±0.05"), ("b", "0.5", "undecided"), ("a", "0.9", "different")]
    rows += [("test_accuracy", "0.5", "different"), ("a", "all", "different")]
    table = pd.DataFrame(rows, columns=["measure", "proportion", "verdict"])
    assert sentences.pruning(table) == (
        "With 50 % of the weights removed: equivalent in 1 and undecided in 1 of 2 measures. "
        "With 90 % of the weights removed: different in 1 of 1 measure."
    )


def test_the_judge_that_finds_most_tells_how_near_violations_are() -> None:
    rows = [("fmn", None, 0.2, 0.02), ("fmn", None, 0.4, 0.04), ("linear_region", None, 0.1, 0.01)]
    rows += [(None, "exact", 0.5, np.nan)]  # of the ball alone: no distance
    table = pd.DataFrame(rows, columns=["attack", "certificate", "frequency", "severity"])
    told = sentences.distances(table.assign(dataset="mnist", norm="linf", within=20 / 255))
    assert told == (
        "On mnist FMN finds a violation within 20/255 at 30.0 % of the points, 0.03 away on average (medians of 2 "
        "networks)."
    )
    assert sentences.distances(table.assign(dataset="mnist", norm="linf", within=0.1, severity=np.nan)) == ""


def test_chains_that_cannot_be_tested_are_no_trend() -> None:
    rows = [("hmc, converged", np.nan, np.nan), ("hmc, not converged", 0.1, 0.2), ("hmc, not converged", -0.1, 0.2)]
    told = sentences.bayes(pd.DataFrame(rows, columns=["networks_of", "lower", "upper"]))
    assert told.startswith("Among converged networks nothing can be tested")
    assert "rises with accuracy in 1 and falls in 0 of 2 measures" in told


def test_exceptions_and_draws_are_summed() -> None:
    assert "none among 7" in sentences.monotonicity([{"pairs": 7, "exceptions": 0, "largest_exception": 0.0}])
    rows = [
        {"pairs": 7, "exceptions": 2, "largest_exception": 0.01},
        {"pairs": 3, "exceptions": 0, "largest_exception": np.nan},
    ]
    assert sentences.monotonicity(rows) == "There are 2 among 10 neighbouring pairs, none larger than 0.010."
    spread = pd.DataFrame({"draws": [50, 50], "within_epsilon": [1.0, 0.94]})
    assert sentences.convergence(spread).startswith("97 of 100 draws")
    assert sentences.regressions([{"p_holm": 0.01}, {"p_holm": np.nan}]).startswith(
        "After the correction 1 of 2 slopes"
    )
