"""Margin curves (papers 000 and 003, Figure 4): how many points have no violation within ε, and the area below, R2."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from deltaball.base.guarantees import confidence_text
from deltaball.figures import readings
from deltaball.figures.distances import arranged, by_judge, half_widths, looks_of, wanted
from deltaball.figures.panels import empty, finish, listed
from deltaball.plan.plan import Plan

KEYS = ["network_id", "measure"]


def draw(
    name: str, plan: Plan, networks: pd.DataFrame, curves: pd.DataFrame, scores: pd.DataFrame, folder: Path
) -> None:
    """Draw figure ``margins_DATASET`` to `folder` as PNG, SVG and CSV."""
    dataset = name.partition("_")[2]
    area = scores[scores["score"] == "R2"].set_index(KEYS)["estimate"].rename("r2")
    shown = curves[curves["dataset"] == dataset].join(area, on=KEYS).reset_index(drop=True)
    turned = {"margin": 1 - shown["frequency"], "lower": 1 - shown["upper"], "upper": 1 - shown["lower"]}
    shown = shown.assign(**turned, by=shown["attack"].fillna(shown["certificate"])).drop(columns="frequency")
    planned = int(wanted(plan, networks[networks["dataset"] == dataset]).sum())
    count = f"{shown['network_id'].nunique():,} of {planned:,} planned networks"
    figure = _panels(shown) if len(shown) else empty()
    note = f"{count}. {_caption(shown)}" if len(shown) else f"{count}: nothing is measured yet."
    told = readings.margins(shown) if len(shown) else readings.NOTHING
    finish(figure, name, f"{dataset}: margin curves", note, shown, folder, told)


def _caption(shown: pd.DataFrame) -> str:
    several = shown.groupby(["by", "norm", "kind"])["network_id"].nunique().max() > 1
    side = " A judge that misses violations draws a curve above the truth's." if shown["attack"].notna().any() else ""
    lines = " from the lowest band of a kind to the highest; lines, and R2, are means over its networks."
    return (
        f"The share of N = {listed(shown['samples'], str)} test points of which the judge finds no violation within "
        f"ε.{side} R2, the area below, is the mean margin, cut at the right end. Shaded: each network's whole "
        f"curve at once, ± {half_widths(shown)} with confidence {listed(shown['confidence'], confidence_text)} "
        f"(Dvoretzky, Kiefer and Wolfowitz){',' + lines if several else '.'} A constant classifier's curve is 1."
    )


def _panels(shown: pd.DataFrame) -> Figure:
    looks, panels = looks_of(shown), by_judge(shown)
    figure, axes = arranged([*panels], looks)
    for panel, members in zip(axes, panels.values(), strict=True):
        for kind, (line, colour) in looks.items():
            alike = members[members["kind"] == kind]
            if alike.empty:
                continue
            over = alike.groupby("within")
            middle = over["margin"].mean()
            panel.fill_between(
                middle.index, over["lower"].min(), over["upper"].max(), color=colour, alpha=0.15, linewidth=0
            )
            mean = alike.drop_duplicates(KEYS)["r2"].mean()
            panel.plot(middle.index, middle, color=colour, linestyle=line, label=f"R2 = {mean:#.3g}")
        panel.set_xlim(0, members["within"].max())
        panel.set_ylim(0, 1.02)
        panel.yaxis.set_major_formatter(PercentFormatter(1))
        panel.legend(loc="best", frameon=False, fontsize=8)
        panel.set_xlabel("ε, in pixel units")
    axes[0].set_ylabel("share of points with a margin > ε")
    return figure
