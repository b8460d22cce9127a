"""The trade-off of accuracy and robustness in the form of paper 004's Figure 2.

One figure per data set and notion, one row per δ (and γ): accuracy against the measure with a fitted trend and its
band, and beside it the measure over capacity and over training length.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from deltaball.analysis.judges import judged
from deltaball.figures import readings, style
from deltaball.figures.panels import (
    LEGEND,
    asked,
    asked_of,
    caption,
    empty,
    finish,
    kinds,
    legend_above,
    levels,
    numbers,
    scatter,
)
from deltaball.plan.plan import Plan
from deltaball.study.notions import NOTIONS

CAPACITY_BINS = 5
# The axis along a method's trajectories, and how captions count it; networks of files and machines are one by one.
Colour = tuple[float, float, float]

LENGTHS = {
    "sgd": ("epochs", "epochs of training"),
    "hmc": ("posterior_samples", "samples of the posterior"),
    "finetune": ("rounds", "rounds of fine-tuning"),
    "adapt": ("corrupted_images", "corrupted images seen"),
    "svm": ("penalty", "penalty C"),
    "given": ("file", "file"),
}


def draw(name: str, plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``tradeoff_DATASET_NOTION`` to `folder` as PNG, SVG and CSV, without pruned networks.

    Of several attacks one is shown (``judged``), and never a certificate: see there.
    """
    _, dataset, notion = asked(name)
    planned = networks[
        asked_of(plan, networks, notion) & (networks["dataset"] == dataset) & (networks["method"] != "imp")
    ]
    chosen = measured["network_id"].isin(planned["network_id"]) & (measured["notion"] == notion)
    shown = judged(measured[chosen])
    figure = panel_figure(shown) if len(shown) else empty()
    told = readings.trends(chosen for _, chosen in levels(shown)) if len(shown) else readings.NOTHING
    finish(figure, name, f"{dataset}: {NOTIONS[notion].title}", caption(shown, planned), numbers(shown), folder, told)


def panel_figure(shown: pd.DataFrame) -> Figure:
    rows = levels(shown)
    figure, panels = plt.subplots(
        len(rows) + 1,
        3,
        figsize=(9.2, 2.5 * len(rows) + 1.2),
        width_ratios=[2, 1.25, 1.25],
        height_ratios=[LEGEND] + [1] * len(rows),
        squeeze=False,
        sharex="col",
        sharey="row",
        layout="constrained",
    )
    for room in panels[0]:
        room.set_axis_off()
    boxed = shown["method"] == _boxed(shown)
    length, length_text = LENGTHS[_boxed(shown)]
    legend_above(panels[0][0], [*kinds(shown), *_named_tones(shown[boxed])])
    # The rows share their axes: a level of one row is the same level, in the same place, of all.
    over = ((capacity(shown[boxed]), style.CAPACITY), (ordered(shown[boxed][length]), style.DURATION))
    for row, (label, chosen) in zip(panels[1:], rows, strict=True):
        scatter(row[0], chosen)
        there = chosen[boxed[chosen.index]]
        for panel, (by, of) in zip(row[1:], over, strict=True):
            boxes(panel, there, by[there.index], tones(shown[boxed], of))
        for panel, text in zip(row, (label, "", ""), strict=True):
            panel.set(xlabel="", ylabel=text)
    labels = ("test accuracy", "weights and biases", length_text)
    titles = ("accuracy and robustness", "capacity", "training length")
    for column, (title, label) in enumerate(zip(titles, labels, strict=True)):
        panels[1][column].set_title(title, loc="left")
        panels[-1][column].set_xlabel(label)
    return figure


def boxes(panel: Axes, chosen: pd.DataFrame, by: pd.Series, colours: Mapping[str, Colour]) -> None:
    """Box plots of the estimate over the categories of `by`, each architecture in its colour."""
    architectures = chosen["architecture"].map(style.NAMES)
    sns.boxplot(
        x=by.astype(str),
        y=chosen["estimate"],
        order=[str(level) for level in by.cat.categories],
        hue=architectures,
        palette={style.NAMES[one]: colour for one, colour in colours.items()},
        hue_order=[name for name in style.NAMES.values() if name in set(architectures)],
        gap=0.1,
        linewidth=0.8,
        fliersize=1.5,
        legend=False,
        ax=panel,
    )
    panel.grid(axis="x", visible=False)
    panel.set(xlabel="", ylabel="")


def ordered(values: pd.Series) -> pd.Series:
    """Numbers as categories in their order."""
    return values.astype(pd.CategoricalDtype(sorted(values.dropna().unique()), ordered=True))


def tones(shown: pd.DataFrame, ends: tuple[str, str]) -> dict[str, Colour]:
    """A colour for each architecture: from the dark end, for fully connected networks, to the light one."""
    others = [name for name in style.NAMES if name in set(shown["architecture"]) and name != "fcn"]
    return dict(zip(("fcn", *others), sns.blend_palette(ends, 1 + len(others)), strict=True))


def _named_tones(chosen: pd.DataFrame) -> list[Artist]:
    """Legend handles of `boxes`: which tone is which architecture, where there are several."""
    there = set(chosen["architecture"])
    named = tones(chosen, style.CAPACITY).items()
    patches = [Patch(color=colour, label=f"boxes: {style.NAMES[one]}") for one, colour in named if one in there]
    return patches if len(there) > 1 else []


def capacity(chosen: pd.DataFrame) -> pd.Series:
    """The number of parameters in quantile bins, each labelled by its range."""
    parameters = chosen["parameters"]
    sizes = np.unique(parameters)
    if len(sizes) > CAPACITY_BINS:
        sizes = np.unique(np.quantile(parameters, np.linspace(0, 1, CAPACITY_BINS + 1)[1:]))
    bins = pd.cut(parameters, [-np.inf, *sizes[:-1], np.inf])
    ranges = parameters.groupby(bins, observed=True).agg(["min", "max"])
    bins = bins.cat.set_categories(ranges.index)
    labels = [_range(low, high, _thousands) for low, high in ranges.itertuples(index=False)]
    if len(set(labels)) < len(labels):
        labels = [_range(low, high, "{:,}".format) for low, high in ranges.itertuples(index=False)]
    return bins.cat.rename_categories(labels)


def _range(low: int, high: int, text: Callable[[int], str]) -> str:
    return text(low) if low == high else f"{text(low)}–{text(high)}"


def _thousands(count: int) -> str:
    if count < 1000:
        return str(count)
    return f"{count / 1e6:.2g}M" if count >= 1e6 else f"{count / 1e3:.0f}k"


def _boxed(shown: pd.DataFrame) -> str:
    """The method whose networks the box plots show: a sample is no epoch. For both side by side see `bayes`."""
    return next(method for method in LENGTHS if (shown["method"] == method).any())
