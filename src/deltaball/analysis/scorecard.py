"""What a study says of every empirical claim of a paper, by rules that claims_NUMBER.yaml wrote down beforehand."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deltaball.analysis import claims, comparison_claims, corruption_claims, distance_claims, training_claims
from deltaball.analysis.claims import Evidence, Part, number
from deltaball.analysis.comparison import COLUMNS as COLUMNS_OF_COMPARISON
from deltaball.analysis.corruptions import COLUMNS as COLUMNS_OF_CORRUPTIONS
from deltaball.analysis.distances import COLUMNS as COLUMNS_OF_DISTANCES
from deltaball.analysis.groups import learned_from
from deltaball.analysis.judges import decides, judged, sampled
from deltaball.analysis.means import AT_POINTS, with_points
from deltaball.analysis.multiplicity import benjamini_hochberg, holm
from deltaball.analysis.pruning import in_range
from deltaball.analysis.rules import CONFIDENCE, RULES, SHARED
from deltaball.analysis.training_claims import LARGER, PAPERS_SIZE
from deltaball.analysis.trainings import trainings
from deltaball.base.files import written_checked
from deltaball.study.notions import NOTIONS
from deltaball.study.study import PAPER

TESTS = {**claims.TESTS, **training_claims.TRAINING_TESTS, **distance_claims.DISTANCE_TESTS}
TESTS |= {**comparison_claims.COMPARISON_TESTS, **corruption_claims.CORRUPTION_TESTS}
ALPHA = 0.05
OVERALL = "overall"
VERDICTS = ("supported", "contradicted", "undecided", "not run")
COLUMNS = ["claim", "section", "says", "part", "dataset", "measure", "statistic", "effect", "lower", "upper"]
COLUMNS += ["confidence", "unit", "p", "p_holm", "p_bh", "networks", "trajectories", "verdict", "why", "rule"]
NOTHING_COMPARED = pd.DataFrame(columns=COLUMNS_OF_COMPARISON)
NOTHING_NEAR = pd.DataFrame(columns=COLUMNS_OF_DISTANCES)
NOTHING_CORRUPTED = pd.DataFrame(columns=COLUMNS_OF_CORRUPTIONS)
OF_A_CLAIM = ["claim", "section", "says", "statistic", "unit", "confidence", "rule"]


def scorecard(
    measured: pd.DataFrame,
    spread: pd.DataFrame,
    margin: float,
    confidence: float,
    paper: str = PAPER,
    distances: pd.DataFrame | None = None,
    comparison: pd.DataFrame | None = None,
    corrupted: pd.DataFrame | None = None,
    outcomes: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Of each claim a row `overall`, then one per part; `p_holm` and `p_bh` are corrected over the whole table.

    `measured` is `tables.measured`, `spread` what `analysis.convergence` says, `distances` what `analysis.distances`
    does, `comparison` what `analysis.comparison` does, `corrupted` what `analysis.corruptions` does, `outcomes` is
    outcomes.parquet, without which differences are known less well; `margin`, `confidence` and the `paper` are the
    study's.
    `p` tests the hypothesis at the end of the claim's range that is closest to being true, two-sided. The overall
    effect is the median of the parts', between the smallest lower and the largest upper end of their intervals.
    """
    stated = RULES[paper]
    values = {"margin": margin, "confidence": confidence}
    measured = with_points(measured, outcomes)
    evidence = _evidence(stated, measured, spread, values, distances, comparison, corrupted)
    found = [(claim, list(TESTS[claim["test"]](evidence, **claim.get("of", {})))) for claim in stated["claims"]]
    rows = [row_of_part(claim, part, evidence.values) for claim, parts in found for part in parts]
    corrected = pd.DataFrame(rows, columns=[*COLUMNS, "side"])
    p_values = corrected["p"].astype(float)
    corrected = corrected.assign(p_holm=holm(p_values), p_bh=benjamini_hochberg(p_values))
    by_claim = dict(list(corrected.groupby("claim", sort=False)))
    pieces = []
    for claim, parts in found:
        rule = _rule(claim, evidence.values)
        rows = [] if not parts else [with_verdict(row, claim, evidence.values) for row in _records(by_claim, claim)]
        pieces += [{**row, "rule": rule} for row in [_overall(claim, parts, rows, evidence.values), *rows]]
    return pd.DataFrame(pieces, columns=COLUMNS).astype({"networks": "Int64", "trajectories": "Int64"})


def write_json(table: pd.DataFrame, path: Path) -> None:
    """The scorecard as a list of claims, each with its `parts`."""
    records = json.loads(table.to_json(orient="records", double_precision=15))
    claims = [
        {**overall, "parts": [{name: part[name] for name in part if name not in OF_A_CLAIM} for part in parts]}
        for overall, *parts in (list(group) for _, group in itertools.groupby(records, lambda row: row["claim"]))
    ]
    with written_checked(path) as temporary:
        temporary.write_text(json.dumps(claims, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _evidence(
    stated: Mapping[str, Any],
    measured: pd.DataFrame,
    spread: pd.DataFrame,
    values: Mapping[str, float],
    distances: pd.DataFrame | None,
    comparison: pd.DataFrame | None,
    corrupted: pd.DataFrame | None,
) -> Evidence:
    """What a paper's claims are about: its notions, and networks trained as it trains them."""
    measured = measured[measured["objective"].isin(stated.get("objectives", measured["objective"].unique()))]
    decided = spread[spread["attack"].notna() | decides(spread["certificate"])]
    return Evidence(
        _prepared(judged(measured), stated),
        decided[decided["notion"].isin(stated["notions"])],
        values,
        learned_from(measured),
        _prepared(sampled(measured), stated),
        _near(stated, measured, distances),
        comparison_claims.longest(NOTHING_COMPARED if comparison is None else comparison, measured),
        corruption_claims.corrupted(NOTHING_CORRUPTED if corrupted is None else corrupted, measured),
    )


def _near(stated: Mapping[str, Any], measured: pd.DataFrame, distances: pd.DataFrame | None) -> pd.DataFrame:
    if "within" not in stated:
        return pd.DataFrame()
    found = NOTHING_NEAR if distances is None else distances
    return distance_claims.near(found, measured, stated["within"])


def _prepared(measured: pd.DataFrame, stated: Mapping[str, Any]) -> pd.DataFrame:
    rows = in_range(measured[measured["notion"].isin(stated["notions"])])
    falls = rows["notion"].map(lambda notion: NOTIONS[notion].violations_raise)
    turned = {
        name: values.where(~falls, 1 - values)
        for name, values in (("robust", rows["estimate"]), ("trunk_robust", rows["trunk_estimate"]))
    }
    pairs = zip(rows[AT_POINTS], falls, strict=True)
    of_points = [1 - values if fell and values is not None else values for values, fell in pairs]
    rows = rows.assign(**{AT_POINTS: pd.Series(of_points, rows.index, object)})
    pruned = rows["proportion"].astype(float).gt(0) & (rows["method"] == "imp")
    rows = rows.assign(**turned, pruned=pruned, gap=rows["train_accuracy"] - rows["test_accuracy"])
    return _trained(rows, stated) if "settings" in stated else rows


def _trained(rows: pd.DataFrame, stated: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of the paper's trainings and thresholds, the longest of each training, with `training` and `size`."""
    for name, wanted in stated["settings"].items():
        rows = rows[rows[name].isna() | rows[name].isin(wanted)]
    rows = rows[rows["gamma"] == rows["notion"].map(stated["thresholds"])]
    rows = rows[rows["epochs"] == rows.groupby("cluster")["epochs"].transform("max")]
    papers = (rows["architecture"] == "fcn") & (rows["depth"] == 1) & (rows["width"] == 100)
    return rows.assign(
        training=trainings(rows),
        size=papers.map({True: PAPERS_SIZE, False: LARGER}),
        network=rows["architecture"].str.upper() + " of " + rows["parameters"].map("{:,} weights".format).astype("str"),
    )


def ends(claim: Mapping[str, Any], values: Mapping[str, float]) -> tuple[float, float]:
    holds = claim["holds"]
    low, high = (value_of(holds.get(end, default), values) for end, default in (("from", -np.inf), ("to", np.inf)))
    return low, high


def value_of(stated: float | str, values: Mapping[str, float]) -> float:
    if not isinstance(stated, str):
        return float(stated)
    return -values[stated[1:]] if stated.startswith("-") else values[stated]


def row_of_part(claim: Mapping[str, Any], part: Part, values: Mapping[str, float]) -> dict[str, Any]:
    """What is tested of a part: its effect with its interval and p-value, before the correction and the verdict."""
    row = {
        **_named(claim),
        "part": part.part,
        "dataset": part.dataset,
        "measure": part.measure,
        "networks": part.members["network_id"].nunique() if len(part.members) else None,
        "trajectories": part.members["cluster"].nunique() if "cluster" in part.members else None,
        "why": part.remark,
    }
    if part.found is None:
        return row
    low, high = ends(claim, values)
    effect = part.found.estimate
    inside = low <= effect <= high
    nulls = [end for end in (low, high) if np.isfinite(end)] if inside else [low if effect < low else high]
    lower, upper = np.clip(part.found.interval(CONFIDENCE), *claim.get("range", (-np.inf, np.inf)))
    return {
        **row,
        "effect": effect,
        "lower": lower,
        "upper": upper,
        "p": max(part.found.p(null) for null in nulls),
        "side": "supported" if inside else "contradicted",
    }


def _named(claim: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: claim[name] for name in ("claim", "section", "says", "unit")}
    return {**named, "statistic": claim["effect"], "confidence": CONFIDENCE}


def _records(by_claim: Mapping[str, pd.DataFrame], claim: Mapping[str, Any]) -> list[dict[str, Any]]:
    return by_claim[claim["claim"]].to_dict("records")


def with_verdict(row: dict[str, Any], claim: Mapping[str, Any], values: Mapping[str, float]) -> dict[str, Any]:
    """The row of a part with its verdict, and why it is none better."""
    if pd.isna(row["effect"]):
        return {**row, "verdict": "undecided", "why": f"cannot be tested: {row['why']}"}
    said = f"{number(row['effect'])} [{number(row['lower'])}, {number(row['upper'])}]"
    if row["lower"] == row["upper"]:
        said = number(row["effect"])
    smallest = value_of(claim.get("smallest", 0.0), values)
    exact = pd.isna(row["p"])
    verdict, doubt = row["side"], ""
    if not exact and row["p_holm"] >= ALPHA:
        alone = row["p"] < ALPHA
        doubt = f"p {_p(row['p'])} alone, {_p(row['p_holm'])} corrected" if alone else "the interval leaves it open"
        verdict = "undecided"
    elif verdict == "supported" and abs(row["effect"]) < smallest:
        verdict, doubt = "undecided", f"less than the smallest effect of interest, {number(smallest)}"
    said = f"r = {said}" if row["unit"] == "r" else f"{said} {row['unit']}"
    why = "; ".join(one for one in (said, doubt, row["why"]) if one)
    return {**row, "verdict": verdict, "why": why}


def _overall(
    claim: Mapping[str, Any], parts: Sequence[Part], rows: Sequence[dict[str, Any]], values: Mapping[str, float]
) -> dict[str, Any]:
    row = {**_named(claim), "part": OVERALL}
    if not rows:
        return {**row, "networks": 0, "verdict": "not run", "why": "nothing of the kind is measured"}
    members = pd.concat([part.members.reindex(columns=["network_id", "cluster"]) for part in parts])
    verdicts = [one["verdict"] for one in rows]
    counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS[:3]}
    tested = pd.DataFrame([one for one in rows if not pd.isna(one["effect"])], columns=COLUMNS)
    summary = {
        "effect": tested["effect"].median(),
        "lower": tested["lower"].min(),
        "upper": tested["upper"].max(),
        "networks": members["network_id"].nunique() or None,
        "trajectories": members["cluster"].nunique() or None,
        "verdict": verdict_of_parts(claim["over"], counts, len(rows)),
    }
    if len(rows) == 1:
        return {**row, **summary, **{name: rows[0][name] for name in ("p", "p_holm", "p_bh", "why")}}
    why = f"{_told(verdicts)} of {len(rows)} parts"
    alone = [_alone(one, claim, values) for one in rows]
    if alone != verdicts:
        why += f" (each test by itself: {_told(alone)})"
    if len(tested):
        ends = f"[{number(summary['lower'])}, {number(summary['upper'])}]"
        why += f"; median {number(summary['effect'])} {claim['unit']}, all intervals within {ends}"
    return {**row, **summary, "why": why}


def _told(verdicts: Sequence[str]) -> str:
    return ", ".join(f"{one} in {verdicts.count(one)}" for one in VERDICTS if one in verdicts)


def _alone(row: Mapping[str, Any], claim: Mapping[str, Any], values: Mapping[str, float]) -> str:
    """The verdict on a part if its test were the only one."""
    return with_verdict({**row, "p_holm": row["p"]}, claim, values)["verdict"]


def verdict_of_parts(over: str, counts: Mapping[str, int], total: int) -> str:
    """The verdict on a claim, by one of the rules of rules.yaml."""
    for verdict, opposite in (("contradicted", "supported"), ("supported", "contradicted")):
        if over == "every" and counts[verdict] >= (1 if verdict == "contradicted" else total):
            return verdict
        if over == "most" and counts[verdict] > total / 2 and not counts[opposite]:
            return verdict
    return "undecided"


def _rule(claim: Mapping[str, Any], values: Mapping[str, float]) -> str:
    low, high = ends(claim, values)
    if np.isfinite(low) and np.isfinite(high):
        holds = f"the effect lies between {number(low)} and {number(high)}"
    else:
        holds = f"the effect lies above {number(low)}" if np.isfinite(low) else f"the effect lies below {number(high)}"
    if "smallest" in claim:
        holds += f" (by at least {number(value_of(claim['smallest'], values))}, as estimated)"
    part, whole = SHARED["rules"]["part"].format(holds=holds), SHARED["rules"][claim["over"]]
    return f"A part is {part}. The claim is {whole}."


def _p(value: float) -> str:
    return f"{value:.2g}"
