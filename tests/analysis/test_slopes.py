"""A slope is one number with one interval, whichever table it stands in."""

import numpy as np
import pandas as pd
import pytest
from simulations import pruned, simulated

from deltaball.analysis.bayes import bayes
from deltaball.analysis.convergence import COLUMNS as SPREAD
from deltaball.analysis.correlations import correlations
from deltaball.analysis.groups import Groups
from deltaball.analysis.learned import learned
from deltaball.analysis.partial import partial_correlations
from deltaball.analysis.pruning import pruning_effects
from deltaball.analysis.regressions import regressions
from deltaball.analysis.scorecard import scorecard
from deltaball.analysis.slopes import Slopes

GROUP = ["dataset", "method", "architecture", "measure", "networks_of"]
ENDS = ["lower", "upper"]
NO_DRAWS = pd.DataFrame(columns=SPREAD).astype({"certificate": "str"})


@pytest.fixture(scope="module", params=[12, 60], ids=["few trajectories", "many trajectories"])
def measured(request: pytest.FixtureRequest) -> pd.DataFrame:
    """SGD and Bayesian networks; rows in an order that is not that of the trajectories' names."""
    both = [simulated(method, trajectories=request.param, slope=-1, noise=0.1) for method in ("sgd", "hmc")]
    return pd.concat(both).sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def on_accuracy(measured: pd.DataFrame) -> pd.DataFrame:
    """Regressions on accuracy alone, as `regressions` has them, made for itself."""
    table = regressions(Groups(measured)).query("model == 'simple' and term == 'test_accuracy'")
    return table.dropna(subset="slope").set_index(GROUP)


def test_trends_by_accuracy_are_the_regressions(measured: pd.DataFrame, on_accuracy: pd.DataFrame) -> None:
    found = learned(Groups(measured)).set_index(GROUP).loc[on_accuracy.index]
    for name in ("slope", *ENDS, "p"):
        assert found[name].tolist() == pytest.approx(on_accuracy[name].tolist(), rel=1e-9), name


def test_trends_of_bayesian_networks_are_the_regressions(measured: pd.DataFrame, on_accuracy: pd.DataFrame) -> None:
    found = bayes(Groups(measured)).set_index("networks_of")
    for networks, method in (("hmc", "hmc"), ("sgd", "sgd")):
        row = on_accuracy.xs((method, "all"), level=("method", "networks_of")).iloc[0]
        for name in ("slope", "standard_error", *ENDS, "p"):
            assert found.loc[networks, name] == pytest.approx(row[name], rel=1e-9)
        assert found.loc[networks, "inference"] == row["inference"]


def test_correlations_are_slopes_in_units_of_the_deviations(measured: pd.DataFrame, on_accuracy: pd.DataFrame) -> None:
    found = correlations(Groups(measured)).set_index(GROUP).loc[on_accuracy.index]
    ratio = found["pearson"] / on_accuracy["slope"]
    for end in ENDS:
        assert found[f"pearson_{end}"].tolist() == pytest.approx((ratio * on_accuracy[end]).clip(-1, 1).tolist())
    everyone = measured[measured["method"] == "sgd"]
    pearson = np.corrcoef(everyone["test_accuracy"], everyone["estimate"].astype(float))[0, 1]
    assert found.xs(("sgd", "all"), level=("method", "networks_of"))["pearson"].iloc[0] == pytest.approx(pearson)


def test_partial_correlations_are_the_adjusted_slopes(measured: pd.DataFrame) -> None:
    keys = [*GROUP, "term"]
    adjusted = regressions(Groups(measured)).query("model == 'accuracy_adjusted'").dropna(subset="slope")
    adjusted = adjusted.set_index(keys)
    found = partial_correlations(Groups(measured)).set_index(keys).loc[adjusted.index]
    assert len(found) >= 8
    assert found["p"].tolist() == pytest.approx(adjusted["p"].tolist(), rel=1e-9)
    ratio = found["partial"] / adjusted["slope"]
    for end in ENDS:
        assert found[end].tolist() == pytest.approx((ratio * adjusted[end]).clip(-1, 1).tolist())


def test_the_scorecards_trends_are_the_correlations(measured: pd.DataFrame, on_accuracy: pd.DataFrame) -> None:
    found = scorecard(measured, NO_DRAWS, 0.05, 0.95)
    correlated = correlations(Groups(measured)).set_index(GROUP)
    for claim, method in (("sgd_tradeoff", "sgd"), ("bayes_tradeoff_positive", "hmc")):
        row = found[(found["claim"] == claim) & (found["part"] != "overall")].iloc[0]
        group = next(names for names in on_accuracy.index if names[1] == method and names[-1] == "all")
        expected = correlated.loc[group]
        assert row["effect"] == pytest.approx(expected["pearson"])
        assert tuple(row[ENDS]) == pytest.approx((expected["pearson_lower"], expected["pearson_upper"]))
        assert row["p"] == pytest.approx(on_accuracy.loc[group, "p"])


def test_those_that_learned_are_the_same_networks_in_every_table() -> None:
    """The best network has a certificate alone: it counts for what learning means, though no claim is about it."""
    table = simulated(slope=-1, accuracy=0.7, spread=0.1)
    best = table[:3].assign(network_id=["a", "b", "c"], cluster="best", test_accuracy=0.99, attack=None)
    both = pd.concat([table, best.assign(certificate="crown", measure="crown")], ignore_index=True)
    groups = Groups(both)
    (row,) = correlations(groups).query("networks_of == 'learned' and attack == 'fgsm'").to_dict("records")
    assert row["accuracy_from"] == pytest.approx(0.8 * 0.99)
    found = scorecard(both, NO_DRAWS, 0.05, 0.95)
    why = found.loc[(found["claim"] == "sgd_tradeoff") & (found["part"] != "overall"), "why"].iloc[0]
    assert f"among the {row['networks']} networks that learned (accuracy from 0.79)" in why
    bands = learned(groups).query("attack == 'fgsm'").set_index("networks_of")
    assert bands.loc[["all", "learned"], "accuracy_from"].tolist() == pytest.approx([0, 0.792])
    assert bands.loc["learned", "networks"] == row["networks"]


def test_the_scorecards_effects_of_pruning_are_those_of_the_table() -> None:
    table = pruned(simulated(trajectories=9, noise=0.1), effect=0.02, cost=0.03)
    effects = pruning_effects(table, 0.05).set_index(["measure", "proportion"])
    found = scorecard(table, NO_DRAWS, 0.05, 0.95)
    for claim, measure in (
        ("severe_pruning_costs_accuracy", "test_accuracy"),
        ("pruning_has_no_effect", "class_change_linf_0.1_fgsm"),
    ):
        row = found[(found["claim"] == claim) & (found["part"] != "overall")].iloc[-1]
        expected = effects.loc[(measure, 0.99)]
        assert tuple(row[["effect", *ENDS]]) == pytest.approx(tuple(expected[["difference", *ENDS]]))


def test_a_slope_does_not_depend_on_the_order_of_rows_or_the_names_type() -> None:
    table = simulated(trajectories=9, slope=-1, noise=0.1)
    table = table.assign(cluster=[f"t{int(one.split()[-1]):02}" for one in table["cluster"]])
    turned = table[::-1].reset_index(drop=True)
    numbered = turned.assign(cluster=turned["cluster"].str[1:].astype(int))
    found = [Slopes().on_accuracy(one) for one in (table, turned, numbered)]
    for other in found[1:]:
        assert (other.lower, other.upper, other.p) == pytest.approx((found[0].lower, found[0].upper, found[0].p))
    assert found[0].inference == "wild bootstrap"


def test_what_differs_is_not_taken_for_the_same() -> None:
    table = simulated(trajectories=9, slope=-1, noise=0.1)
    slopes, term = Slopes(), table["epochs"].to_numpy(float)
    response, others = table["estimate"].to_numpy(float), table[["width", "test_accuracy"]].to_numpy(float)
    alone = slopes.of(response, term, None, table["cluster"])
    assert slopes.of(response, term, None, table["cluster"]) is alone
    beside = slopes.of(response, term, others, table["cluster"])
    assert slopes.of(response, term, others[:, ::-1], table["cluster"]).estimate == pytest.approx(beside.estimate)
    assert slopes.of(response, term, others[:, :1], table["cluster"]).estimate != beside.estimate
    assert slopes.of(response, term, None, table["network_id"]).error != alone.error
    assert slopes.of(response, term, None, table["cluster"], few=2).inference == "CR1"
