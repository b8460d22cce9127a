"""The claims as the page shows them: by paper and section, each with its picture and its reason, and what they mean."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from deltaball.analysis import deciding
from deltaball.analysis.claims import number
from deltaball.analysis.rules import RULES
from deltaball.analysis.scorecard import OVERALL, VERDICTS, ends
from deltaball.plan.plan import Plan
from deltaball.report import forest
from deltaball.report.reading import records
from deltaball.study.papers import PAPERS

LONGEST = 110  # letters of a reason
AS_SEEN = {"supported": "support it", "contradicted": "contradict it"}


def papers(scorecard: pd.DataFrame, plan: Plan) -> list[dict[str, Any]]:
    """Of the study's paper its `number`, `title`, `deviations`, `counts` of verdicts, and `sections`.

    A section has a `title`, `claims` and what they mean.
    """
    values = {"margin": plan.study.analysis.equivalence_margin, "confidence": plan.study.guarantee.confidence}
    stated = RULES[plan.study.paper]
    rules = {claim["claim"]: claim for claim in stated["claims"]}
    tests = int(scorecard.loc[scorecard["part"] != OVERALL, "p"].notna().sum())
    claims = [
        _claim(rules[name], records(rows), values, tests) for name, rows in scorecard.groupby("claim", sort=False)
    ]
    sections = [
        {
            "section": section,
            "numbered": not section.islower(),  # a part of the paper by its number or letter, and no word of ours
            "title": stated["sections"][section],
            "claims": members,
            "means": meaning(members),
        }
        for section, members in _by_section(claims, list(stated["sections"]))
    ]
    deviations = [*_trained_otherwise(stated.get("trained", {}), plan), *stated.get("deviations", [])]
    about = {"number": plan.study.paper, "title": PAPERS[plan.study.paper], "deviations": deviations}
    return [{**about, "counts": counts(claims), "sections": sections}] if claims else []


def _trained_otherwise(papers: Mapping[str, Any], plan: Plan) -> Iterator[str]:
    """The values of axes that a study has and its paper has not, in a sentence."""
    told = []
    for axis, papers_value in papers.items():
        values = {network.axes[axis] for network in plan.networks if network.axes.get(axis) is not None}
        others = ", ".join(f"{one}" for one in sorted(values - {papers_value}))
        told += [f"{axis} {others} ({papers_value})"] if others else []
    if told:
        yield f"This study has networks trained otherwise; the paper's values are in brackets: {'; '.join(told)}."


def counts(claims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many claims there are of each verdict, in the order of VERDICTS, none left out."""
    verdicts = [claim["verdict"] for claim in claims]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}


def meaning(claims: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """A paragraph of plain English on the claims of a section, as pairs: a verdict, and what its claims' intervals say.

    It names what the intervals leave possible and no more: bounds are the intervals' own ends.
    """
    spoken = {
        "supported": "Supported",
        "contradicted": "Contradicted",
        "undecided": "Not decided",
        "not run": "Not run",
    }
    told = {verdict: [claim["told"] for claim in claims if claim["verdict"] == verdict] for verdict in VERDICTS}
    return [(spoken[verdict], "; ".join(texts) + ".") for verdict, texts in told.items() if texts]


def _by_section(claims: Sequence[dict[str, Any]], sections: Sequence[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    ordered = sorted(claims, key=lambda claim: sections.index(claim["section"]))
    return [(section, list(members)) for section, members in itertools.groupby(ordered, lambda one: one["section"])]


def _claim(
    rule: Mapping[str, Any], rows: list[dict[str, Any]], values: Mapping[str, float], tests: int
) -> dict[str, Any]:
    overall = next(row for row in rows if row["part"] == OVERALL)
    parts = [row for row in rows if row["part"] != OVERALL]
    more = deciding.more_trainings(parts, rule, values, tests) if overall["verdict"] == "undecided" else None
    plot = forest.plot(rule, parts, values)
    claim = {**overall, "parts": parts, "plot": plot, "plain": rule["plain"]}
    told = {"why_short": reason(claim, rule, values, more), "told": statement(claim, rule, values)}
    marks = {mark["part"]: mark for mark in plot["rows"]} if plot else {}
    return {**claim, **told, "alt": _alt(claim, rule, values), "marks": marks}


def reason(
    claim: Mapping[str, Any], rule: Mapping[str, Any], values: Mapping[str, float], more: tuple[int, str] | None
) -> str:
    """Why a verdict is what it is, in one phrase."""
    parts = claim["parts"]
    if claim["verdict"] == "not run":
        return "nothing of the kind is measured"
    if claim["verdict"] != "undecided":
        return _in_parts(parts, claim["verdict"]) if len(parts) > 1 else str(claim["why"])
    tested = [row for row in parts if not pd.isna(row["effect"])]
    if not tested:
        return _shortened(parts[0]["why"])
    verdicts = [row["verdict"] for row in parts]
    if more is not None:
        return f"too few networks: about {_trainings(claim, more[0])} would {AS_SEEN[more[1]]}, if effects stay as seen"
    if "supported" in verdicts and "contradicted" in verdicts:
        return f"its parts disagree: {_in_parts(parts, 'supported')}, {_in_parts(parts, 'contradicted')}"
    sides = [deciding.side(row["effect"], rule, values) for row in tested]
    if "supported" in sides and "contradicted" in sides:
        return f"its parts point both ways: {sides.count('supported')} for it, {sides.count('contradicted')} against"
    if len(tested) < len(parts):
        return f"{len(parts) - len(tested)} of {len(parts)} parts cannot be tested"
    return "no effect is seen that is large enough to decide, with any number of networks in reach"


def statement(claim: Mapping[str, Any], rule: Mapping[str, Any], values: Mapping[str, float]) -> str:
    """What a claim's intervals leave possible."""
    parts = claim["parts"]
    tested = [row for row in parts if not pd.isna(row["effect"])]
    if claim["verdict"] == "not run":
        return claim["plain"]
    if not tested:
        return f"{claim['plain']} (cannot be tested here)"
    if claim["verdict"] == "undecided":
        return f"{claim['plain']} ({'over all parts ' if len(tested) > 1 else ''}{_between(tested)})"
    told = [row for row in tested if row["verdict"] == claim["verdict"]]
    where = (
        ""
        if len(parts) == 1
        else " in every part"
        if len(told) == len(parts)
        else f" in {len(told)} of {len(parts)} parts"
    )
    return f"{claim['plain']} is {_bound(told, rule, values, claim['verdict'])}{where}"


def _bound(
    told: Sequence[Mapping[str, Any]], rule: Mapping[str, Any], values: Mapping[str, float], verdict: str
) -> str:
    """The bound that all of these intervals keep, on the side of the threshold that the verdict speaks of."""
    low, high = ends(rule, values)
    lower, upper = min(row["lower"] for row in told), max(row["upper"] for row in told)
    if lower == upper:
        return number(lower)
    if verdict == "supported":
        above, below = low > float("-inf"), high < float("inf")
    else:
        above, below = all(row["effect"] > high for row in told), all(row["effect"] < low for row in told)
    if above == below:
        return _between(told)
    return f"at least {number(lower)}" if above else f"at most {number(upper)}"


def _between(rows: Sequence[Mapping[str, Any]]) -> str:
    lower, upper = min(row["lower"] for row in rows), max(row["upper"] for row in rows)
    return number(lower) if lower == upper else f"between {number(lower)} and {number(upper)}"


def _in_parts(parts: Sequence[Mapping[str, Any]], verdict: str) -> str:
    count = sum(row["verdict"] == verdict for row in parts)
    return f"{verdict} in {count} of {_counted(len(parts), 'part')}"


def _trainings(claim: Mapping[str, Any], more: int) -> str:
    """So many trainings, and networks where one training makes several."""
    each = claim["networks"] / claim["trajectories"]
    networks = f"{_rounded(more * each)} more"
    return networks if each == 1 else f"{networks} ({_rounded(more)} independent trainings)"


def _rounded(count: float) -> str:
    """Two digits: the number is a guess."""
    digits = max(0, len(str(round(count))) - 2)
    return f"{round(count, -digits):,.0f}"


def _alt(claim: Mapping[str, Any], rule: Mapping[str, Any], values: Mapping[str, float]) -> str:
    low, high = ends(rule, values)
    known = " and ".join(number(end) for end in (low, high) if abs(end) < float("inf"))
    tested = [row for row in claim["parts"] if not pd.isna(row["effect"])]
    if not tested:
        return ""
    every = f"{_counted(len(tested), 'estimate')} of {claim['plain']}, intervals {_between(tested)}"
    return f"Forest plot: {every}; the threshold is {known}; {_in_parts(claim['parts'], claim['verdict'])}."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"
