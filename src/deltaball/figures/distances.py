"""How many points have a violation how near, as each judge finds it, in the form of paper 002's Figure 3.

A panel per judge (and ball), a line per kind of network: the adversarial frequency φ(ε) over ε.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from deltaball.analysis import judges
from deltaball.base.guarantees import confidence_text, epsilon_reached
from deltaball.figures import readings, style
from deltaball.figures.panels import applies, empty, finish, legend_above, listed
from deltaball.plan.plan import Plan
from deltaball.study.judges import JUDGES
from deltaball.study.neighbourhoods import NORMS
from deltaball.study.notions import NOTIONS

WIDTH, HEIGHT, LEGEND_LINE = 9.2, 2.9, 0.24
COLUMNS, LEGEND_COLUMNS = 3, 3
LETTERS = 125  # that the legend has room for side by side
LINES = ("-", (0, (4, 2)), (0, (1, 1)))


def draw(name: str, plan: Plan, networks: pd.DataFrame, curves: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``distances_DATASET`` to `folder` as PNG, SVG and CSV."""
    dataset = name.partition("_")[2]
    shown = curves[curves["dataset"] == dataset].reset_index(drop=True)
    shown = shown.assign(by=shown["attack"].fillna(shown["certificate"]))
    planned = int(wanted(plan, networks[networks["dataset"] == dataset]).sum())
    count = f"{shown['network_id'].nunique():,} of {planned:,} planned networks"
    figure = _panels(plan, shown) if len(shown) else empty()
    note = f"{count}. {_caption(shown)}" if len(shown) else f"{count}: nothing is measured yet."
    told = readings.distances(shown, plan.study.analysis.within) if len(shown) else readings.NOTHING
    finish(figure, name, f"{dataset}: how near is a violation?", note, shown, folder, told)


def wanted(plan: Plan, networks: pd.DataFrame) -> pd.Series:
    """The networks of which distances are to be measured."""
    wanted = pd.Series(False, networks.index)
    for one in plan.measures:
        if NOTIONS[one.notion].is_distance and JUDGES[one.judge].says != "proves":
            wanted |= applies(plan, one, networks)
    return wanted


def half_widths(shown: pd.DataFrame) -> str:
    """Of the bands around whole curves: one number, or the least and the greatest."""
    asked = shown[["samples", "confidence"]].drop_duplicates()
    halves = [epsilon_reached(*row) for row in asked.itertuples(index=False)]
    return " to ".join(f"{one:.3f}" for one in sorted({min(halves), max(halves)}))


def _caption(shown: pd.DataFrame) -> str:
    several = shown.groupby(["by", "norm", "kind"])["network_id"].nunique().max() > 1
    found = shown["attack"].notna()
    side = " A judge that misses violations draws a curve below the truth's." if found.any() else ""
    lines = " from the lowest band of a kind to the highest; lines are means over its networks." if several else "."
    return (
        f"The share of N = {listed(shown['samples'], str)} test points with a violation no farther than ε, as each "
        f"judge finds it; where it finds none, a point counts as beyond.{side} Shaded: each network's whole curve at "
        f"once, ± {half_widths(shown)} with confidence {listed(shown['confidence'], confidence_text)} (Dvoretzky, "
        f"Kiefer and Wolfowitz){',' if several else ''}{lines} Grey: the ε of the tables."
    )


def _panels(plan: Plan, shown: pd.DataFrame) -> Figure:
    looks, panels = looks_of(shown), by_judge(shown)
    figure, axes = arranged([*panels], looks)
    for panel, members in zip(axes, panels.values(), strict=True):
        _lines(panel, members, looks, plan.study.analysis.within)
        panel.set_ylim(0, min(1.02 * shown["upper"].max(), 1))
        panel.set_xlabel("ε, in pixel units")
    for panel in axes[::COLUMNS]:
        panel.set_ylabel("φ(ε), share of points")
    return figure


def by_judge(shown: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each judge in each norm, weakest judge first, by the title of their panel."""
    return {
        f"{judges.display_name(by)}{'' if norm == 'linf' else f', {NORMS[norm]}'}": members
        for by in sorted(shown["by"].unique(), key=judges.strength)
        for norm, members in shown[shown["by"] == by].groupby("norm", sort=False)
    }


def looks_of(shown: pd.DataFrame) -> dict[str, tuple[object, str]]:
    """The dashes and the colour of each kind of network."""
    return dict(zip(shown["kind"].unique(), itertools.product(LINES, style.KINDS), strict=False))


def arranged(titles: Sequence[str], looks: Mapping[str, tuple[object, str]]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each title, and above them what the lines mean."""
    handles = [_handle(kind, *look) for kind, look in looks.items()]
    columns = min(COLUMNS, len(titles))
    side_by_side = next(count for count in range(LEGEND_COLUMNS, 0, -1) if count == 1 or _fit([*looks], count))
    rows, legend = -(-len(titles) // columns), LEGEND_LINE * -(-len(handles) // side_by_side)
    figure, axes = plt.subplots(
        rows + 1,
        columns,
        figsize=(WIDTH, HEIGHT * rows + legend + 1),
        height_ratios=[legend / HEIGHT, *[1] * rows],
        squeeze=False,
        layout="constrained",
    )
    for room in axes.flat:
        room.set_axis_off()
    legend_above(axes[0, 0], handles, side_by_side)
    panels = list(axes[1:].flat)[: len(titles)]
    for panel, title in zip(panels, titles, strict=True):
        panel.set_axis_on()
        panel.set_title(title, loc="left")
    return figure, panels


def _fit(labels: Sequence[str], columns: int) -> bool:
    """Whether a legend of so many columns, filled one after the other, is no wider than the figure."""
    parts = np.array_split(np.array([*map(len, labels)]), columns)
    return sum(part.max(initial=0) for part in parts) <= LETTERS


def _lines(panel: Axes, members: pd.DataFrame, looks: dict, within: list[float]) -> None:
    furthest = members["within"].max()
    for kind, (line, colour) in looks.items():
        over = members[members["kind"] == kind].groupby("within")
        if not over.ngroups:
            continue
        middle, lower, upper = over["frequency"].mean(), over["lower"].min(), over["upper"].max()
        panel.fill_between(middle.index, lower, upper, color=colour, alpha=0.15, linewidth=0)
        panel.plot(middle.index, middle, color=colour, linestyle=line)
    for one in within:
        if one <= furthest:
            panel.axvline(one, color="0.5", linewidth=0.8)
    panel.set_xlim(0, furthest)
    panel.yaxis.set_major_formatter(PercentFormatter(1))


def _handle(label: str, line: object, colour: str) -> Artist:
    return Line2D([], [], color=colour, linestyle=line, label=label)
