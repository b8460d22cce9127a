"""Attacks beside exact distances, by hand."""

import numpy as np
import pandas as pd
import pytest

from deltaball.analysis.overestimates import COLUMNS, POINTS, overestimates, points

KNOWN = {"dataset": "mnist", "grid": "fcn", "method": "sgd", "architecture": "fcn", "norm": "linf", "delta": 0.1}
KNOWN |= {"objective": "cross_entropy"} | dict.fromkeys(("noise", "against", "constraint", "adversary", "rounds"))


def measured(measure: str, attack: str | None, certificate: str | None, samples: int = 5, **other: object) -> dict:
    row = {**KNOWN, "notion": "margin", "network_id": "a", "measure": measure, "samples": samples}
    return row | {"attack": attack, "certificate": certificate} | other


ROWS = [
    measured("e", None, "exact_distance"),
    measured("f", "fmn", None),
    measured("l", "lbfgs", None, 4),
    measured("c", None, "crown"),
    measured("g", "fmn", None, notion="class_change"),
]
# Of the points the second has no violation within δ, the third is open, and the class of the fourth is ambiguous.
SAID = {
    "e": [0.05, 0.1, np.nan, 0.0, 0.08],
    "f": [0.0502, 0.1, 0.07, 0.0, 0.1],
    "l": [0.075, 0.1, 0.09, 0.0],
    "c": [0.1, 0.1, 0.0, 0.0, 0.0],
    "g": [0, 1, 0, 0, 1],
}
OUTCOMES = pd.DataFrame([("a", *one) for one in SAID.items()], columns=["network_id", "measure", "values"])


def test_points_are_compared_where_the_distance_is_known_and_smaller_than_delta() -> None:
    found = points(pd.DataFrame(ROWS), OUTCOMES)
    assert list(found) == POINTS
    by = dict(iter(found.groupby("attack")))
    assert by["fmn"]["point"].tolist() == [0, 4]
    assert by["fmn"]["ratio"].tolist() == [pytest.approx(1.004), np.inf]
    assert by["fmn"]["found"].isna().tolist() == [False, True]
    assert by["lbfgs"]["point"].tolist() == [0]
    assert by["lbfgs"]["ratio"].tolist() == [pytest.approx(1.5)]


def test_what_is_as_near_as_the_exact_distance_is_known_counts_as_exact() -> None:
    found = overestimates(points(pd.DataFrame(ROWS), OUTCOMES)).set_index("attack")
    assert found.loc["fmn", ["networks", "points"]].tolist() == [1, 2]
    assert found.loc["fmn", ["near", "missed", "median", "largest"]].tolist() == pytest.approx([0.5, 0.5, 1.004, 1.004])
    assert found.loc["lbfgs", ["near", "missed", "median", "most"]].tolist() == pytest.approx([0, 0, 1.5, 1.5])


def test_without_outcomes_or_exact_distances_there_are_no_rows() -> None:
    for found in (points(pd.DataFrame(ROWS), None), points(pd.DataFrame(ROWS[1:]), OUTCOMES)):
        assert list(found) == POINTS
        assert list(overestimates(found)) == COLUMNS
        assert found.empty
