"""What pruning does to robustness and accuracy, in the form of paper 004's Figure 3.

One figure per data set and notion, one row per δ (and γ): pruned networks among the unpruned ones, and the measure over
the share of weights removed; beside them, accuracy over that share. Share 0 are the dense trunks.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def draw(name: str, plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``pruning_DATASET_NOTION`` to `folder` as PNG, SVG and CSV.

    Of several attacks one is shown (``judged``), and never a certificate: see there.
    """
    _, dataset, notion = asked(name)
    there = (networks["dataset"] == dataset) & asked_of(plan, networks, notion)
    pruned = there & (networks["method"] == "imp")
    unpruned = there & (networks["method"] == "sgd") & networks["architecture"].isin(networks["architecture"][pruned])
    planned = networks[pruned | unpruned]
    shown = judged(measured[measured["network_id"].isin(planned["network_id"]) & (measured["notion"] == notion)])
    drawable = (shown["method"] == "imp").any()
    remark = "Each pruned network is also compared with its own dense trunk: tables/pruning.csv."
    figure = _panels(shown) if drawable else empty()
    title = f"{dataset}: pruning and {NOTIONS[notion].title}"
    told = readings.pruning([chosen for _, chosen in levels(shown)]) if drawable else readings.NOTHING
    finish(figure, name, title, caption(shown, planned, remark), numbers(shown), folder, told)


def _panels(shown: pd.DataFrame) -> Figure:
    rows = levels(shown)
    layout = [["legend"] * 3, *([f"scatter {row}", f"share {row}", "accuracy"] for row in range(len(rows)))]
    figure, panels = plt.subplot_mosaic(
        layout,
        figsize=(9.2, 2.5 * len(rows) + 1.2),
        width_ratios=[2, 1.35, 1.35],
        height_ratios=[LEGEND] + [1] * len(rows),
        layout="constrained",
    )
    for index, (label, chosen) in enumerate(rows):
        left, right = panels[f"scatter {index}"], panels[f"share {index}"]
        scatter(left, chosen)
        boxes(right, chosen, "estimate", "trunk_estimate")
        right.sharey(left)
        left.set_ylabel(label)
        if index < len(rows) - 1:
            left.tick_params(labelbottom=False)
            right.tick_params(labelbottom=False)
    boxes(panels["accuracy"], rows[0][1], "test_accuracy", "trunk_accuracy")
    panels["accuracy"].yaxis.set_major_formatter(style.PERCENT)
    panels["scatter 0"].set_title("trade-off", loc="left")
    panels["share 0"].set_title("measure by share removed", loc="left")
    panels["accuracy"].set_title("accuracy by share removed", loc="left")
    panels[f"scatter {len(rows) - 1}"].set_xlabel("test accuracy")
    for name in (f"share {len(rows) - 1}", "accuracy"):
        panels[name].set_xlabel("share of weights removed")
    legend_above(panels["legend"], kinds(shown))
    return figure


def boxes(panel: Axes, chosen: pd.DataFrame, value: str, trunk: str) -> None:
    """Box plots of a column over the share of weights removed; share 0 are the dense trunks, by the column `trunk`."""
    pruned = chosen[chosen["method"] == "imp"]
    # A trunk counts once, however many networks were pruned from it.
    dense = pruned.drop_duplicates(["cluster", "epochs"]).assign(proportion=0.0, **{value: lambda one: one[trunk]})
    both = pd.concat([dense, pruned[pruned["proportion"] > 0]], ignore_index=True)
    removed = both["proportion"].map(lambda share: f"{100 * share:g} %")
    shades = {"0 %": style.colour("sgd", "fcn")}
    sns.boxplot(
        x=removed,
        y=both[value],
        order=[f"{100 * share:g} %" for share in sorted(both["proportion"].unique())],
        hue=removed,
        palette={name: shades.get(name, style.colour("imp", "cnn")) for name in removed.unique()},
        saturation=0.8,
        linewidth=0.8,
        fliersize=1.5,
        legend=False,
        ax=panel,
    )
    panel.set(xlabel="", ylabel="")
    panel.grid(axis="x", visible=False)
