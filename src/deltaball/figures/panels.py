"""What several figures share: captions, scatter panels, legends, and how a figure is written."""

import textwrap
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
from deltaball.guarantees import spoken
from deltaball.store import written_whole
from deltaball.study import NOTIONS, all_axes

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


def asked(name: str) -> tuple[str, str, str]:
    """Kind, data set and notion of figure ``KIND_DATASET_NOTION``."""
    kind, _, rest = name.partition("_")
    notion = next(one for one in NOTIONS if rest.endswith(f"_{one}"))
    return kind, rest.removesuffix(f"_{notion}"), notion


def levels(shown: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of a figure: each δ (and γ) that is shown, its label, and its estimates."""
    pairs = shown[["delta", "gamma"]].drop_duplicates().sort_values(["delta", "gamma"])
    found = []
    for delta, gamma in pairs.itertuples(index=False):
        threshold = "" if np.isnan(gamma) else f", γ = {gamma:g}"
        label = f"δ = {delta:g}{threshold}\n{AXES[NOTIONS[shown['notion'].iloc[0]].quantity]}"
        found.append((label, shown[(shown["delta"] == delta) & ((shown["gamma"] == gamma) | np.isnan(gamma))]))
    return found


def caption(shown: pd.DataFrame, planned: pd.DataFrame, remark: str = "") -> str:
    """What a reader must know to judge a figure: attack, δ, ε, confidence, N, and how many networks it shows.

    `planned` are the networks that the finished study would show.
    """
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
        f"input distribution, with confidence {spoken(first['confidence'])} (N = {first['samples']} test points, "
        "Hoeffding; the grey bar is ±ε). Lines: least squares with 95 % bands from a bootstrap over independent "
        f"trainings. {remark}"
    ).strip()


def scatter(panel: Axes, chosen: pd.DataFrame) -> None:
    """Accuracy against the estimate, a mark per network and a trend per method × architecture."""
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
        if members["cluster"].nunique() > 2 and members["test_accuracy"].nunique() > 2:
            sns.regplot(
                x=members["test_accuracy"].to_numpy(),
                y=members["estimate"].to_numpy(),
                units=members["cluster"].to_numpy(),
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


def legend(panel: Axes, shown: pd.DataFrame) -> None:
    """Which mark and colour is which method and architecture."""
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


def empty() -> Figure:
    """A figure of which nothing is measured yet: room for title and caption."""
    return plt.figure(figsize=(9.2, 1.0), layout="constrained")


def finish(figure: Figure, name: str, title: str, note: str, shown: pd.DataFrame, folder: Path) -> None:
    """Title and caption a figure, and write it as PNG, SVG, and the CSV of what it shows."""
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    figure.supxlabel("\n".join(textwrap.wrap(note, 150)), x=0.01, ha="left", fontsize=8)
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        with written_whole(folder / f"{name}.{kind}") as path:
            figure.savefig(path, metadata=metadata)
    plt.close(figure)
    axes = [axis for axis in all_axes() if shown[axis].notna().any()]
    columns = [*tables.IDENTITY, *axes, "parameters", "test_accuracy", *list(tables.ROBUSTNESS)[1:]]
    tables.write_csv(shown[columns], folder / f"{name}.csv")
