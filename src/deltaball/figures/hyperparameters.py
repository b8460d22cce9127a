"""A measure over every hyper-parameter that the study varies: one figure per data set and notion, a panel per axis.

Whatever axis a study varies has its panel: there is no list of axes here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from deltaball.figures import readings, style
from deltaball.figures.panels import (
    asked,
    asked_of,
    axis_label,
    caption,
    empty,
    finish,
    legend_above,
    limits,
    numbers,
    say_constant,
)
from deltaball.figures.paper import MIDDLE, at_middle
from deltaball.plan.plan import Plan
from deltaball.study.grids import all_axes
from deltaball.study.notions import NOTIONS

COLUMNS = 4
KIND = ["method", "architecture"]


def draw(name: str, plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``hyperparameters_DATASET_NOTION`` to `folder` as PNG, SVG and CSV, at the middle δ asked for."""
    _, dataset, notion = asked(name)
    planned = networks[(networks["dataset"] == dataset) & asked_of(plan, networks, notion)]
    shown = at_middle(plan, networks[networks["dataset"] == dataset], measured, notion)
    panels = {axis: _varying(shown, axis) for axis in all_axes()}
    panels = {axis: rows for axis, rows in panels.items() if len(rows)}
    figure = _panels(panels) if panels else empty()
    title = f"{dataset}: {NOTIONS[notion].title} over each hyper-parameter"
    remark = f"Boxes: quartiles; whiskers: the last network within 1.5 interquartile ranges. {MIDDLE}"
    told = readings.hyperparameters(panels, KIND)
    finish(figure, name, title, caption(shown, planned, remark, lines=False), numbers(shown), folder, told)


def _varying(shown: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The networks of the methods and architectures whose networks differ in an axis."""
    return shown[shown.groupby(KIND)[axis].transform("nunique") > 1]


def _panels(panels: dict[str, pd.DataFrame]) -> Figure:
    count = min(COLUMNS, len(panels))
    rows = -(-len(panels) // count)
    figure, axes = plt.subplots(
        rows + 1,
        count,
        figsize=(9.2, 2.1 * rows + 1.1),
        height_ratios=[0.12] + [1] * rows,
        squeeze=False,
        layout="constrained",
    )
    for room in axes[0]:
        room.set_axis_off()
    every = pd.concat(panels.values())
    legend_above(axes[0, 0], _handles(every))
    for index, panel in enumerate(axes[1:].flat):
        if index >= len(panels):
            panel.set_axis_off()
            continue
        axis, chosen = list(panels.items())[index]
        _boxes(panel, chosen, axis)
        panel.set_ylim(*limits(every, every["estimate"].min(), every["estimate"].max()))
        panel.set_ylabel(axis_label(chosen["notion"].iloc[0]) if index % count == 0 else "")
        panel.tick_params(labelleft=index % count == 0)
    return figure


def _boxes(panel: Axes, chosen: pd.DataFrame, axis: str) -> None:
    levels = _written(sorted(chosen[axis].dropna().unique()))
    kinds = list(chosen[KIND].drop_duplicates().itertuples(index=False, name=None))
    sns.boxplot(
        x=chosen[axis].map(levels),
        y=chosen["estimate"],
        order=[*levels.values()],
        hue=chosen["method"] + " " + chosen["architecture"],
        hue_order=[" ".join(kind) for kind in kinds],
        palette={" ".join(kind): style.colour(*kind) for kind in kinds},
        saturation=0.8,
        gap=0.1,
        linewidth=0.7,
        fliersize=1.2,
        legend=False,
        ax=panel,
    )
    panel.set(xlabel=axis.replace("_", " "))
    panel.grid(axis="x", visible=False)
    panel.tick_params(axis="x", labelsize=7.5)
    say_constant(panel, chosen["estimate"])


def _written(levels: Sequence[Any]) -> dict[Any, str]:
    """Each value of an axis as its tick says it; in full where fewer digits would make two one."""
    short = {level: f"{level:g}" if isinstance(level, float) else str(level) for level in levels}
    return short if len({*short.values()}) == len(short) else {level: str(level) for level in levels}


def _handles(shown: pd.DataFrame) -> list[Artist]:
    kinds = shown[KIND].drop_duplicates().itertuples(index=False, name=None)
    return [
        Patch(color=style.colour(method, architecture), label=f"{style.NAMES[architecture]}, {style.METHODS[method]}")
        for method, architecture in kinds
    ]
