"""Statistics against closed forms, against scipy and statsmodels' own answers, and against simulated truths."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from deltaball.analysis.completeness import completeness, monotonicity
from deltaball.analysis.correlations import correlations, pearson, trend, weighted_spearman
from deltaball.analysis.groups import Groups
from deltaball.analysis.pruning import in_range
from deltaball.analysis.regressions import regressions
from deltaball.analysis.slopes import Slopes
from deltaball.report.reading import csv
from deltaball.study.grids import all_axes


def measured(count: int = 40, draw: int = 0, **columns: object) -> pd.DataFrame:
    """Synthetic rows of one measure: `count` FCNs, four per trajectory."""
    generator = np.random.default_rng(draw)
    table = pd.DataFrame(
        {
            "network_id": [f"n{index}" for index in range(count)],
            "trajectory_id": [f"t{index // 4}" for index in range(count)],
            "cluster": [f"t{index // 4}" for index in range(count)],
            "grid": "fcn",
            "dataset": "mnist",
            "method": "sgd",
            "architecture": "fcn",
            "measure": "class_change_linf_0.1_fgsm",
            "notion": "class_change",
            "norm": "linf",
            "attack": "fgsm",
            "certificate": None,
            "perturbation_size": np.nan,
            "delta": 0.1,
            "gamma": np.nan,
            "samples": 738,
            "test_accuracy": generator.uniform(0.8, 1, count),
            "estimate": generator.uniform(0, 1, count),
            "parameters": generator.integers(1000, 100_000, count),
            "status": "trained",
        }
    )
    for axis in all_axes():
        table[axis] = None
    return table.assign(**columns)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=3, max_size=12))
@settings(max_examples=200, deadline=None)
def test_weights_count_like_repeated_rows(rows: list[tuple[int, int, int]]) -> None:
    x, y, weights = (np.array(column, float) for column in zip(*rows, strict=True))
    if weights.sum() < 3:
        return
    repeated = [np.repeat(values, weights.astype(int)) for values in (x, y)]
    found = weighted_spearman(x, y, np.arange(len(x)), weights[None])[0]
    if min(len(set(values)) for values in repeated) < 2:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(*repeated).statistic, abs=1e-9)


def test_the_correlations_interval_covers_the_truth_when_trajectories_are_clusters() -> None:
    truth, covered, naive, runs = 0.5, 0, 0, 300
    generator = np.random.default_rng(1)
    clusters = np.repeat(np.arange(40), 5)
    for _ in range(runs):
        # Networks of a trajectory share most of their accuracy and of their robustness.
        shared = generator.multivariate_normal([0, 0], [[1, truth], [truth, 1]], 40)[clusters]
        own = generator.multivariate_normal([0, 0], [[1, truth], [truth, 1]], len(clusters))
        x, y = (np.sqrt(0.9) * shared + np.sqrt(0.1) * own).T
        members = pd.DataFrame({"test_accuracy": x, "estimate": y, "cluster": clusters})
        _, lower, upper = pearson(members, Slopes())
        covered += lower <= truth <= upper
        interval = stats.pearsonr(x, y).confidence_interval(0.95)
        naive += interval.low <= truth <= interval.high
    assert covered / runs > 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)
    assert naive / runs < 0.75  # rows taken for independent promise what they do not keep


def test_a_measure_that_does_not_vary_has_no_correlation_and_no_slope() -> None:
    table = measured(estimate=1.0)
    row = correlations(Groups(table)).iloc[0]
    assert np.isnan(row["pearson"])
    assert row["trend"] == "not tested"
    assert regressions(Groups(table))["slope"].isna().all()


@pytest.mark.parametrize(
    ("notion", "lower", "upper", "expected"),
    [
        ("class_change", -0.9, -0.1, "falls"),
        ("class_change", 0.1, 0.9, "rises"),
        ("softmax_variation", 0.1, 0.9, "falls"),
        ("variation_above", -0.9, -0.1, "falls"),
        ("margin", -0.9, -0.1, "falls"),
        ("margin", 0.1, 0.9, "rises"),
        ("class_change", -0.1, 0.9, "undecided"),
        ("class_change", 0.0, 0.9, "undecided"),
        ("class_change", np.nan, np.nan, "not tested"),
    ],
)
def test_the_trend_never_says_more_than_its_interval(notion: str, lower: float, upper: float, expected: str) -> None:
    assert trend({"notion": notion, "pearson_lower": lower, "pearson_upper": upper}) == expected


def test_an_exact_line_is_found_exactly() -> None:
    table = measured()
    table["estimate"] = 0.25 + 0.5 * table["test_accuracy"]
    row = (
        regressions(Groups(table))
        .query("term == 'test_accuracy' and networks_of == 'all' and model == 'simple'")
        .iloc[0]
    )
    assert row["slope"] == pytest.approx(0.5, abs=1e-12)
    assert row["r_squared"] == pytest.approx(1)
    assert correlations(Groups(table))["pearson"].iloc[0] == pytest.approx(1)


def test_clustered_errors_equal_the_sandwich_by_hand() -> None:
    table = measured(400, draw=3)  # a hundred trajectories: enough for CR1
    x = np.column_stack([np.ones(len(table)), table["test_accuracy"]])
    y = table["estimate"].to_numpy()
    bread = np.linalg.inv(x.T @ x)
    slope = bread @ x.T @ y
    scores = x * (y - x @ slope)[:, None]
    sums = pd.DataFrame(scores).groupby(table["cluster"]).sum().to_numpy()
    clusters, rows = len(sums), len(y)
    correction = clusters / (clusters - 1) * (rows - 1) / (rows - 2)
    error = np.sqrt(correction * (bread @ sums.T @ sums @ bread)[1, 1])
    row = (
        regressions(Groups(table))
        .query("term == 'test_accuracy' and networks_of == 'all' and model == 'simple'")
        .iloc[0]
    )
    assert row["slope"] == pytest.approx(slope[1])
    assert row["standard_error"] == pytest.approx(error)
    half = stats.t.ppf(0.975, clusters - 1) * error
    assert (row["lower"], row["upper"]) == pytest.approx((slope[1] - half, slope[1] + half))
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(slope[1] / error), clusters - 1))


def test_hyper_parameters_are_regressed_per_doubling_and_per_level() -> None:
    width = np.tile([64, 128, 256, 512], 10)
    activation = np.repeat(["relu", "tanh"], 20)
    table = measured(width=width, activation=activation, seed=np.repeat([0, 1, 0, 1], 10))
    table["estimate"] = 0.1 * np.log2(width) + 0.3 * (activation == "tanh")
    found = regressions(Groups(table)).query("networks_of == 'all' and model == 'simple'").set_index("term")
    assert found.loc["width", "slope"] == pytest.approx(0.1)
    assert found.loc["width", "unit"] == "per doubling"
    assert found.loc["activation: tanh", "slope"] == pytest.approx(0.3)
    assert found.loc["activation: tanh", "unit"] == "against relu"
    assert "seed: 1" in found.index
    assert "depth" not in found.index  # does not vary


def test_holm_is_over_the_whole_table() -> None:
    table = measured(width=np.tile([64, 128], 20), draw=5)
    found = regressions(Groups(table))
    assert set(found["inference"].dropna()) == {"wild bootstrap"}
    ordered = np.sort(found["p"].dropna())
    expected = min(1, ordered[0] * len(ordered))
    assert found["p_holm"].min() == pytest.approx(expected)


def test_networks_that_did_not_learn_are_left_out_of_the_learned() -> None:
    accuracy = np.concatenate([np.full(20, 0.1), np.linspace(0.85, 0.95, 20)])
    found = list(Groups(measured(test_accuracy=accuracy)))
    counts = {names["networks_of"]: len(members) for names, members in found}
    assert counts == {"all": 40, "learned": 20}
    assert {names["accuracy_from"] for names, _ in found} == {0.0, 0.76}  # .8 × .95


def test_architectures_are_looked_at_together_and_apart() -> None:
    table = measured(architecture=np.repeat(["fcn", "cnn"], 20))
    found = {names["architecture"]: len(members) for names, members in Groups(table) if names["networks_of"] == "all"}
    assert found == {"all": 40, "fcn": 20, "cnn": 20}


def test_exceptions_to_monotonicity_are_counted_in_the_right_direction() -> None:
    def at(delta: float, notion: str, values: list[float]) -> pd.DataFrame:
        return measured(4, delta=delta, notion=notion, estimate=values, measure=f"{notion} {delta}")

    table = pd.concat(
        [
            at(0.1, "class_change", [0.9, 0.9, 0.9, 0.9]),
            at(0.2, "class_change", [0.5, 0.9, 0.95, 0.99]),  # two rise: R may not
            at(0.1, "softmax_variation", [0.1, 0.1, 0.1, 0.1]),
            at(0.2, "softmax_variation", [0.5, 0.1, 0.05, 0.4]),  # one falls: D may not
        ]
    )
    found = monotonicity(table).set_index("notion")
    assert found.loc["class_change", ["pairs", "exceptions"]].tolist() == [4, 2]
    assert found.loc["class_change", "largest_exception"] == pytest.approx(0.09)
    assert found.loc["softmax_variation", ["pairs", "exceptions"]].tolist() == [4, 1]


def test_certificates_are_held_to_monotonicity_and_kept_apart_from_attacks() -> None:
    def at(delta: float, attack: str | None, certificate: str | None, values: list[float]) -> pd.DataFrame:
        name = f"{delta} {attack or certificate}"
        return measured(2, delta=delta, attack=attack, certificate=certificate, estimate=values, measure=name)

    table = pd.concat(
        [
            at(0.1, "pgd", None, [0.9, 0.9]),
            at(0.2, "pgd", None, [0.9, 0.8]),
            at(0.1, None, "crown", [0.5, 0.5]),
            at(0.2, None, "crown", [0.7, 0.4]),  # one certified R rises
        ]
    )
    found = monotonicity(table)
    assert found[["attack", "certificate"]].fillna("").to_numpy().tolist() == [["pgd", ""], ["", "crown"]]
    assert found["exceptions"].tolist() == [0, 1]
    assert found["largest_exception"].tolist() == pytest.approx([0, 0.2])


def test_a_margin_may_rise_with_the_ball_and_not_fall() -> None:
    table = pd.concat(
        [
            measured(3, notion="margin", attack="fmn", delta=delta, estimate=values, measure=str(delta))
            for delta, values in ((0.1, [0.05, 0.05, 0.05]), (0.2, [0.07, 0.05, 0.03]))
        ]
    )
    assert monotonicity(table)["exceptions"].tolist() == [1]


def test_neighbours_in_delta_are_a_networks_own() -> None:
    # The second network was not measured at 0.2: its neighbours are 0.1 and 0.3.
    three = pd.concat(
        [measured(2, delta=delta, estimate=value) for delta, value in ((0.1, 0.5), (0.2, 0.4), (0.3, 0.6))]
    )
    found = monotonicity(three[~((three["network_id"] == "n1") & (three["delta"] == 0.2))])
    assert found[["pairs", "exceptions"]].to_numpy().tolist() == [[3, 2]]


def test_each_attack_and_certificate_is_a_group_of_its_own() -> None:
    table = pd.concat(
        [
            measured(measure="a"),
            measured(measure="b", attack="pgd"),
            measured(20, measure="c", attack=None, certificate="crown"),
        ]
    )
    found = pd.DataFrame([names for names, _ in Groups(table)]).query("networks_of == 'all'").set_index("measure")
    assert found["networks"].to_dict() == {"a": 40, "b": 40, "c": 20}
    assert found["certificate"].dropna().to_dict() == {"c": "crown"}
    assert correlations(Groups(table)).query("networks_of == 'all'")["pearson"].notna().all()
    accuracy = regressions(Groups(table)).query(
        "networks_of == 'all' and term == 'test_accuracy' and model == 'simple'"
    )
    assert accuracy.groupby("certificate", dropna=False)["slope"].count().tolist() == [1, 2]


def test_margins_count_in_units_of_delta_where_others_are_as_they_are() -> None:
    table = pd.concat([measured(4, estimate=0.5), measured(4, notion="margin", delta=0.2, estimate=0.05)])
    found = in_range(table.assign(trunk_estimate=table["estimate"] / 2))
    assert found["estimate"].tolist() == pytest.approx([0.5] * 4 + [0.25] * 4)
    assert found["trunk_estimate"].tolist() == pytest.approx([0.25] * 4 + [0.125] * 4)


def test_the_ledger_counts_every_planned_network() -> None:
    status = ["trained", "trained", "diverged", "planned"]
    accuracy = [0.9, 0.5, np.nan, np.nan]
    networks = measured(4, status=status, test_accuracy=accuracy)
    row = completeness(networks, networks, networks.iloc[:1]).iloc[0]
    assert row[["networks", "trained", "diverged", "planned", "measured"]].tolist() == [4, 2, 1, 1, 1]
    assert row["median_accuracy"] == pytest.approx(0.7)
    assert row["share_above_85"] == 0.25


@pytest.mark.parametrize(("thin", "tested"), [(1, False), (3, False), (4, True), (6, True), (9, False)])
def test_a_level_of_few_trajectories_is_not_tested(thin: int, tested: bool) -> None:
    # Clustered errors of a level that one to three trajectories carry claim effects that are not there.
    activation = np.where(np.arange(40) < 4 * thin, "relu", "tanh")
    found = (
        regressions(Groups(measured(activation=activation)))
        .query("networks_of == 'all' and model == 'simple'")
        .set_index("term")
    )
    assert np.isfinite(found.loc["activation: tanh", "slope"]) == tested


def test_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    pd.DataFrame({"grid": ["01", "1e3", "NA"], "dataset": "null", "x": [1.0, None, 2.0]}).to_csv(tmp_path / "a.csv")
    found = csv(tmp_path / "a.csv")
    assert found["grid"].tolist() == ["01", "1e3", "NA"]
    assert found["dataset"].tolist() == ["null"] * 3
    assert found["x"].isna().tolist() == [False, True, False]
