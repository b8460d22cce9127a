"""What each judge settles of what is left: by hand, and beside the enclosures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_figures import small
from synthetic_tables import write_tables

from deltaball.analysis.enclosures import enclosures
from deltaball.analysis.settling import COLUMNS, settling
from deltaball.tables import frames

NETWORK = {"network_id": "a", "dataset": "mnist", "grid": "g", "method": "sgd", "architecture": "fcn"}


def measured(measure: str, attack: str | None, certificate: str | None, **changed: object) -> dict:
    row = {**NETWORK, "notion": "class_change", "norm": "linf", "gamma": np.nan, "delta": 0.1, "samples": 6}
    return row | {"measure": measure, "attack": attack, "certificate": certificate} | changed


ROWS = pd.DataFrame(
    [
        measured("e", None, "exact-2"),  # tables may have any order
        measured("f", "fgsm", None),
        measured("p", "pgd", None),
        measured("c", None, "crown"),
    ]
)
JUDGES = {"p": ("pgd", None), "c": (None, "crown")}
SAID = {"f": [0, 1, 1, 1, 1, 1], "p": [0, 0, 1, 1, 1, 1], "c": [0, 0, 1, 0, 0, 0], "e": [0, 0, 1, 0, 1, np.nan]}


def outcomes(said: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame([("a", *one) for one in said.items()], columns=["network_id", "measure", "values"])


def record(**judging: tuple[int, float]) -> dict:
    return {"judging": {measure: {"a": told} for measure, told in judging.items()}}


def test_each_judge_is_counted_for_what_those_before_it_left() -> None:
    found = settling(ROWS, outcomes(SAID), [])
    assert list(found) == COLUMNS
    assert found["judge"].tolist() == ["fgsm", "pgd", "crown", "exact-2"]
    counts = found[["asked", "violated", "proven", "open"]].to_numpy().tolist()
    assert counts == [[6, 1, 0, 5], [6, 1, 0, 4], [4, 0, 1, 3], [3, 1, 1, 1]]
    assert found["settled"].tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 2 / 6])
    assert found["gap"].tolist() == pytest.approx([5 / 6, 4 / 6, 3 / 6, 1 / 6])
    assert found["seconds"].isna().all()


def test_seconds_are_known_where_jobs_tell_of_all_points() -> None:
    jobs = [record(f=(4, 1.0), p=(6, 3.0), c=(5, 9.0)), {"status": "running"}, record(f=(2, 0.5), e=(12, 8.0))]
    found = settling(ROWS, outcomes(SAID), jobs).set_index("judge")["seconds"]
    assert found[["fgsm", "pgd", "exact-2"]].tolist() == [1.5, 3.0, 4.0]  # two runs of the last
    assert np.isnan(found["crown"])


def test_a_violation_counts_in_larger_balls_and_a_proof_in_smaller_ones() -> None:
    rows = [measured(f"{by}{at}", *judge, delta=at) for at in (0.1, 0.2) for by, judge in JUDGES.items()]
    said = {"p0.1": [0, 1, 1], "p0.2": [1, 0, 1], "c0.1": [0, 0, 0], "c0.2": [0, 0, 1]}
    found = settling(pd.DataFrame(rows).assign(samples=3), outcomes(said), [])
    assert found["delta"].tolist() == [0.1, 0.1, 0.2, 0.2]
    assert found["open"].tolist() == [2, 1, 1, 0]


def test_a_variation_is_closed_from_both_sides() -> None:
    rows = [measured(by, *judge, notion="softmax_variation", samples=2) for by, judge in JUDGES.items()]
    found = settling(pd.DataFrame(rows), outcomes({"p": [0.2, 0.4], "c": [0.5, 1.0]}), [record(c=(2, 1.0))])
    assert found["settled"].tolist() == pytest.approx([0.3, 0.25])
    assert found["gap"].tolist() == pytest.approx([0.7, 0.45])
    assert found[["violated", "proven", "open"]].isna().all(axis=None)


def test_one_side_alone_and_missing_outcomes_tell_nothing() -> None:
    for kept in (["f", "p"], ["c"]):
        assert settling(ROWS[ROWS["measure"].isin(kept)], outcomes(SAID), []).empty
    assert settling(ROWS[ROWS["measure"] == "e"], outcomes(SAID), [])["open"].tolist() == [1]
    assert list(settling(ROWS, None, [])) == COLUMNS


def test_what_the_last_judge_leaves_is_the_gap_of_the_enclosure(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    networks, robustness = frames.load(plan)
    every = frames.measured(frames.distinct(networks, robustness), robustness)
    found = settling(every, frames.load_outcomes(plan), [])
    enclosed = enclosures(networks, robustness, frames.load_curves(plan)[0])
    keys = ["network_id", "notion", "norm", "gamma", "delta"]
    last = found.drop_duplicates(keys, keep="last").merge(enclosed, on=keys, suffixes=("", "_enclosed"))
    assert {"class_change", "softmax_variation", "variation_above"} == set(last["notion"])
    assert len(last) == len(found.drop_duplicates(keys))
    assert last["gap"].to_numpy() == pytest.approx(last["gap_enclosed"].to_numpy())
