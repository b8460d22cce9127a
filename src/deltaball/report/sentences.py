"""A sentence or two at the head of each section of the page, counted from its table: nothing beyond its intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from deltaball.analysis.enclosures import ROUNDING
from deltaball.analysis.judges import display_name
from deltaball.analysis.scores import MEAN, WORST
from deltaball.figures import style
from deltaball.study.axes import radius_text
from deltaball.study.neighbourhoods import NORMS

ALPHA = 0.05
WHOLE = "all"  # a group's architectures together, where it has several


SCORES_TOLD = 4  # of a data set


def trends(correlations: pd.DataFrame) -> str:
    """What robustness does as accuracy rises, per data set and method, among all networks and those that learned."""
    told = []
    for (dataset, method), rows in correlations.groupby(["dataset", "method"], sort=False):
        together = rows[rows["architecture"] == WHOLE] if (rows["architecture"] == WHOLE).any() else rows
        every, learned = (together.loc[together["networks_of"] == name, "trend"] for name in ("all", "learned"))
        told.append(f"Among the {style.METHODS[method]} networks of {dataset} robustness {_counted(every)};")
        told.append(f"among those that learned it {_counted(learned)}.")
    return " ".join(told)


def _counted(trend: pd.Series) -> str:
    words = {"falls": "falls in", "rises": "rises in", "undecided": "is undecided in", "not tested": "is not tested in"}
    counts = trend.value_counts()
    there = [f"{text} {counts[name]}" for name, text in words.items() if name in counts]
    return f"{_joined(there)} of {_many(len(trend), 'measure')}"


def proven(enclosed: pd.DataFrame) -> str:
    """How much is left open, per data set."""
    told = []
    for dataset, rows in enclosed.groupby("dataset", sort=False):
        decided = int((rows["gap"] < ROUNDING).sum())
        told.append(
            f"On {dataset} {decided:,} of {len(rows):,} pairs of network and ball are decided at every test point;"
        )
        told.append(f"half are known to within {rows['gap'].median():.3f}.")
    return " ".join(told)


def distances(table: pd.DataFrame) -> str:
    """What the judge that finds most finds of the median network, per data set, norm and ε."""
    told = []
    found = table[table["severity"].notna()]
    for (dataset, norm, within), rows in found.groupby(["dataset", "norm", "within"], sort=False):
        by = rows["attack"].fillna(rows["certificate"])
        most = rows.groupby(by, sort=False)["frequency"].median().idxmax()
        chosen, ball = rows[by == most], "" if norm == "linf" else f" in {NORMS[norm]}"
        told.append(
            f"On {dataset} {display_name(most)} finds a violation within {radius_text(within)}{ball} at "
            f"{100 * chosen['frequency'].median():.1f} % of the points, "
            f"{chosen['severity'].median():.3g} away on average (medians of {_many(len(chosen), 'network')})."
        )
    return " ".join(told)


def choices(table: pd.DataFrame) -> str:
    """Which values each grid chose, and for how many of its settings; and how many have none."""
    told = []
    for (grid, axis, to), rows in table.groupby(["grid", "axis", "to"], sort=False):
        settings = len(rows.drop_duplicates(["setting", "to_network_id"]))
        counts = rows.loc[rows["chosen"], "value"].value_counts().sort_index()
        named = [f"{value} for {count} of {_many(settings, 'setting')}" for value, count in counts.items()]
        said = _joined(named) if named else "no value yet"
        told.append(f"Grid {grid} chose {axis} {said}, by accuracy on held-out training images closest to {to}'s.")
    return " ".join(told)


def scores(table: pd.DataFrame) -> str:
    """The mean ρ of each kernel, and R2, per data set: the median network's."""
    told = []
    means = table[table["shape"].isin([MEAN, WORST]) & table["notion"].isin(["class_change", "margin"])]
    for dataset, of_dataset in means.groupby("dataset", sort=False):
        each = of_dataset.groupby("measure", sort=False)
        named = [
            f"{median:.3g} ({'R2, ' if one['score'] == 'R2' else ''}{one['kernel']})"
            for median, one in zip(each["estimate"].median(), each.first().to_dict("records"), strict=True)
        ]
        told.append(f"Of the median network on {dataset}: {', '.join(named[:SCORES_TOLD])}.")
    return " ".join(told)


def pruning(effects: pd.DataFrame) -> str:
    """How many differences from the dense trunks are found, excluded and left open, per share of weights removed."""
    measures = effects[(effects["measure"] != "test_accuracy") & (effects["proportion"] != "all")]
    told = []
    for share, rows in measures.groupby("proportion", sort=False):
        verdicts = rows["verdict"].where(~rows["verdict"].str.startswith("equivalent"), "equivalent")
        counts = verdicts.value_counts()
        there = [f"{name} in {counts[name]}" for name in ("equivalent", "different", "undecided") if name in counts]
        told.append(
            f"With {100 * float(share):g} % of the weights removed: {_joined(there)} of {_many(len(rows), 'measure')}."
        )
    return " ".join(told)


def bayes(trends: pd.DataFrame) -> str:
    """The sign of the trend among converged chains and others, where its interval has one, and of their difference."""
    told = []
    for name, words in (("hmc, converged", "among converged networks"), ("hmc, not converged", "among the others")):
        rows = trends[trends["networks_of"] == name]
        tested = rows.dropna(subset=["lower", "upper"])
        if tested.empty:
            told.append(f"{words} nothing can be tested, for chains are too few")
            continue
        above, below = int((tested["lower"] > 0).sum()), int((tested["upper"] < 0).sum())
        counted = f"rises with accuracy in {above} and falls in {below} of {_many(len(rows), 'measure')}"
        told.append(f"{words} the measure {counted} (intervals alone)")
    text = "; ".join(told)
    return text[:1].upper() + text[1:] + "." if text else ""


def monotonicity(exceptions: Sequence[Mapping[str, Any]]) -> str:
    """How many exceptions there are in all, and the largest."""
    count, pairs = sum(row["exceptions"] for row in exceptions), sum(row["pairs"] for row in exceptions)
    if not count:
        return f"There are none among {pairs:,} neighbouring pairs."
    largest = max(row["largest_exception"] for row in exceptions if row["exceptions"])
    return f"There are {count:,} among {pairs:,} neighbouring pairs, none larger than {largest:.3f}."


def convergence(spread: pd.DataFrame) -> str:
    """How many draws kept the promise."""
    draws = int(spread["draws"].sum())
    within = int((spread["within_epsilon"] * spread["draws"]).round().sum())
    return f"{within:,} of {draws:,} draws lie within ε of the mean over all test points." if draws else ""


def regressions(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many slopes on accuracy differ from 0 after the correction."""
    if not rows:
        return ""
    different = sum(row["p_holm"] < ALPHA for row in rows)
    return f"After the correction {different} of {_many(len(rows), 'slope')} on accuracy can be told from 0."


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _joined(parts: list[str]) -> str:
    return " and ".join([*([", ".join(parts[:-1])] if parts[1:] else []), *parts[-1:]])
