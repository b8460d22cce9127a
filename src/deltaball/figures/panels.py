"""What several figures share: captions, scatter panels, legends, and how a figure is written."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from deltaball.analysis import judges
from deltaball.analysis.ranges import highest
from deltaball.base.files import written_checked
from deltaball.base.guarantees import confidence_text
from deltaball.figures import labels, style
from deltaball.figures.trends import fitted
from deltaball.plan.measures import Measure
from deltaball.plan.plan import Plan
from deltaball.study.grids import DRAWN, all_axes
from deltaball.study.neighbourhoods import NORMS
from deltaball.study.notions import NOTIONS
from deltaball.tables import columns, frames

AXES = {"R": "R(g), robust share", "D": "D(ḡ), mean variation", "M": "M, mean margin"}
# Of paper 004, whose R is R(g); others' is R.
PAPERS_NOTIONS = ("class_change", "softmax_variation", "variation_above", "margin")
MOST_LISTED = 6
LEGEND = 0.12  # height of the legend's row, that of a row of panels being 1
DIGITS = 6  # of a place in a figure, as a share of its size
MARGIN = 0.08  # of the files, inches
READING, CAPTION = 132, 150  # letters of a line
# From so many networks on, contours say where most of them lie, and an SVG holds its dots as one image.
MANY = 1500
CONTOURS = (0.1, 0.4, 0.7)  # share of the networks outside each


def axis_label(notion: str) -> str:
    """What the axis of a notion's quantity is called."""
    return AXES[NOTIONS[notion].quantity] if notion in PAPERS_NOTIONS else "R, robust share"


REFERENCES = {"predicted": "the predicted class", "label": "the label", "output": "the network's own output"}


def asked(name: str) -> tuple[str, str, str]:
    """Kind, data set and notion of figure ``KIND_DATASET_NOTION``."""
    kind, _, rest = name.partition("_")
    notion = max((one for one in NOTIONS if rest.endswith(f"_{one}")), key=len)
    return kind, rest.removesuffix(f"_{notion}"), notion


def asked_of(plan: Plan, networks: pd.DataFrame, notion: str, certificates: bool = False) -> pd.Series:
    """Which networks attacks (or certificates) are to judge by this notion."""
    asked = pd.Series(False, networks.index)
    for one in plan.measures:
        if one.notion == notion and (one.certificate if certificates else one.attack):
            asked |= applies(plan, one, networks)
    return asked


def applies(plan: Plan, one: Measure, networks: pd.DataFrame) -> pd.Series:
    """Which networks a measure is to be taken of."""
    wanted = pd.Series(True, networks.index)
    nothing = pd.Series(None, networks.index, dtype="object")
    ranks = {network.id: network.rank for network in plan.networks} if DRAWN in one.wanted else {}
    for name, values in one.wanted.items():
        own = networks["network_id"].map(ranks) if name == DRAWN else networks.get(name, nothing)
        wanted &= own.isin([value for value in values if value is not None]) | (own.isna() & (None in values))
    return wanted


def levels(shown: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of a figure: each norm, δ (and γ) that is shown, its label, and its rows of the table."""
    notion = NOTIONS[shown["notion"].iloc[0]]
    axis = axis_label(notion.name)
    # L∞ goes without saying, until there are others.
    balls = {norm: "" if set(shown["norm"]) == {"linf"} else f"{title}, " for norm, title in NORMS.items()}
    return [
        (f"{balls[norm]}δ = {delta:g}{notion.with_threshold(gamma)}\n{axis}", chosen)
        for norm in NORMS
        for (delta, gamma), chosen in shown[shown["norm"] == norm].groupby(["delta", "gamma"], dropna=False)
    ]


def caption(shown: pd.DataFrame, planned: pd.DataFrame, remark: str = "", lines: bool = True) -> str:
    """What a reader must know to judge a figure: attack, δ, ε, confidence, N, and how many networks it shows.

    `planned` are the networks that the finished study would show.
    """
    count = f"{shown['network_id'].nunique():,} of {len(planned):,} planned networks"
    if shown.empty:
        return f"{count}: nothing is measured yet."
    attacked = " and ".join(
        f"{judges.display_name(attack)} in {NORMS[norm]} balls of δ = {listed(members['delta'])}"
        for (attack, norm), members in shown.groupby(["attack", "norm"], sort=False)
    )
    references = " and ".join(dict.fromkeys(REFERENCES[NOTIONS[one].reference] for one in shown["notion"]))
    quantities = shown["notion"].map({name: notion.quantity for name, notion in NOTIONS.items()})
    sides = shown["side"].groupby(quantities, sort=False).first().map({"upper": "no larger", "lower": "no smaller"})
    truth = " and ".join(f"the true {quantity} is {side}" for quantity, side in sides.items())
    fitted = " Lines: least squares with 95 % bands, errors clustered by independent trainings." if lines else ""
    bar = "; the grey bar is ±ε" if lines else ""
    return (
        f"{count}. {attacked}, with respect to {references}: {truth} than what is shown. Each "
        f"estimate is within ε = {listed(shown['epsilon'])} of what this attack finds on the whole input distribution, "
        f"with confidence {listed(shown['confidence'], confidence_text)} (N = {listed(shown['samples'], str)} test "
        f"points, Hoeffding{bar}).{fitted} {remark}"
    ).strip()


def listed(values: pd.Series, text: Callable[[Any], str] = "{:g}".format) -> str:
    """The distinct values, ascending; the ends of their range where they are many."""
    distinct = [text(value) for value in sorted(values.unique())]
    return ", ".join(distinct) if len(distinct) <= MOST_LISTED else f"{distinct[0]} to {distinct[-1]}"


def scatter(panel: Axes, chosen: pd.DataFrame) -> None:
    """Accuracy against the estimate, a mark per network and a trend per method × architecture."""
    kinds = [(style.colour(*kind), kind[1], rows) for kind, rows in chosen.groupby(["method", "architecture"])]
    for colour, architecture, members in kinds:
        dots(panel, members, colour, style.MARKS[architecture])
    for colour, _, members in kinds:
        trend(panel, members, colour)
    scaled(panel, chosen)


def dots(panel: Axes, members: pd.DataFrame, colour: str, mark: str = "o", hollow: bool = False) -> None:
    """A dot per network, the smaller and fainter the more there are; of thousands, contours of their density too."""
    count = max(len(members), 1)
    panel.scatter(
        members["test_accuracy"],
        members["estimate"],
        s=np.interp(np.log10(count), [2, 3.7], [14, 4]),
        marker=mark,
        facecolors="none" if hollow else colour,
        edgecolors=colour if hollow else "none",
        linewidths=0.7,
        alpha=np.interp(np.log10(count), [2, 3.7], [0.6, 0.12]),
        rasterized=count > MANY,
    )
    values = members[["test_accuracy", "estimate"]]
    # A density needs two dimensions: not of estimates that are all 0.
    if count > MANY and (values.quantile(0.9) > values.quantile(0.1)).all():
        sns.kdeplot(
            x=values["test_accuracy"],
            y=values["estimate"],
            levels=CONTOURS,
            color=np.multiply(to_rgb(colour), 0.6),
            linewidths=0.8,
            gridsize=60,
            cut=0,
            ax=panel,
        )
        panel.set(xlabel="", ylabel="")


def trend(panel: Axes, members: pd.DataFrame, colour: str, line: str = "-") -> None:
    """The estimate's least-squares line over accuracy, with its band; nothing where too few networks carry one.

    Both end where the measure does: no share is below 0 or above 1, whatever a straight line says.
    """
    fit = fitted(members)
    if fit is None:
        return
    most = highest(members).iloc[0]
    there = np.linspace(fit.low, fit.high, 50)
    middle, half = fit.band(there)
    low, high = np.clip([middle - half, middle + half], 0, most)
    panel.fill_between(there, low, high, where=high > low, color=colour, alpha=0.18, linewidth=0)
    kept = fit.inside(0, most)
    if kept is None:
        return
    ends = np.linspace(*kept, 50)
    # White beneath the line keeps it apart from its own dots.
    panel.plot(ends, fit.band(ends)[0], color="white", linewidth=2.6, alpha=0.8)
    panel.plot(ends, fit.band(ends)[0], color=colour, linestyle=line)


def say_constant(panel: Axes, estimates: pd.Series) -> None:
    """Say in a panel that its estimates do not differ, where they do not: an empty picture could mean anything."""
    if estimates.nunique() == 1:
        text = f"all {len(estimates):,} estimates are {estimates.iloc[0]:.3g}"
        panel.text(0.5, 0.9, text, transform=panel.transAxes, ha="center", va="top", fontsize=8, color="0.35")


def scaled(panel: Axes, chosen: pd.DataFrame) -> None:
    """The axes of a panel of accuracy against the estimate, and a bar as long as ±ε."""
    panel.xaxis.set_major_formatter(style.PERCENT)
    say_constant(panel, chosen["estimate"])
    low, high = chosen["estimate"].min(), chosen["estimate"].max()
    panel.set_ylim(*limits(chosen, low, high))
    # The scale of the guarantee, at the left edge where few networks lie.
    epsilon = chosen["epsilon"].iloc[0]
    centre = np.mean(panel.get_ylim())
    panel.errorbar(
        [0.02], [centre], yerr=epsilon, transform=panel.get_yaxis_transform(), color="0.45", capsize=3, linewidth=1.2
    )


def legend_above(room: Axes, handles: list[Artist], columns: int | None = None) -> None:
    """A legend for the whole figure, in a row of its own above the panels, in one line where `columns` is None."""
    room.set_axis_off()
    drawn = room.legend(
        handles=handles,
        loc="center left",
        ncols=columns or len(handles),
        borderaxespad=0,
        columnspacing=1.4,
        handlelength=1.4,
    )
    # It may be wider than the column of panels in which it starts.
    drawn.set_in_layout(False)


def limits(chosen: pd.DataFrame, low: float, high: float) -> tuple[float, float]:
    """Ends of a y axis that shows [low, high] of a measure: R and D lie in [0, 1], a margin in [0, δ]."""
    whole = highest(chosen).iloc[0]
    room = max(0.05 * (high - low), 0.01 * whole)
    return max(low - room, -0.03 * whole), min(high + room, 1.03 * whole)


def kinds(shown: pd.DataFrame) -> list[Artist]:
    """Legend handles: which mark and colour is which method and architecture."""
    there = shown[["method", "architecture"]].drop_duplicates().itertuples(index=False)
    return [
        Line2D(
            [],
            [],
            marker=style.MARKS[architecture],
            color=style.colour(method, architecture),
            label=f"{style.NAMES[architecture]}, {style.METHODS[method]}",
        )
        for method, architecture in there
    ]


def empty() -> Figure:
    """A figure of which nothing is measured yet: room for title and caption."""
    figure = plt.figure(figsize=(9.2, 1.0), layout="constrained")
    # Keeps the width, to which the margins would be cut.
    figure.add_artist(Line2D([0.01, 0.99], [0.6, 0.6], color="0.85", linewidth=0.8))
    return figure


def numbers(shown: pd.DataFrame) -> pd.DataFrame:
    """What is written of the networks and estimates that a figure shows."""
    axes = [axis for axis in all_axes() if shown[axis].notna().any()]
    estimates = [name for name in columns.ROBUSTNESS if name not in ("network_id", "points_seed")]
    return shown[[*columns.IDENTITY, *axes, "parameters", "test_accuracy", *estimates]]


def finish(
    figure: Figure, name: str, title: str, note: str, shown: pd.DataFrame, folder: Path, reading: str = ""
) -> None:
    """Title and caption a figure, its reading above the caption, and write it as PNG, SVG, and the CSV of its data."""
    told = textwrap.wrap(reading, READING)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    # Empty lines keep the reading's room: one text has one weight.
    lines = "\n".join([*[" "] * len(told), *textwrap.wrap(note, CAPTION)])
    beneath = figure.supxlabel(lines, x=0.01, ha="left", fontsize=8)
    figure.draw_without_rendering()
    labels.turn(figure)
    # Arranged once, for both files: with an engine, even one that does nothing, each would be drawn twice.
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    top = figure.transFigure.inverted().transform(beneath.get_window_extent().corners())[:, 1].max()
    figure.text(0.01, top, "\n".join(told), ha="left", va="top", fontsize=8, fontweight="bold")
    _settle(figure)
    around = figure.get_tightbbox().padded(MARGIN)
    described = {"Title": title, "Description": reading}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        with written_checked(folder / f"{name}.{kind}") as path:
            figure.savefig(path, metadata=metadata | described, bbox_inches=around)
    plt.close(figure)
    frames.write_csv(shown, folder / f"{name}.csv")


def _settle(figure: Figure) -> None:
    """Round what the layout's solver found: its last bits depend on where its variables lie in memory."""
    for band in figure.subfigs:
        band.bbox_relative.set_points(band.bbox_relative.get_points().round(DIGITS))
    for panel in figure.axes:
        panel.set_position(Bbox(panel.get_position(original=True).get_points().round(DIGITS)))
    for text in [*figure.texts, *(text for band in figure.subfigs for text in band.texts)]:
        text.set_position(np.round(text.get_position(), DIGITS))
