"""Forest plots of claims: where each part's estimate and interval lie beside the threshold of the claim's rule.

What is computed here are places in an SVG of `WIDTH` units; ``forest.jinja`` draws them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deltaball.analysis.claims import number
from deltaball.analysis.scorecard import ends, value_of

WIDTH, EDGE = 300, 8
AXIS = 16  # height of the axis beneath the rows
ROW, LOWEST_ROW, ROWS_HIGH = 9.0, 3.0, 120.0
BETWEEN_DATA_SETS = 4.0
ROOM = 0.06  # beside what is shown, as a share of it
NARROW = 0.25  # of a claim's range: where what is shown takes less of it, the axis is of what is shown
FARTHEST = 1.5  # of claims without a range, intervals are cut so many spans of estimates and thresholds beyond these


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` as places from left to right."""

    low: float
    high: float

    def place(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(EDGE + share * (WIDTH - 2 * EDGE), 1)

    def is_cut(self, value: float) -> bool:
        return not self.low <= value <= self.high


def plot(
    claim: Mapping[str, Any], parts: Sequence[Mapping[str, Any]], values: Mapping[str, float]
) -> dict[str, Any] | None:
    """A claim's plot: `height`, `rows` of marks, `thresholds`, `shades`, `ticks`; None where no part has an estimate.

    A shade is where the claim is true (`holds`) or, of effects too small to count, the rule's margin (`margin`).
    """
    tested = [row for row in parts if not pd.isna(row["effect"])]
    if not tested:
        return None
    low, high = ends(claim, values)
    smallest = value_of(claim.get("smallest", 0.0), values)
    scale = _scale(claim, tested, [end for end in (low, high) if math.isfinite(end)], smallest)
    step = max(LOWEST_ROW, min(ROW, ROWS_HIGH / len(tested)))
    rows, at, before = [], step, tested[0]["dataset"]
    for row in tested:
        at += BETWEEN_DATA_SETS if _differ(row["dataset"], before) else 0.0
        rows.append({**_mark(row, scale), "y": round(at, 1), "part": row["part"], "row": row})
        at, before = at + step, row["dataset"]
    return {
        "width": WIDTH,
        "height": math.ceil(at + AXIS),
        "bottom": round(at, 1),
        "size": max(1.6, min(3.2, 0.42 * step)),
        "rows": rows,
        "thresholds": [scale.place(end) for end in (low, high) if math.isfinite(end)],
        "shades": _shades(scale, low, high, smallest),
        "ticks": _ticks(scale, [end for end in (low, high) if math.isfinite(end)]),
        "unit": claim["unit"],
    }


def _differ(first: Any, second: Any) -> bool:
    return not (pd.isna(first) and pd.isna(second)) and first != second


def _scale(claim: Mapping[str, Any], tested: Sequence[Mapping[str, Any]], known: list[float], smallest: float) -> Scale:
    if "range" in claim and _fills(claim["range"], tested, known):
        return Scale(*claim["range"])
    middle = [*known, *(end + side * smallest for end in known for side in (-1, 1)), *(row["effect"] for row in tested)]
    low, high = min(middle), max(middle)
    span = max(high - low, 1e-9 + 0.01 * abs(high))
    outer = [row[end] for row in tested for end in ("lower", "upper") if np.isfinite(row[end])]
    farthest = math.inf if "range" in claim else FARTHEST * span
    low, high = max(min([low, *outer]), low - farthest), min(max([high, *outer]), high + farthest)
    room = ROOM * max(high - low, span)
    return Scale(low - room, high + room)


def _fills(bounds: Sequence[float], tested: Sequence[Mapping[str, Any]], known: list[float]) -> bool:
    """Whether intervals and thresholds take enough of the claim's range to be told apart on it."""
    places = [*known, *(row[end] for row in tested for end in ("lower", "effect", "upper") if np.isfinite(row[end]))]
    return max(places) - min(places) >= NARROW * (bounds[1] - bounds[0])


def _mark(row: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    return {
        "verdict": row["verdict"],
        "x": scale.place(row["effect"]),
        "left": scale.place(row["lower"]),
        "right": scale.place(row["upper"]),
        "cut_left": scale.is_cut(row["lower"]),
        "cut_right": scale.is_cut(row["upper"]),
        "says": f"{row['part']}: {interval(row)}, {row['verdict']}",
    }


def interval(row: Mapping[str, Any]) -> str:
    """An estimate and its interval in words."""
    return f"{number(row['effect'])} [{number(row['lower'])}, {number(row['upper'])}]"


def _shades(scale: Scale, low: float, high: float, smallest: float) -> list[dict[str, Any]]:
    shades = [_shade("holds", scale, low, high)]
    if math.isfinite(low) and math.isinf(high):
        shades.append(_shade("margin", scale, low, low + smallest))
    if math.isfinite(high) and math.isinf(low):
        shades.append(_shade("margin", scale, high - smallest, high))
    return [shade for shade in shades if shade["width"] > 0]


def _shade(kind: str, scale: Scale, low: float, high: float) -> dict[str, Any]:
    left, right = scale.place(low), scale.place(high)
    return {"kind": kind, "x": left, "width": round(right - left, 1)}


def _ticks(scale: Scale, known: list[float]) -> list[dict[str, Any]]:
    """The thresholds, and the ends of the axis where these leave them room."""
    ticks = [{"x": scale.place(end), "label": number(end), "anchor": "middle"} for end in known]
    if len(ticks) == 2 and ticks[1]["x"] - ticks[0]["x"] < 40:
        ticks[0]["anchor"], ticks[1]["anchor"] = "end", "start"
    for value, anchor in ((scale.low, "start"), (scale.high, "end")):
        if all(abs(scale.place(value) - tick["x"]) > 60 for tick in ticks):
            ticks.append({"x": scale.place(value), "label": number(value), "anchor": anchor})
    return ticks
