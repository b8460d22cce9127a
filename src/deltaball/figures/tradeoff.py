"""The trade-off of accuracy and robustness in the form of paper 004's Figure 2.

One figure per data set and notion, one row per δ (and γ): accuracy against the measure with a fitted trend and its
band, and beside it the measure over capacity and over training length.
"""

import textwrap
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from deltaball import tables
from deltaball.figures import style
from deltaball.store import written_whole
from deltaball.study import GRIDS, NOTIONS, all_axes

CAPACITY_BINS = 5
# Beside the panel's title, where it can hide nothing.
LEGEND_PLACE = {
    "loc": "lower right",
    "bbox_to_anchor": (1.02, 0.97),
    "ncols": 2,
    "columnspacing": 1,
    "handlelength": 1.4,
}
TITLES = {
    "class_change": "class change, g",
    "softmax_variation": "softmax variation, ḡ",
    "variation_above": "softmax variation above γ",
}
AXES = {"R": "R(g), robust share", "D": "D(ḡ), mean variation"}
ATTACKS = {"fgsm": "FGSM"}


def draw(name: str, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``tradeoff_DATASET_NOTION`` to `folder` as PNG, SVG and CSV."""
    dataset, notion = _asked(name, networks)
    shown = measured[(measured["dataset"] == dataset) & (measured["notion"] == notion)]
    figure = _panels(shown, notion) if len(shown) else plt.figure(figsize=(9.2, 1.0), layout="constrained")
    figure.suptitle(f"{dataset}: {TITLES[notion]}", x=0.01, ha="left", fontweight="bold")
    figure.supxlabel("\n".join(textwrap.wrap(caption(dataset, shown, networks), 150)), x=0.01, ha="left", fontsize=8)
    _save(figure, name, shown, folder)


def caption(dataset: str, shown: pd.DataFrame, networks: pd.DataFrame) -> str:
    """What a reader must know to judge the figure: attack, δ, ε, confidence, N, and how many networks it shows."""
    planned = networks[networks["dataset"] == dataset]
    count = f"{shown['network_id'].nunique():,} of {len(planned):,} planned networks"
    if shown.empty:
        return f"{count}: nothing is measured yet."
    attack = " and ".join(ATTACKS[one] for one in shown["attack"].unique())
    deltas = ", ".join(f"{delta:g}" for delta in sorted(shown["delta"].unique()))
    first = shown.iloc[0]
    truth = "no larger" if first["side"] == "upper" else "no smaller"
    return (
        f"{count}. {attack} in L∞ balls of δ = {deltas}, with respect to the predicted class: the truth is {truth} "
        f"than what is shown. Each estimate is within ε = {first['epsilon']:g} of what this attack finds on the whole "
        f"input distribution, with confidence {first['confidence']:.4g} (N = {first['samples']} test points, "
        "Hoeffding; the grey bar is ±ε). Lines: least squares with 95 % bands from a bootstrap over trajectories."
    )


def _asked(name: str, networks: pd.DataFrame) -> tuple[str, str]:
    rest = name.removeprefix("tradeoff_")
    notion = next(one for one in NOTIONS if rest.endswith(f"_{one}"))
    return rest.removesuffix(f"_{notion}"), notion


def _panels(shown: pd.DataFrame, notion: str) -> Figure:
    levels = shown[["delta", "gamma"]].drop_duplicates().sort_values(["delta", "gamma"])
    figure, panels = plt.subplots(
        len(levels),
        3,
        figsize=(9.2, 2.5 * len(levels) + 1.0),
        width_ratios=[2, 1.25, 1.25],
        squeeze=False,
        sharex="col",
        sharey="row",
        layout="constrained",
    )
    for row, (delta, gamma) in zip(panels, levels.itertuples(index=False), strict=True):
        chosen = shown[(shown["delta"] == delta) & ((shown["gamma"] == gamma) | np.isnan(gamma))]
        _scatter(row[0], chosen)
        _boxes(row[1], chosen, _capacity(chosen), style.CAPACITY)
        _boxes(row[2], chosen, chosen[_length_axis(chosen)], style.DURATION)
        threshold = "" if np.isnan(gamma) else f", γ = {gamma:g}"
        row[0].set_ylabel(f"δ = {delta:g}{threshold}\n{AXES[NOTIONS[notion].quantity]}")
        for panel in row[1:]:
            panel.set_ylabel("")
    for panel in panels.flat:
        panel.set_xlabel("")
    labels = ("test accuracy", "weights and biases", "epochs of training")
    titles = ("accuracy and robustness", "capacity", "training length")
    for column, (title, label) in enumerate(zip(titles, labels, strict=True)):
        panels[0][column].set_title(title, loc="left")
        panels[-1][column].set_xlabel(label)
    _legend(panels[0][0], shown)
    return figure


def _scatter(panel: Axes, chosen: pd.DataFrame) -> None:
    for (method, architecture), members in chosen.groupby(["method", "architecture"], sort=False):
        colour = style.colour(method, architecture)
        panel.scatter(
            members["test_accuracy"],
            members["estimate"],
            s=14,
            marker=style.MARKS[architecture],
            color=colour,
            alpha=max(0.15, min(0.6, 150 / len(members))),
            linewidths=0,
        )
        if members["trajectory_id"].nunique() > 2 and members["test_accuracy"].nunique() > 2:
            sns.regplot(
                x=members["test_accuracy"].to_numpy(),
                y=members["estimate"].to_numpy(),
                units=members["trajectory_id"].to_numpy(),
                seed=0,
                n_boot=500,
                scatter=False,
                truncate=True,
                color=colour,
                ax=panel,
            )
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    low, high = chosen["estimate"].min(), chosen["estimate"].max()
    room = max(0.05 * (high - low), 0.01)
    panel.set_ylim(max(low - room, -0.03), min(high + room, 1.03))
    # The scale of the guarantee, at the left edge where few networks lie.
    epsilon = chosen["epsilon"].iloc[0]
    centre = np.mean(panel.get_ylim())
    panel.errorbar(
        [0.02], [centre], yerr=epsilon, transform=panel.get_yaxis_transform(), color="0.45", capsize=3, linewidth=1.2
    )


def _boxes(panel: Axes, chosen: pd.DataFrame, by: pd.Series, shades: tuple[str, str]) -> None:
    architectures = chosen["architecture"].map(style.NAMES)
    sns.boxplot(
        x=by,
        y=chosen["estimate"],
        hue=architectures,
        palette={style.NAMES[one]: shades[0 if one == "fcn" else 1] for one in style.NAMES},
        hue_order=[name for name in style.NAMES.values() if name in set(architectures)],
        gap=0.1,
        linewidth=0.8,
        fliersize=1.5,
        ax=panel,
    )
    panel.grid(axis="x", visible=False)
    if by.dtype == "category":
        panel.tick_params(axis="x", labelrotation=35)
    if panel.get_subplotspec().is_first_row():
        sns.move_legend(panel, title=None, **LEGEND_PLACE)
    else:
        panel.get_legend().remove()


def _capacity(chosen: pd.DataFrame) -> pd.Series:
    """The number of parameters in quantile bins, each labelled by its range."""
    parameters = chosen["parameters"]
    edges = np.unique(np.quantile(parameters, np.linspace(0, 1, CAPACITY_BINS + 1)))
    bins = pd.cut(parameters, [-np.inf, *edges[1:-1], np.inf])
    ranges = parameters.groupby(bins, observed=True).agg(["min", "max"])
    bins = bins.cat.set_categories(ranges.index)
    labels = [_range(low, high, _thousands) for low, high in ranges.itertuples(index=False)]
    if len(set(labels)) < len(labels):
        labels = [_range(low, high, "{:,}".format) for low, high in ranges.itertuples(index=False)]
    return bins.cat.rename_categories(labels)


def _range(low: int, high: int, spoken: Callable[[int], str]) -> str:
    return spoken(low) if low == high else f"{spoken(low)}–{spoken(high)}"


def _thousands(count: int) -> str:
    return f"{count / 1e6:.2g}M" if count >= 1e6 else f"{count / 1e3:.0f}k"


def _length_axis(chosen: pd.DataFrame) -> str:
    """The axis along the trajectories of these networks: epochs for SGD, posterior samples for HMC."""
    method, architecture = chosen[["method", "architecture"]].iloc[0]
    return GRIDS[f"{architecture}-{method}"].ALONG


def _legend(panel: Axes, shown: pd.DataFrame) -> None:
    kinds = shown[["method", "architecture"]].drop_duplicates().itertuples(index=False)
    handles = [
        Line2D(
            [],
            [],
            marker=style.MARKS[architecture],
            color=style.colour(method, architecture),
            label=f"{style.NAMES[architecture]}, {method.upper()}",
        )
        for method, architecture in kinds
    ]
    panel.legend(handles=handles, **LEGEND_PLACE)


def _save(figure: Figure, name: str, shown: pd.DataFrame, folder: Path) -> None:
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        with written_whole(folder / f"{name}.{kind}") as path:
            figure.savefig(path, metadata=metadata)
    plt.close(figure)
    axes = [axis for axis in all_axes() if shown[axis].notna().any()]
    columns = [*tables.IDENTITY, *axes, "parameters", "test_accuracy", *list(tables.ROBUSTNESS)[1:]]
    tables.write_csv(shown[columns], folder / f"{name}.csv")
