"""Networks under corruptions: agreement and accuracy by corruption and severity, and mCE beside a named reference.

mCE is the mean corruption error of Hendrycks & Dietterich (2019, arXiv:1903.12261, Section 4.1): of each corruption the
network's error, summed over severities, divided by the reference's; then the mean over corruptions. The plain mean of
accuracies is another number, and stands beside it.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from deltaball.analysis.trainings import kinds
from deltaball.plan.measures import Measure
from deltaball.plan.plan import Plan
from deltaball.study.corruptions import CORRUPTIONS, FIFTEEN, JOINT, QUANTITIES

KNOWN = ["network_id", "dataset", "grid", "method", "architecture", "kind", "test_accuracy"]
ENDS = ["estimate", "lower", "upper", "tight_lower", "tight_upper"]
ASKED = ["measure", "quantity", "corruption", "title", "severity", "usual", "samples", "confidence"]
COLUMNS = [*KNOWN, *ASKED, *ENDS]
ERRORS = [*KNOWN, "reference", "corruptions", "mce", "mean_accuracy", "tight_lower", "tight_upper"]

MEAN = JOINT  # the mean over corruptions, of each point


def corruptions(measured: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """One row per network × measure of a corruption, or of the fifteen in turn.

    `quantity` is agreement with the prediction for the clean image, or accuracy; `usual` says whether the severity is
    MNIST-C's own. An interval counts test points, however many images were drawn of each.
    """
    by_name = {one.name: one for one in plan.measures if one.corrupts}
    known = measured[measured["measure"].isin(by_name)]
    rows = [
        {**{name: row[name] for name in [*KNOWN, "samples", "confidence", *ENDS]}, **_asked(by_name[row["measure"]])}
        for row in known.assign(kind=kinds(known)).to_dict("records")
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def errors(shown: pd.DataFrame, reference: str | None) -> pd.DataFrame:
    """mCE of every network of which accuracy under single corruptions is known, from the rows of `corruptions`.

    `reference` is the grid whose networks' mean error is the unit, on the same data set. A corruption counts where both
    were measured by the same measures, and the reference errs; `corruptions` says how many do. `mean_accuracy` is that
    of the fifteen, with its interval, where it was measured. Identity is no corruption.
    """
    accuracies = shown[shown["quantity"] == "accuracy"]
    single = accuracies[accuracies["corruption"].isin(FIFTEEN)]
    wholes = accuracies[accuracies["corruption"] == MEAN].drop_duplicates("network_id").set_index("network_id")
    rows = list(_errors(single, wholes, reference)) if len(accuracies) else []
    return pd.DataFrame(rows, columns=ERRORS)


def _errors(single: pd.DataFrame, wholes: pd.DataFrame, reference: str | None) -> Iterator[dict[str, Any]]:
    keys = ["dataset", "corruption", "severity", "measure"]
    of_reference = 1 - single[single["grid"] == reference].groupby(keys, dropna=False)["estimate"].mean()
    joined = single.assign(error=1 - single["estimate"]).join(of_reference.rename("unit"), on=keys)
    everyone = pd.concat([single, wholes.reset_index()]).drop_duplicates("network_id")
    for network in everyone[KNOWN].to_dict("records"):
        own = joined[(joined["network_id"] == network["network_id"]) & joined["unit"].notna()]
        # Of a severity that was measured in several ways, their mean.
        each = own.groupby(["corruption", "severity"], dropna=False)[["error", "unit"]].mean()
        sums = each.groupby("corruption").sum()
        sums = sums[sums["unit"] > 0]
        known = network["network_id"] in wholes.index
        whole = wholes.loc[network["network_id"]] if known else {}
        yield {
            **network,
            "reference": reference,
            "corruptions": len(sums),
            "mce": (sums["error"] / sums["unit"]).mean() if len(sums) else None,
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
        "title": CORRUPTIONS[name].title if name in CORRUPTIONS else f"mean of {len(FIFTEEN)}",
        "severity": severity,
        "usual": severity == own,
    }
