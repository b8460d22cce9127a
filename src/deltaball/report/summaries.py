"""What the page tells in sentences and small tables, computed from the study's tables."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pandas as pd

from deltaball.analysis import judges
from deltaball.analysis.bayes import converged
from deltaball.analysis.enclosures import LEVEL, ROUNDING
from deltaball.analysis.ranges import distances, highest
from deltaball.analysis.settling import order
from deltaball.base.guarantees import confidence_text
from deltaball.plan.plan import Plan
from deltaball.report.reading import records

WORST_SHOWN = 5
INEQUALITIES = {"clopper_pearson": "Clopper–Pearson, for R", "betting": "betting, for D and M"}


def guarantee(robustness: pd.DataFrame) -> dict[str, Any] | None:
    """What the rows themselves promise; None when there are none."""
    if robustness.empty:
        return None
    epsilon = (robustness["epsilon"] / highest(robustness)).round(12)
    return {
        "epsilon": _span(epsilon, "{:g}".format),
        "confidence": _span(robustness["confidence"], confidence_text),
        "samples": _span(robustness["samples"], "{:,}".format),
        "margins": distances(robustness).any(),
    }


def lacking(plan: Plan, robustness: pd.DataFrame) -> dict[str, Any]:
    """How many `networks` have some of the estimates that the study asks of them and not all; per measure, how many."""
    there = robustness.groupby("network_id")["measure"].agg(set)
    begun = [one for one in plan.networks if one.id in there.index]
    absent = {
        one.id: [asked.name for asked in plan.measures_of(one) if asked.name not in there[one.id]] for one in begun
    }
    return {
        "networks": sum(bool(names) for names in absent.values()),
        "measures": Counter(name for names in absent.values() for name in names).most_common(),
    }


def _span(values: pd.Series, written: Callable[[Any], str]) -> str:
    low, high = written(values.min()), written(values.max())
    return low if low == high else f"{low} to {high}"


def tight(robustness: pd.DataFrame) -> list[dict[str, Any]]:
    """Per inequality that reads the outcomes: median half-widths of its intervals and of Hoeffding's beside them."""
    rows = robustness.dropna(subset=["tight_lower", "tight_upper"])
    halves = pd.DataFrame(
        {
            "inequality": rows["tight_inequality"].map(INEQUALITIES),
            "tight": (rows["tight_upper"] - rows["tight_lower"]) / highest(rows) / 2,
            "hoeffding": (rows["upper"] - rows["lower"]) / highest(rows) / 2,
        }
    )
    return records(halves.groupby("inequality").median().reset_index())


def saturated(robustness: pd.DataFrame) -> list[dict[str, Any]]:
    """Per attack that had no gradient somewhere: how many networks and points, and the worst networks."""
    rows = []
    for attack, members in robustness.dropna(subset="attack").groupby("attack"):
        # Measures share their points: the worst of them counts.
        found = members.sort_values("no_gradient").drop_duplicates("network_id", keep="last")
        without = found[found["no_gradient"] > 0].sort_values(["no_gradient", "network_id"], ascending=[False, True])
        if len(without):
            worst = records(without[["network_id", "no_gradient", "samples"]].head(WORST_SHOWN))
            points = {"points": int(without["no_gradient"].sum()), "of_points": int(without["samples"].sum())}
            rows.append({"attack": attack, "networks": len(without), "of": len(found), **points, "worst": worst})
    return sorted(rows, key=lambda row: judges.strength(row["attack"]))


def parted(table: pd.DataFrame, measured: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table's rows of the attack that the figures show, and the others; all are shown where nothing is attacked."""
    chosen = judges.judged(measured)
    shown = pd.MultiIndex.from_frame(table[["dataset", "measure"]]).isin(
        pd.MultiIndex.from_frame(chosen[["dataset", "measure"]])
    )
    shown |= ~table["dataset"].isin(chosen["dataset"]).to_numpy()
    return table[shown], table[~shown]


def terms(regressions: pd.DataFrame, accuracy: bool) -> list[dict[str, Any]]:
    there = (regressions["term"] == "test_accuracy") == accuracy
    return records(regressions[there & (regressions["networks_of"] == "all")])


def enclosed_summary(enclosed: pd.DataFrame) -> list[dict[str, Any]]:
    """Per data set × notion × norm × γ × δ: networks, medians of both sides and their gap, how many are decided."""
    rows = []
    for key, members in enclosed.groupby(["dataset", *LEVEL], sort=False, dropna=False):
        medians = members[["certified", "attacked", "gap", "open", "fgsm"]].median()
        decided = int((members["gap"] < ROUNDING).sum())
        counts = {"networks": len(members), "decided": decided}
        rows.append({**dict(zip(["dataset", *LEVEL], key, strict=True)), **medians, **counts})
    return rows


def settling(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Per data set × notion × norm × γ × δ × judge: networks, their points, and what the judge did, on average."""
    keys = ["dataset", *LEVEL, "judge"]
    means = table.groupby(keys, sort=False, dropna=False)
    averaged = ["samples", "asked", "violated", "proven", "open", "settled", "gap", "seconds"]
    found = means[averaged].mean().assign(networks=means.size()).reset_index()
    levels = found.drop_duplicates(["dataset", *LEVEL]).reset_index()[["dataset", *LEVEL]]
    ordered = found.merge(levels.assign(level=levels.index), on=["dataset", *LEVEL])
    ranks = {judge: rank for rank, judge in enumerate(sorted(found["judge"].unique(), key=order))}
    return records(ordered.assign(rank=ordered["judge"].map(ranks)).sort_values(["level", "rank"]))


def compared(comparison: pd.DataFrame) -> list[dict[str, Any]]:
    """Per data set and kind of networks how many there are, and the means of their numbers."""
    known = [name for name in comparison if comparison[name].dtype.kind == "f"]
    means = comparison.groupby(["dataset", "kind"], sort=False)
    return records(means[known].mean().assign(networks=means.size()).reset_index())


def side_by_side(correlations: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per group with the columns of all networks and, as `learned`, those of the networks that learned."""
    keys = ["dataset", "method", "architecture", "measure"]
    learned = correlations[correlations["networks_of"] == "learned"].set_index(keys).to_dict("index")
    every = correlations[correlations["networks_of"] == "all"]
    return [{**row, "learned": learned[tuple(row[key] for key in keys)]} for row in records(every)]


def chains(networks: pd.DataFrame) -> list[dict[str, Any]]:
    """The longest network of every chain that has been sampled, and whether the chain has converged by then."""
    sampled = networks[networks["acceptance"].notna()].assign(converged=converged(networks))
    return records(sampled.sort_values("posterior_samples").groupby("trajectory_id", sort=False).tail(1).sort_index())


def near(distances: pd.DataFrame) -> list[dict[str, Any]]:
    """Per data set × kind of network × ε × judge: networks, and the medians of what the judge finds."""
    keys = ["dataset", "kind", "norm", "within", "notion", "attack", "certificate"]
    numbers = ["frequency", "frequency_most", "severity", "severity_least", "severity_most"]
    rows = []
    for key, members in distances.groupby(keys, sort=False, dropna=False):
        rows.append({**dict(zip(keys, key, strict=True)), "networks": len(members), **members[numbers].median()})
    return rows
