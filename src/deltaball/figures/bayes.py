"""Bayesian beside deterministic networks, in the form of paper 004's Figure 4.

One figure per data set and notion, one row per δ (and γ): accuracy against the measure, where Bayesian networks whose
chains have not converged are hollow and have a trend of their own; and the measure over capacity.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deltaball.analysis.bayes import ESS, RHAT, converged
from deltaball.analysis.judges import judged
from deltaball.figures import readings, style
from deltaball.figures.panels import (
    LEGEND,
    asked,
    caption,
    dots,
    empty,
    finish,
    legend_above,
    levels,
    numbers,
    scaled,
    trend,
)
from deltaball.figures.tradeoff import capacity
from deltaball.study.notions import NOTIONS

SGD, HMC = style.colour("sgd", "fcn"), style.colour("hmc", "fcn")
REMARK = (
    f"Converged: split R-hat ≤ {RHAT} and bulk ESS ≥ {ESS} of every predictive quantity that is watched; "
    "tables/bayes.csv compares the trends."
)
DIAGNOSED = ["acceptance", "divergences", "ess_min", "rhat_max", "kind"]
# Label, colour, face of the mark, line of the trend.
KINDS = {
    "sgd": ("SGD", SGD, SGD, "-"),
    "converged": ("HMC", HMC, HMC, "-"),
    "not converged": ("HMC, not converged", HMC, "none", "--"),
}


def draw(name: str, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``bayes_DATASET_NOTION`` to `folder` as PNG, SVG and CSV: fully connected networks, none pruned.

    Of several attacks one is shown (``judged``), and never a certificate: see there.
    """
    _, dataset, notion = asked(name)
    planned = networks[
        (networks["dataset"] == dataset) & networks["method"].isin(["sgd", "hmc"]) & (networks["architecture"] == "fcn")
    ]
    alike = measured["network_id"].isin(planned["network_id"]) & (measured["notion"] == notion)
    shown = kinds(judged(measured[alike]))
    drawable = (shown["method"] == "hmc").any()
    figure = panel_figure(shown) if drawable else empty()
    title = f"{dataset}: Bayesian and deterministic networks, {NOTIONS[notion].title}"
    told = readings.trends((chosen for _, chosen in levels(shown)), ["kind"]) if drawable else readings.NOTHING
    note = caption(shown, planned, REMARK)
    finish(figure, name, title, note, numbers(shown).join(shown[DIAGNOSED]), folder, told)


def panel_figure(shown: pd.DataFrame) -> Figure:
    rows = levels(shown)
    figure, panels = plt.subplots(
        len(rows) + 1,
        2,
        figsize=(9.2, 2.5 * len(rows) + 1.2),
        width_ratios=[2, 1.6],
        height_ratios=[LEGEND] + [1] * len(rows),
        squeeze=False,
        sharex="col",
        sharey="row",
        layout="constrained",
    )
    for room in panels[0]:
        room.set_axis_off()
    legend_above(panels[0][0], handles(shown))
    sizes = capacity(shown)
    for (left, right), (label, chosen) in zip(panels[1:], rows, strict=True):
        scatter(left, chosen)
        boxes(right, chosen, sizes[chosen.index])
        left.set(xlabel="", ylabel=label)
        right.set(xlabel="", ylabel="")
    for column, (title, label) in enumerate(
        (("accuracy and robustness", "test accuracy"), ("capacity", "weights and biases"))
    ):
        panels[1][column].set_title(title, loc="left")
        panels[-1][column].set_xlabel(label)
    return figure


def kinds(shown: pd.DataFrame) -> pd.DataFrame:
    """The rows with their `kind`: `sgd`, or whether the network's chain has `converged` or `not converged`."""
    chains = pd.Series(np.where(converged(shown), "converged", "not converged"), shown.index, dtype="str")
    return shown.assign(kind=chains.where(shown["method"] == "hmc", "sgd"))


def handles(shown: pd.DataFrame) -> list[Artist]:
    """Legend handles of the kinds that are there."""
    there = set(kinds(shown)["kind"])
    return [
        Line2D([], [], marker="o", color=colour, markerfacecolor=face, linestyle=line, label=label)
        for kind, (label, colour, face, line) in KINDS.items()
        if kind in there
    ]


def scatter(panel: Axes, chosen: pd.DataFrame) -> None:
    """Accuracy against the estimate, dots and a trend per kind."""
    for kind, (_, colour, face, _) in KINDS.items():
        dots(panel, chosen[chosen["kind"] == kind], colour, hollow=face == "none")
    for kind, (_, colour, _, line) in KINDS.items():
        trend(panel, chosen[chosen["kind"] == kind], colour, line)
    scaled(panel, chosen)


def boxes(panel: Axes, chosen: pd.DataFrame, by: pd.Series) -> None:
    """Box plots of the estimate over the categories of `by`, both methods side by side."""
    methods = chosen["method"].map({"sgd": KINDS["sgd"][0], "hmc": KINDS["converged"][0]})
    sns.boxplot(
        x=by.astype(str),
        y=chosen["estimate"],
        order=[str(level) for level in by.cat.categories],
        hue=methods,
        palette={KINDS["sgd"][0]: SGD, KINDS["converged"][0]: HMC},
        saturation=0.7,
        gap=0.1,
        linewidth=0.8,
        fliersize=1.5,
        legend=False,
        ax=panel,
    )
    panel.grid(axis="x", visible=False)
    panel.set(xlabel="", ylabel="")
