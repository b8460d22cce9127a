"""May the regressions be believed? Their residuals, for one measure of each notion.

One figure per data set, one row per notion at the middle one of its δ's: residuals of the regression on accuracy and
all hyper-parameters over fitted values, their quantiles against the normal ones, and leverage with Cook's distance.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from deltaball.analysis.diagnostics import residuals
from deltaball.analysis.groups import Groups
from deltaball.analysis.judges import judged
from deltaball.figures import readings, style
from deltaball.figures.panels import empty, finish, kinds, legend_above
from deltaball.figures.paper import middle_level
from deltaball.study.notions import NOTIONS

# Beyond these a network moves the fit by itself (Cook and Weisberg 1982).
COOKS = (0.5, 1.0)
KNOWN = ["network_id", "dataset", "method", "architecture", "measure", "notion", "delta", "gamma"]


def draw(name: str, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``diagnostics_DATASET`` to `folder` as PNG, SVG and CSV.

    Of several attacks one is shown (``judged``), and never a certificate: see there.
    """
    dataset = name.partition("_")[2]
    rows = judged(measured[measured["dataset"] == dataset])
    chosen = rows[rows["measure"].isin(_middle(of_notion) for _, of_notion in rows.groupby("notion", sort=False))]
    found = [
        points.merge(chosen.loc[chosen["measure"] == names["measure"], KNOWN], on="network_id", validate="one_to_one")
        for names, points in residuals(Groups(chosen))
        if names["networks_of"] == "all"
    ]
    shown = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*KNOWN, "fitted", "residual"])
    planned = networks[networks["dataset"] == dataset]
    note = (
        f"{shown['network_id'].nunique():,} of {len(planned):,} planned networks; of each notion its middle δ. "
        "Residuals of least squares on test accuracy and all hyper-parameters that vary, fitted for each method and "
        "architecture apart, as in tables/diagnostics.csv. Clustered errors need neither normal residuals nor one "
        "variance, but curves say that a straight line is not the trend. Right: curves of equal Cook's distance, 0.5 "
        "and 1, beyond which single networks move a fit."
    )
    figure = _panels(shown) if len(shown) else empty()
    told = readings.residuals(shown) if len(shown) else readings.NOTHING
    finish(figure, name, f"{dataset}: residuals of the regressions", note, shown, folder, told)


def _middle(rows: pd.DataFrame) -> str:
    """The measure that is shown of a notion: at the δ at which the paper's figures show it."""
    measures = rows.groupby("measure", sort=False)
    levels = measures[["norm", "gamma", "delta"]].first().astype(object)
    levels = levels.where(levels.notna(), None).apply(tuple, axis=1)
    level = middle_level(dict(zip(levels, measures.size(), strict=True)))
    return levels.index[levels == level][0]


def _panels(shown: pd.DataFrame) -> Figure:
    measures = shown["measure"].unique()
    figure, (above, *panels) = plt.subplots(
        1 + len(measures),
        3,
        figsize=(9.2, 2.5 * len(measures) + 1.3),
        height_ratios=[0.12, *[1] * len(measures)],
        squeeze=False,
        layout="constrained",
    )
    for room in above[1:]:
        room.set_axis_off()
    legend_above(above[0], kinds(shown))
    for row, measure in zip(panels, measures, strict=True):
        chosen = shown[shown["measure"] == measure]
        for (method, architecture), members in chosen.groupby(["method", "architecture"], sort=False):
            look = {
                "s": 10,
                "marker": style.MARKS[architecture],
                "color": style.colour(method, architecture),
                "alpha": max(0.15, min(0.6, 150 / len(members))),
                "linewidths": 0,
            }
            normal = stats.norm.ppf((members["studentised"].rank() - 0.5) / len(members))
            row[0].scatter(members["fitted"], members["residual"], **look)
            row[1].scatter(normal, members["studentised"], **look)
            row[2].scatter(members["leverage"], members["studentised"], **look)
        one = chosen.iloc[0]
        notion = NOTIONS[one["notion"]]
        row[0].set_ylabel(f"{notion.title}\nδ = {one['delta']:g}{notion.with_threshold(one['gamma'])}\nresidual")
        row[0].axhline(0, color="0.5", linewidth=0.8)
        row[1].axline((0, 0), slope=1, color="0.5", linewidth=0.8)
        row[1].set_ylabel("studentised residual")
        _cooks(row[2], chosen)
    for panel, label in zip(panels[-1], ("fitted value", "normal quantile", "leverage"), strict=True):
        panel.set_xlabel(label)
    return figure


def _cooks(panel: Axes, chosen: pd.DataFrame) -> None:
    """Curves of equal Cook's distance D = t² h / (p (1 - h)) for the model with most terms p."""
    ends = panel.get_xlim(), panel.get_ylim()
    terms = chosen.groupby(["method", "architecture"])["leverage"].sum().max()
    levers = np.linspace(1e-3, min(0.999, ends[0][1]), 200)
    for distance, line in zip(COOKS, (":", "--"), strict=True):
        curve = np.sqrt(distance * terms * (1 - levers) / levers)
        for side in (1, -1):
            panel.plot(levers, side * curve, color="0.5", linewidth=0.8, linestyle=line)
    panel.set(xlim=ends[0], ylim=ends[1])
