"""Networks under corruptions: agreement and accuracy by corruption and severity, and mCE beside a named reference.

mCE is the mean corruption error of Hendrycks & Dietterich (2019, arXiv:1903.12261, Section 4.1): of each corruption the
network's error, summed over severities, divided by the reference's; then the mean over corruptions. The plain mean of
accuracies is another number, and stands beside it.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from deltaball.analysis.trainings import NONE, adaptations, kinds, trainings
from deltaball.base.guarantees import epsilon_reached
from deltaball.plan.measures import Measure
from deltaball.plan.plan import Plan
from deltaball.study.corruptions import CORRUPTIONS, FIFTEEN, JOINT, QUANTITIES

KNOWN = ["network_id", "cluster", "dataset", "grid", "method", "architecture", "training", "kind", "test_accuracy"]
KNOWN += ["system", "adaptation", "pooled", "corrupted_images"]
ENDS = ["estimate", "lower", "upper", "tight_lower", "tight_upper"]
ASKED = ["measure", "quantity", "corruption", "title", "severity", "usual", "samples", "confidence"]
COLUMNS = [*KNOWN, *ASKED, *ENDS]
ERRORS = [*KNOWN, "reference", "corruptions", "mce", "measure", "mean_accuracy", "tight_lower", "tight_upper"]

MEAN = JOINT  # the mean over corruptions, of each point


def corruptions(measured: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """One row per network × measure of a corruption, or of the fifteen in turn.

    `quantity` is agreement with the prediction for the clean image, or accuracy; `usual` says whether the severity is
    MNIST-C's own. An interval counts test points, however many images were drawn of each.

    Networks of one trunk that were adapted alike to a corruption each are one `system`: an image that has a corruption
    is shown to the network that was adapted to it. Of these there is a row for the mean of the fifteen, too.
    """
    by_name = {one.name: one for one in plan.measures if one.corrupts}
    known = measured[measured["measure"].isin(by_name)]
    rows = [
        {**{name: row[name] for name in [*KNOWN, "samples", "confidence", *ENDS]}, **_asked(by_name[row["measure"]])}
        for row in _told(known).to_dict("records")
    ]
    means = list(_means(pd.DataFrame(rows, columns=COLUMNS)))
    return pd.DataFrame([*rows, *means], columns=COLUMNS)


def _told(measured: pd.DataFrame) -> pd.DataFrame:
    """Rows with what their networks are, in words and in columns."""
    found = adaptations(measured)
    alone = found["pooled"] != "separate"
    alike = measured["cluster"].astype("str") + " " + found["adaptation"].astype("str")
    alike += " " + found["corrupted_images"].astype("str")
    system = measured["network_id"].where(alone, alike)
    return measured.assign(**found, kind=kinds(measured), training=trainings(measured), system=system)


def _means(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The mean of the fifteen of systems of which each network knows one: of every point it is one outcome in [0, 1].

    So the inequality holds for it as for each (Hoeffding); the tight interval is the same, as points are not seen here.
    """
    single = table[(table["pooled"] == "separate") & table["usual"].astype(bool) & table["corruption"].isin(FIFTEEN)]
    measured = {*table[table["corruption"] == MEAN].groupby(["system", "quantity"]).groups}
    for system, members in single.groupby(["system", "quantity"], sort=False):
        if system in measured:
            continue
        if {*members["corruption"]} != {*FIFTEEN} or members["samples"].nunique() > 1:
            continue
        first, mean = members.iloc[0], members["estimate"].mean()
        half = epsilon_reached(first["samples"], members["confidence"].min())
        lower, upper = max(0.0, mean - half), min(1.0, mean + half)
        ends = {"lower": lower, "upper": upper, "tight_lower": lower, "tight_upper": upper}
        named = {"measure": None, "corruption": MEAN, "title": f"mean of {len(FIFTEEN)}", "severity": None}
        clean = {"test_accuracy": members["test_accuracy"].mean()}
        yield {**first, **named, **clean, "usual": True, "estimate": mean, **ends}


def errors(shown: pd.DataFrame, reference: str | None) -> pd.DataFrame:
    """mCE of every system of which accuracy under single corruptions is known, from the rows of `corruptions`.

    `reference` is the grid whose networks' mean error is the unit, on the same data set. A corruption counts where both
    were measured by the same measures, and the reference errs; `corruptions` says how many do. `mean_accuracy` is that
    of the fifteen, with its interval, where it was measured, by `measure`. Identity is no corruption.
    """
    accuracies = shown[shown["quantity"] == "accuracy"]
    single = accuracies[accuracies["corruption"].isin(FIFTEEN)]
    wholes = accuracies[accuracies["corruption"] == MEAN].drop_duplicates("system").set_index("system")
    rows = list(_errors(single, wholes, reference)) if len(accuracies) else []
    return pd.DataFrame(rows, columns=ERRORS)


def _errors(single: pd.DataFrame, wholes: pd.DataFrame, reference: str | None) -> Iterator[dict[str, Any]]:
    keys = ["dataset", "corruption", "severity", "measure"]
    is_reference = (single["grid"] == reference) & (single["adaptation"] == NONE)
    of_reference = 1 - single[is_reference].groupby(keys, dropna=False)["estimate"].mean()
    joined = single.assign(error=1 - single["estimate"]).join(of_reference.rename("unit"), on=keys)
    everyone = pd.concat([single, wholes.reset_index()]).drop_duplicates("system")
    for network in everyone[KNOWN].to_dict("records"):
        own = joined[(joined["system"] == network["system"]) & joined["unit"].notna()]
        # Of a severity that was measured in several ways, their mean.
        each = own.groupby(["corruption", "severity"], dropna=False)[["error", "unit"]].mean()
        sums = each.groupby("corruption").sum()
        sums = sums[sums["unit"] > 0]
        known = network["system"] in wholes.index
        whole = wholes.loc[network["system"]] if known else {}
        yield {
            **network,
            "reference": reference,
            "corruptions": len(sums),
            "mce": (sums["error"] / sums["unit"]).mean() if len(sums) else None,
            "measure": whole["measure"] if known else None,
            "mean_accuracy": whole["estimate"] if known else None,
            "tight_lower": whole["tight_lower"] if known else None,
            "tight_upper": whole["tight_upper"] if known else None,
        }


def _asked(measure: Measure) -> dict[str, Any]:
    name = measure.kernel.name
    own = CORRUPTIONS[name].severity if name in CORRUPTIONS else None
    severity = dict(measure.kernel.parameters).get("severity", own)
    return {
        "measure": measure.name,
        "quantity": QUANTITIES[measure.notion],
        "corruption": name,
        "title": f"mean of {len(FIFTEEN)}" if name == MEAN else measure.kernel.entry.title,
        "severity": severity,
        "usual": severity == own,
    }
