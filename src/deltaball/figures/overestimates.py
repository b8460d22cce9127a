"""How far above the exact distance (paper 002's ρ) each attack's (ρ̂) is, point by point, where exact ones are asked."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from deltaball.analysis.judges import display_name, entry, strength
from deltaball.analysis.overestimates import overestimates
from deltaball.figures import readings, style
from deltaball.figures.panels import empty, finish, listed
from deltaball.study.neighbourhoods import NORMS

WIDTH, HEIGHT, COLUMNS = 9.2, 2.7, 3
TICKS = (1, 1.2, 1.5, 2, 3, 5, 7)
EDGE = 1.25  # where nothing is found, above the largest ρ̂ / ρ by such a factor


def draw(name: str, compared: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``overestimates_DATASET`` to `folder` as PNG, SVG and CSV."""
    dataset = name.partition("_")[2]
    shown = compared[compared["dataset"] == dataset].reset_index(drop=True)
    figure = _panels(shown) if len(shown) else empty()
    note = _caption(shown) if len(shown) else "Nothing is measured yet."
    told = readings.overestimates(overestimates(shown)) if len(shown) else readings.NOTHING
    finish(figure, name, f"{dataset}: how far is ρ̂ above ρ?", note, shown, folder, told)


def _caption(shown: pd.DataFrame) -> str:
    networks, points = shown["network_id"].nunique(), len(shown.drop_duplicates(["network_id", "certificate", "point"]))
    kinds = listed(shown["kind"], str)
    return (
        f"A mark per test point, {points:,} of {networks} networks ({kinds}): the distance ρ̂ that an attack finds, a "
        f"multiple of the exact one ρ, over ρ. Points with no violation within δ are left out. Grey line: exact. Open "
        f"marks on the dashed line: nothing found within δ."
    )


def _panels(shown: pd.DataFrame) -> plt.Figure:
    groups = [
        (f"{display_name(attack)}{'' if norm == 'linf' else f', {NORMS[norm]}'}", attack, members)
        for (attack, norm), members in sorted(
            shown.groupby(["attack", "norm"], sort=False), key=lambda group: strength(group[0][0])
        )
    ]
    rows = -(-len(groups) // COLUMNS)
    columns = -(-len(groups) // rows)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(WIDTH, HEIGHT * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    ratios = shown["ratio"].astype(float)
    edge = EDGE * np.nanmax(np.append(ratios[np.isfinite(ratios)], 1.0))
    for panel, (title, attack, members) in zip(axes.flat, groups, strict=False):
        _marks(panel, attack, members, edge)
        panel.set_title(title, loc="left")
    for panel in list(axes.flat)[len(groups) :]:
        panel.set_axis_off()
    for panel in axes[-1]:
        panel.set_xlabel("exact distance ρ, in pixel units")
    for panel in axes[:, 0]:
        panel.set_ylabel("ρ̂ / ρ")
    return figure


def _marks(panel: Axes, attack: str, members: pd.DataFrame, edge: float) -> None:
    colour, mark = style.judge(entry(attack).name)
    exact, ratio = members["exact"].astype(float), members["ratio"].astype(float)
    missed = np.isinf(ratio)
    panel.axhline(1, color="0.5", linewidth=0.8, zorder=0)
    panel.scatter(exact[~missed], ratio[~missed], s=11, marker=mark, color=colour, alpha=0.6, linewidths=0)
    if missed.any():
        panel.axhline(edge, color="0.5", linewidth=0.8, linestyle="--", zorder=0)
        panel.scatter(
            exact[missed], np.full(missed.sum(), edge), s=11, marker=mark, facecolors="none", edgecolors=colour
        )
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=TICKS))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
