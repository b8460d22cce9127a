"""Both sides of a network beside each other, which attack is shown, and the scatter of draws: by hand."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from deltaball.analysis import judges
from deltaball.analysis.convergence import spread
from deltaball.analysis.enclosures import COLUMNS, enclosures
from deltaball.tables import columns

NETWORKS = pd.DataFrame(
    {
        "network_id": ["b", "a", "c"],
        "dataset": "mnist",
        "grid": "fcn",
        "method": "sgd",
        "architecture": "fcn",
        "test_accuracy": [0.9, 0.8, np.nan],
    }
)


def curve(network: str, delta: float, certified: float, attacked: float, **changed: object) -> dict:
    row = {"network_id": network, "notion": "class_change", "norm": "linf", "gamma": None, "delta": delta}
    row |= {"samples": 738, "confidence": 0.95, "attacked": attacked, "certified": certified}
    return row | {"open": attacked - certified, "lower": certified - 0.03, "upper": attacked + 0.03} | changed


def estimate(network: str, delta: float, by: str, value: float, **changed: object) -> dict:
    certificate = by.partition("-")[0] in ("ibp", "crown", "exact")
    row = {"network_id": network, "measure": f"{delta} {by}", "notion": "class_change", "norm": "linf", "delta": delta}
    row |= {"attack": None if certificate else by, "certificate": by if certificate else None, "estimate": value}
    return row | {"samples": 738, "epsilon": 0.05, "confidence": 0.95, "undecided": 0} | changed


def of(rows: list[dict], columns: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns)).astype({**columns, "samples": "Int64"})


def enclosed(estimates: list[dict], curves: list[dict]) -> pd.DataFrame:
    robustness = of([{**dict.fromkeys(columns.ROBUSTNESS), **row} for row in estimates], columns.ROBUSTNESS)
    return enclosures(NETWORKS, robustness, of(curves, columns.CURVES))


def test_a_network_is_enclosed_where_both_sides_are_known() -> None:
    found = enclosed(
        [
            estimate("a", 0.1, "fgsm", 0.9),
            estimate("a", 0.1, "pgd", 0.7, epsilon=0.02),
            estimate("a", 0.1, "exact-5", 0.6, undecided=3),
            estimate("b", 0.1, "pgd", 0.5),
        ],
        [
            curve("a", 0.05, 0.8, np.nan),  # nothing attacked
            curve("a", 0.1, 0.6, 0.7),
            curve("a", 0.15, 0.5, 0.6),  # of a margin curve: nothing was asked at this δ
            curve("b", 0.1, 0.5, 0.5),
        ],
    )
    assert found.columns.tolist() == COLUMNS
    assert found[["network_id", "delta"]].to_numpy().tolist() == [["b", 0.1], ["a", 0.1], ["a", 0.15]]
    assert found["gap"].tolist() == pytest.approx([0, 0.1, 0.1])
    assert found["epsilon"].fillna(-1).tolist() == [0.05, 0.05, -1]
    assert found["fgsm"].fillna(-1).tolist() == [-1, 0.9, -1]
    assert found["undecided"].fillna(-1).tolist() == [-1, 3, -1]
    assert found["test_accuracy"].tolist() == [0.9, 0.8, 0.8]
    assert found["samples"].dtype == np.int64


def test_what_is_beside_an_enclosure_is_of_its_own_ball_and_threshold() -> None:
    two = {"notion": "variation_above"}
    found = enclosed(
        [estimate("a", 0.1, "fgsm", value, gamma=gamma, **two) for gamma, value in ((0.3, 0.4), (0.5, 0.6))]
        + [estimate("a", 0.1, "fgsm", 0.8, gamma=0.5, norm="l2", **two), estimate("a", 0.1, "fgsm", 0.9)],
        [curve("a", 0.1, 0.1, 0.2, gamma=gamma, norm=norm, **two) for gamma, norm in ((0.3, "linf"), (0.5, "l2"))],
    )
    assert found["fgsm"].tolist() == [0.4, 0.8]


def test_a_mean_variation_is_enclosed_the_other_way_round() -> None:
    found = enclosed([], [curve("a", 0.1, 0.6, 0.4, notion="softmax_variation", open=np.nan)])
    assert found.loc[0, ["attacked", "certified", "gap"]].tolist() == pytest.approx([0.4, 0.6, 0.2])
    assert np.isnan(found.loc[0, "open"])


def test_a_mean_margin_is_enclosed_by_the_strongest_not_by_the_luckiest() -> None:
    margin = {"notion": "margin", "epsilon": 0.01}
    found = enclosed(
        [
            estimate("a", 0.2, "fmn", 0.12, tight_lower=0.11, tight_upper=0.13, **margin),
            estimate("a", 0.2, "fmn-10", 0.11, tight_lower=0.10, tight_upper=0.12, **margin),
            estimate("a", 0.2, "crown", 0.05, tight_lower=0.04, tight_upper=0.06, **margin),
            estimate("a", 0.2, "ibp", 0.06, tight_lower=0.05, tight_upper=0.07, **margin, samples=500),
            estimate("b", 0.2, "fmn", 0.1, tight_lower=0.1, tight_upper=0.1, **margin),
        ],
        [],
    )
    assert found["network_id"].tolist() == ["a"]
    assert found.loc[0, ["certified", "attacked", "lower", "upper"]].tolist() == [0.05, 0.12, 0.04, 0.13]
    assert found.loc[0, "samples"] == 738


def test_nothing_measured_encloses_nothing() -> None:
    found = enclosed([], [])
    assert (len(found), found.columns.tolist()) == (0, COLUMNS)
    assert len(enclosed([estimate("a", 0.1, "fgsm", 0.9)], [curve("a", 0.1, np.nan, 0.9)])) == 0


def measured(*rows: tuple[str, str, float, str]) -> pd.DataFrame:
    """Rows (network, data set, δ, attack or certificate) of class change."""
    table = [
        estimate(network, delta, by, 0.5) | {"dataset": dataset, "gamma": np.nan}
        for network, dataset, delta, by in rows
    ]
    return pd.DataFrame(table)


def shown(table: pd.DataFrame) -> list[tuple]:
    return list(judges.judged(table)[["network_id", "dataset", "delta", "attack"]].itertuples(index=False, name=None))


def test_attacks_and_certificates_are_ordered_by_strength() -> None:
    ordered = ["fgsm", "fmn-10", "fmn", "pgd-10x1", "pgd-40x1", "pgd", "pgd-100x1", "ibp", "crown", "exact-5", "exact"]
    assert sorted(sorted(ordered), key=judges.strength) == ordered


def test_the_attack_of_most_networks_is_shown_and_of_such_the_strongest() -> None:
    both = [("a", "x", 0.1, "fgsm"), ("a", "x", 0.1, "pgd"), ("a", "x", 0.1, "fmn"), ("a", "x", 0.1, "pgd-10x1")]
    assert shown(measured(*both)) == [("a", "x", 0.1, "pgd")]
    # FGSM judged one network more.
    assert shown(measured(*both, ("b", "x", 0.1, "fgsm"))) == [("a", "x", 0.1, "fgsm"), ("b", "x", 0.1, "fgsm")]
    # Each data set and δ chooses for itself.
    found = shown(measured(*both, ("b", "x", 0.1, "fgsm"), ("b", "x", 0.2, "fmn"), ("c", "y", 0.1, "pgd")))
    assert {one[1:] for one in found} == {("x", 0.1, "fgsm"), ("x", 0.2, "fmn"), ("y", 0.1, "pgd")}


def test_a_certificate_is_never_shown_for_an_attack() -> None:
    certified = [(network, "x", 0.1, "crown") for network in "abc"]
    assert shown(measured(*certified, ("a", "x", 0.1, "fgsm"))) == [("a", "x", 0.1, "fgsm")]
    assert shown(measured(*certified)) == []


def test_settings_are_named_where_judges_differ_in_nothing_else() -> None:
    found = judges.titles(["exact-10", "pgd", "pgd-10x1"])
    assert found == {"exact-10": "the exact answer", "pgd": "PGD", "pgd-10x1": "PGD-10×1"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ""),
        (["fgsm"], "FGSM"),
        (["pgd", "fgsm", "pgd"], "FGSM and PGD"),
        (["exact", "crown", "ibp", None], "IBP, CROWN and the exact answer"),
        (["pgd-10x1"], "PGD-10×1"),
    ],
)
def test_attacks_are_named_in_words(names: list[str], expected: str) -> None:
    assert judges.joined(pd.Series(names, dtype="str")) == expected


def draws(population: list[float], size: int, epsilon: float, **changed: object) -> pd.DataFrame:
    """Every set of `size` points of a population, each once, as draws."""
    values = np.array(population, float)
    rows = [
        dict.fromkeys(columns.CONVERGENCE)
        | {"experiment": 0, "network_id": "a", "measure": "m", "notion": "class_change", "delta": 0.1, "gamma": np.nan}
        | {"attack": "pgd", "epsilon": epsilon, "samples": size, "draw": draw, "estimate": values[list(points)].mean()}
        | {"test_points": len(values), "whole": values.mean(), "deviation": values.std()}
        | changed
        for draw, points in enumerate(combinations(range(len(values)), size))
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_the_spread_of_all_draws_is_what_the_overlap_leaves(size: int) -> None:
    table = draws([0, 0, 1, 0.3, 1, 1, 0.7], size, 0.1)
    row = spread(NETWORKS, table).iloc[0]
    count = len(table)
    assert row["sd"] * np.sqrt((count - 1) / count) == pytest.approx(row["sd_expected"])
    assert row["sd_expected"] == pytest.approx(row["sd_independent"] * row["overlap_factor"])
    assert row["overlap_factor"] == pytest.approx(np.sqrt((7 - size) / 6))
    assert row["mean"] == pytest.approx(row["whole"])
    assert row["draws"] == count


def test_draws_of_the_whole_split_do_not_scatter() -> None:
    table = pd.concat([draws([0, 1, 1, 1], 4, 0.1, draw=draw) for draw in range(3)])
    row = spread(NETWORKS, table).iloc[0]
    assert row[["sd", "overlap_factor", "sd_expected"]].tolist() == [0, 0, 0]
    assert row["sd_independent"] == pytest.approx(np.sqrt(3 / 16) / 2)


def test_one_test_point_has_no_spread_to_expect() -> None:
    assert spread(NETWORKS, draws([1], 1, 0.1)).loc[0, ["overlap_factor", "sd_expected"]].tolist() == [0, 0]


def test_draws_within_epsilon_are_counted_in_the_measures_unit() -> None:
    # Of {0, 0, 1, 1} by twos: 0, 1 and four times 1/2.
    table = draws([0, 0, 1, 1], 2, 0.25)
    assert spread(NETWORKS, table).loc[0, ["reach", "within_epsilon"]].tolist() == pytest.approx([0.25, 4 / 6])
    assert spread(NETWORKS, table.assign(epsilon=0.5)).loc[0, "within_epsilon"] == 1  # exactly ε away
    margins = spread(NETWORKS, table.assign(epsilon=0.5, notion="margin", delta=0.1))
    assert margins.loc[0, ["reach", "within_epsilon"]].tolist() == pytest.approx([0.05, 4 / 6])


def test_the_spread_is_per_experiment_network_measure_and_epsilon() -> None:
    parts = [draws([0, 1, 1], 2, 0.1), draws([0, 1, 1], 1, 0.2), draws([0, 1, 1], 2, 0.1, network_id="b")]
    parts += [draws([0, 1, 1], 2, 0.1, experiment=1), draws([0, 1, 1], 2, 0.1, measure="n", attack=None)]
    found = spread(NETWORKS, pd.concat(parts))
    assert len(found) == 5
    assert found["architecture"].tolist() == ["fcn"] * 5


def test_no_experiment_has_no_spread() -> None:
    found = spread(NETWORKS, of([], columns.CONVERGENCE))
    assert len(found) == 0
    assert {"sd_expected", "dataset"} < set(found)
