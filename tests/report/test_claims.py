"""The claims as the page shows them: places in their plots, reasons, and paragraphs that say no more than intervals."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import grid, planned
from hypothesis import given
from hypothesis import strategies as st

from deltaball.analysis.claims import number
from deltaball.analysis.rules import RULES
from deltaball.analysis.scorecard import COLUMNS, VERDICTS
from deltaball.report import claims, forest

SETTINGS = {"margin": 0.05, "confidence": 0.95}
RULE = {one["claim"]: one for one in RULES["004"]["claims"]}
PLAN = planned(grid(width=[64, 128]))
ENDS = st.floats(-1, 1).map(lambda value: round(value, 3))
INTERVALS = st.tuples(ENDS, ENDS, ENDS).map(sorted)


def scorecard(claim: str, verdict: str, *parts: dict[str, Any], over: str | None = None) -> pd.DataFrame:
    """A claim's rows, as the scorecard has them."""
    rule = RULE[claim]
    named = {name: rule[name] for name in ("claim", "section", "says", "unit")}
    named |= {"statistic": rule["effect"], "rule": "rule", "networks": 40, "trajectories": 20, "why": "why"}
    overall = {"part": "overall", "verdict": verdict}
    return pd.DataFrame([{**named, **one} for one in [overall, *parts]], columns=COLUMNS)


def part(name: str, lower: float, effect: float, upper: float, verdict: str, p: float = 0.01) -> dict[str, Any]:
    values = {"effect": effect, "lower": lower, "upper": upper, "p": p}
    return {"part": name, "dataset": "mnist5k", "verdict": verdict, "why": "", **values}


def shown(table: pd.DataFrame) -> dict[str, Any]:
    (paper,) = claims.papers(table, PLAN)
    (section,) = paper["sections"]
    return section["claims"][0] | {"means": section["means"], "counts": paper["counts"]}


@given(st.sampled_from(list(RULE.values())), st.lists(INTERVALS, min_size=1, max_size=40))
def test_marks_stand_in_the_order_of_the_numbers_and_inside_the_plot(rule: dict, drawn: list[list[float]]) -> None:
    parts = [part(str(place), *values, "undecided") for place, values in enumerate(drawn)]
    plot = forest.plot(rule, parts, SETTINGS)
    for mark in plot["rows"]:
        assert 0 <= mark["left"] <= mark["x"] <= mark["right"] <= plot["width"]
        assert 0 < mark["y"] < plot["bottom"] < plot["height"]
    places = [mark["x"] for mark in sorted(plot["rows"], key=lambda mark: mark["row"]["effect"])]
    assert places == sorted(places)
    heights = [mark["y"] for mark in plot["rows"]]
    assert heights == sorted(set(heights))
    for shade in plot["shades"]:
        assert 0 <= shade["x"] <= shade["x"] + shade["width"] <= plot["width"]


@pytest.mark.parametrize("rule", list(RULE.values()), ids=list(RULE))
def test_an_effect_lies_on_the_shade_of_the_claim_exactly_where_the_claim_is_true(rule: dict) -> None:
    low, high = (rule["holds"].get(end, default) for end, default in (("from", -np.inf), ("to", np.inf)))
    ends = [{"margin": 0.05, "-margin": -0.05, "confidence": 0.95}.get(end, end) for end in (low, high)]
    span = min(abs(end) for end in ends if np.isfinite(end)) or 0.2
    for effect in [end + side * 0.4 * span for end in ends if np.isfinite(end) for side in (-1, 1)]:
        if not min(rule.get("range", [-np.inf])) <= effect <= max(rule.get("range", [np.inf])):
            continue
        plot = forest.plot(rule, [part("one", effect, effect, effect, "undecided")], SETTINGS)
        shade = next(one for one in plot["shades"] if one["kind"] == "holds")
        inside = shade["x"] <= plot["rows"][0]["x"] <= shade["x"] + shade["width"]
        assert inside == (ends[0] <= effect <= ends[1]), effect


@pytest.mark.parametrize(("half", "whole"), [(0.9, True), (0.01, False)])
def test_the_axis_is_the_claims_range_only_where_intervals_can_be_told_apart_on_it(half: float, whole: bool) -> None:
    rule = next(one for one in RULE.values() if one.get("range") == [-1, 1] and 0 in one["holds"].values())
    plot = forest.plot(rule, [part("one", -half, 0.0, half, "undecided")], SETTINGS)
    mark = plot["rows"][0]
    assert (mark["right"] - mark["left"] > 0.89 * (forest.WIDTH - 2 * forest.EDGE)) == whole
    assert not mark["cut_left"]
    labels = {tick["label"] for tick in plot["ticks"]}
    assert ({number(-1), number(1)} <= labels) == whole
    assert mark["right"] - mark["left"] > 0.05 * forest.WIDTH


def test_intervals_without_an_end_are_cut_and_say_so() -> None:
    rule = RULE["pruning_has_no_effect"]
    mark = forest.plot(rule, [part("one", -np.inf, 0.0, 0.1, "undecided")], SETTINGS)["rows"][0]
    assert mark["cut_left"]
    assert not mark["cut_right"]


def test_a_paragraph_says_the_bound_that_all_intervals_keep() -> None:
    both = [part("a", -0.7, -0.5, -0.3, "supported"), part("b", -0.9, -0.6, -0.2, "supported")]
    claim = shown(scorecard("sgd_tradeoff", "supported", *both))
    told = "the correlation of accuracy with robustness is at most −0.20 in every part."
    assert claim["means"] == [("Supported", told)]
    against = shown(scorecard("sgd_tradeoff", "contradicted", both[0], part("b", 0.2, 0.4, 0.5, "contradicted")))
    assert against["means"] == [
        ("Contradicted", "the correlation of accuracy with robustness is at least 0.20 in 1 of 2 parts.")
    ]
    pruned = [part("a", 0.1, 0.2, 0.3, "contradicted"), part("b", -0.3, -0.2, -0.1, "contradicted")]
    assert "is between −0.30 and 0.30" in shown(scorecard("pruning_has_no_effect", "contradicted", *pruned))["told"]


@given(st.lists(INTERVALS, min_size=1, max_size=5), st.sampled_from(["sgd_tradeoff", "sgd_more_vulnerable"]))
def test_of_what_is_undecided_every_value_of_every_interval_stays_possible(drawn: list[list[float]], name: str) -> None:
    parts = [part(str(place), *values, "undecided", p=0.5) for place, values in enumerate(drawn)]
    claim = shown(scorecard(name, "undecided", *parts))
    lower, upper = min(low for low, _, _ in drawn), max(high for _, _, high in drawn)
    assert (number(lower) if lower == upper else f"between {number(lower)} and {number(upper)}") in claim["told"]


def test_why_a_claim_is_undecided_is_told_in_one_phrase() -> None:
    few = shown(
        scorecard("sgd_tradeoff", "undecided", part("a", -0.6, -0.3, 0.1, "undecided", 0.1) | {"trajectories": 20})
    )
    assert few["why_short"].startswith("too few networks: about ")
    assert "independent trainings) would support it, if effects stay as seen" in few["why_short"]
    both = [part("a", -0.6, -0.3, -0.1, "supported"), part("b", 0.1, 0.3, 0.6, "contradicted")]
    disagree = shown(scorecard("capacity_lowers_robustness", "undecided", *both))
    assert disagree["why_short"] == "its parts disagree: supported in 1 of 2 parts, contradicted in 1 of 2 parts"
    nothing = part("a", np.nan, np.nan, np.nan, "undecided", np.nan) | {"why": "cannot be tested: 4 dense trunks"}
    untested = shown(scorecard("imp_tradeoff", "undecided", nothing))
    assert untested["why_short"] == "cannot be tested: 4 dense trunks"
    assert untested["plot"] is None
    tiny = shown(scorecard("sgd_tradeoff", "undecided", part("a", -0.2, -0.01, 0.2, "undecided", 0.9)))
    assert tiny["why_short"].startswith("no effect is seen")


def test_claims_are_counted_and_stand_in_the_order_of_the_papers_sections() -> None:
    table = pd.concat(
        [
            scorecard("sgd_more_vulnerable", "not run"),
            scorecard("sgd_tradeoff", "not run"),
            scorecard("imp_tradeoff", "not run"),
        ]
    )
    (paper,) = claims.papers(table, PLAN)
    assert [section["section"] for section in paper["sections"]] == ["4.2", "4.3", "4.4"]
    assert paper["counts"] == dict.fromkeys(VERDICTS, 0) | {"not run": 3}


def test_every_section_of_a_claim_has_a_title_and_every_claim_its_plain_words() -> None:
    for stated in RULES.values():
        for rule in stated["claims"]:
            assert stated["sections"][rule["section"]]
            assert rule["plain"][0].islower() or rule["plain"].startswith(("SR", "LR"))
            assert not rule["plain"].endswith(".")
