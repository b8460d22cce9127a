"""What the explorer on the page knows of each measured network; explorer.js draws it with BokehJS.

An axis that the study varies is offered for x, y, colour and facets, whatever its name: there is no list of axes here.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from bokeh.resources import Resources
from matplotlib import colormaps
from matplotlib.colors import to_hex

from deltaball.analysis.bayes import converged
from deltaball.analysis.judges import display_name, joined, judge_of
from deltaball.figures import style
from deltaball.figures.paper import at_middle
from deltaball.plan.measures import Measure
from deltaball.plan.plan import Plan
from deltaball.report.packed import packed
from deltaball.study.grids import all_axes
from deltaball.study.neighbourhoods import NORMS
from deltaball.study.notions import NOTIONS

# How measures of distances are named: their twins are the closest.
CLOSEST = tuple(f"{one.name}_" for one in NOTIONS.values() if one.is_distance)
# So many distinct numbers stand side by side, more of them along a continuous axis; of texts, as many as a byte counts.
MOST_NUMBERS, MOST_TEXTS = 40, 255
RESULTS = {
    "test_accuracy": "test accuracy",
    "train_accuracy": "training accuracy",
    "test_loss": "test loss",
    "parameters": "weights and biases",
    "sparsity": "sparsity",
    "acceptance": "acceptance",
    "ess_min": "smallest ESS",
    "rhat_max": "largest R-hat",
}
PLACES = {"dataset": "data set", "method": "method", "architecture": "architecture", "grid": "grid", "status": "status"}
# Read by logarithm.
LOGARITHMIC = {"parameters", "ess_min"}
# Okabe & Ito's, the four that methods do not use first.
QUALITATIVE = ("#E69F00", "#0072B2", "#CC79A7", "#009E73", "#D55E00", "#56B4E9", "#7A6C00", "#000000")


def library() -> str:
    """BokehJS, to be inlined: without widgets, which the page does not use."""
    return "\n".join(Resources(mode="inline", components=["bokeh", "bokeh-gl", "bokeh-api"], minified=True).js_raw)


def explored(
    plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, examples: pd.DataFrame
) -> dict[str, str] | None:
    """The explorer's ``header`` (JSON), ``columns`` and ``pictures`` (packed); None when nothing is measured.

    `header` describes `count` networks, their `axes` and `measures`; each column lies in the unpacked bytes one after
    the other, little-endian: an axis with `levels` as uint8 places in them (255 is null), other numbers as float32.
    `examples` say where in the unpacked pictures each image of a network lies.
    """
    shown = networks[networks["network_id"].isin(measured["network_id"])]
    if shown.empty:
        return None
    shown = shown.assign(kind=shown["method"].map(style.METHODS) + " " + shown["architecture"].map(style.NAMES))
    shown = shown.assign(
        chain=np.where(shown["method"] == "hmc", np.where(converged(shown), "converged", "not converged"), None)
    )
    axes = list(_axes(shown))
    measures = [*_middles(plan, shown, measured), *_measures(plan, shown["network_id"], measured)]
    there = examples[examples["network_id"].isin(shown["network_id"])]
    found, content = pictures(there, list(shown["network_id"]))
    header = {
        "examples": found,
        "count": len(shown),
        "id_length": len(shown["network_id"].iloc[0]),
        "axes": [described for described, _ in axes],
        "measures": [described for described, _ in measures],
        "ramp": [to_hex(colour) for colour in colormaps["cividis"](np.linspace(0, 0.88, 64))],
        "qualitative": QUALITATIVE,
    }
    ids = "".join(shown["network_id"]).encode("ascii")
    columns = b"".join(values.tobytes() for _, values in axes + measures) + ids
    return {
        "header": json.dumps(header, ensure_ascii=False).replace("</", "<\\/"),
        "columns": packed(columns),
        "pictures": packed(content) if found else "",
    }


def pictures(examples: pd.DataFrame, ids: list[str]) -> tuple[list[dict[str, Any]], bytes]:
    """What is shown of networks of which there are images, and all images one after the other.

    Each network has its place among `ids` and its `points`: a point's class, what the network takes it for, and its
    `twins`, the perturbed ones, each with its ball, and with what finds it where it is the closest.
    `at` is where an image begins.
    """
    found, content = [], bytearray()

    def kept(image: bytes) -> int:
        content.extend(image)
        return len(content) - len(image)

    for network, rows in examples.groupby("network_id", sort=False):
        first = rows.iloc[0]
        points = []
        for _, twins in rows.groupby("point"):
            one = twins.iloc[0]
            known = {"label": int(one["label"]), "predicted": int(one["predicted"]), "at": kept(one["image"])}
            perturbed = [
                {**_sought(row), "became": int(row.became), "at": kept(row.perturbed)} for row in twins.itertuples()
            ]
            points.append({**known, "twins": perturbed})
        size = {name: int(first[name]) for name in ("height", "width", "channels")}
        by = joined(rows["attack"])
        found.append({"network": ids.index(network), "by": by, "points": points, **size})
    return found, bytes(content)


def _sought(row: Any) -> dict[str, Any]:
    closest = display_name(row.attack) if row.measure.startswith(CLOSEST) else ""
    return {"delta": row.delta, "ball": NORMS[row.norm], "closest": closest}


def _axes(shown: pd.DataFrame) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Each axis or result that is known of any network and not the same for all, and its column."""
    names = {"kind": "method and architecture", **PLACES, "chain": "chain"}
    names |= {axis: axis.replace("_", " ") for axis in all_axes()} | RESULTS
    for name, label in names.items():
        values = shown[name]
        levels = sorted(values.dropna().unique().tolist())
        if len(levels) + values.isna().any() < 2 and name not in ("kind", "test_accuracy"):
            continue
        described = {"name": name, "label": label}
        numeric = pd.api.types.is_numeric_dtype(values)
        if name not in RESULTS and len(levels) <= (MOST_NUMBERS if numeric else MOST_TEXTS):
            colours = _colours(shown, levels) if name in ("kind", "method") else None
            places = pd.Categorical(values, categories=levels).codes.astype("uint8")
            yield {**described, "levels": levels, "numeric": numeric, "colours": colours}, places
        elif numeric:
            numbers = values.to_numpy("float32", na_value=np.nan)
            yield {**described, "levels": None, "log": name in LOGARITHMIC}, numbers.astype("<f4")


def _colours(shown: pd.DataFrame, levels: list[str]) -> list[str]:
    """The figures' own colours of methods, and of methods with architectures."""
    kinds = shown[["kind", "method", "architecture"]].drop_duplicates()
    found = {row.kind: style.colour(row.method, row.architecture) for row in kinds.itertuples()}
    found |= {method: style.colour(method, "fcn") for method in kinds["method"]}
    return [found[level] for level in levels]


def _middles(plan: Plan, shown: pd.DataFrame, measured: pd.DataFrame) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Per notion, where data sets have δ's of their own, all networks at the δ at which the figures show them."""
    for notion in NOTIONS:
        rows = at_middle(plan, shown, measured, notion)
        if rows["delta"].nunique() > 1 and len(rows) == rows["network_id"].nunique():
            label = f"{NOTIONS[notion].quantity}: {NOTIONS[notion].short_title}, each data set's middle δ"
            described, values = _column(f"{notion}_middle", label, shown["network_id"], rows)
            yield described | {"middle": True}, values


def _where(measure: Measure) -> str:
    """Where a measure looks, shortly."""
    if measure.kernel:
        return measure.kernel.words
    ball = "" if measure.norm == "linf" else f"{NORMS[measure.norm]}, "
    return f"{ball}δ = {measure.delta:g}"


def _measures(plan: Plan, ids: pd.Series, measured: pd.DataFrame) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Each measure, those of most networks first."""
    order, where = measured["measure"].value_counts(sort=False), {one.name: _where(one) for one in plan.measures}
    for name in sorted(order.index, key=lambda one: -order[one]):
        rows = measured[measured["measure"] == name]
        first = rows.iloc[0]
        notion, by = NOTIONS[first["notion"]], display_name(judge_of(first))
        label = f"{notion.quantity}: {notion.shortly(first['gamma'])}, {where[name]}, {by}"
        yield _column(name, label, ids, rows)


def _column(name: str, label: str, ids: pd.Series, rows: pd.DataFrame) -> tuple[dict[str, Any], np.ndarray]:
    """A measure described, and its [3, networks]: the estimate and the ends of its interval."""
    notion = rows["notion"].iloc[0]
    described = {"name": name, "label": label, "notion": notion, "quantity": NOTIONS[notion].quantity}
    values = rows.set_index("network_id").reindex(ids)[["estimate", "lower", "upper"]].to_numpy("<f4")
    return described | {"count": len(rows)}, np.ascontiguousarray(values.T)
