"""Figures 1 to 4 of paper 004, composed as the paper composes them: a band per data set, a panel per measure.

Where a study asks for several δ's each panel shows one, the middle one of those asked of most networks: chosen by the
study file and not by the results. The figures per data set and notion show all of them.
"""

import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.patches import Patch

from deltaball.analysis import judges
from deltaball.analysis.judges import judged
from deltaball.base.guarantees import confidence_text
from deltaball.figures import bayes, convergence, pruning, readings, style, tradeoff
from deltaball.figures.panels import (
    PAPERS_NOTIONS,
    applies,
    asked_of,
    axis_label,
    caption,
    empty,
    finish,
    kinds,
    legend_above,
    levels,
    listed,
    numbers,
    scatter,
)
from deltaball.plan.plan import Plan
from deltaball.study.neighbourhoods import NORMS
from deltaball.study.notions import NOTIONS
from deltaball.study.objectives import DEFAULT

WIDTH = 9.2
# The paper shows its SGD networks under an attack so much weaker in the rightmost panel of Figure 4.
WEAKER = 10
# The paper does not say which measure that panel shows; the quantitative one comes first here.
WEAKENED = ("softmax_variation", "class_change", "variation_above")
MIDDLE = "Of several δ's asked for, the middle one is shown; the figures per data set and measure show all."

Level = tuple[str, float | None, float]  # norm, γ, δ


@dataclass(frozen=True)
class Column:
    """One panel, and the box plots beneath it: what is measured, the networks it would show, and their rows."""

    title: str
    axis: str
    planned: pd.DataFrame
    shown: pd.DataFrame


def figure1(name: str, plan: Plan, draws: pd.DataFrame, spread: pd.DataFrame, folder: Path) -> None:
    """Estimates over ε, and the test points that each ε needs: by the exact answer, else by the strongest attack."""
    judge = spread["certificate"].where(judges.decides(spread["certificate"]), spread["attack"])
    keys = ["experiment", "network_id", "notion", "norm", "delta", "gamma", "epsilon"]
    shown = judges.strongest(spread.assign(judge=judge).dropna(subset="judge"), "judge", keys)
    drawn = shown.merge(draws[[*convergence.KEYS, "draw", "estimate"]], on=convergence.KEYS)
    count = len(shown[["experiment", "network_id"]].drop_duplicates())
    note = f"{count} of {sum(len(one.networks) for one in plan.experiments)} planned networks"
    if shown.empty:
        finish(empty(), name, "Convergence", f"{note}: nothing is measured yet.", drawn, folder, readings.NOTHING)
        return
    panels = [
        (of_network.iloc[0], label.split("\n"), chosen)
        for _, of_network in shown.groupby(["experiment", "network_id"], sort=False)
        for label, chosen in levels(of_network)
    ]
    columns = min(convergence.COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 3.1 * rows + 0.7), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (first, (ball, quantity), chosen) in zip(axes.flat, panels, strict=False):
        convergence.estimates(axis, chosen, drawn)
        by = judges.display_name(chosen["judge"].iloc[0])
        kind = style.NAMES[first["architecture"]]
        axis.set_title(f"{first['dataset']}, {kind}: {NOTIONS[first['notion']].title}, {ball}, by {by}", loc="left")
        axis.set(xlabel="error tolerance ε", ylabel=quantity)
        axis.tick_params(labelbottom=True)
    note += (
        f". Each dot is the estimate from one of {listed(shown['draws'], str)} draws of the N test points (red) that ε "
        f"needs with confidence {listed(shown['confidence'], confidence_text)} (Hoeffding). Shaded: ±ε around the "
        f"mean over all T = {listed(shown['test_points'], str)} test points. Draws overlap, the more the larger N: "
        "figures convergence_* say by how much that shrinks their scatter."
    )
    finish(figure, name, "Convergence of the estimates in ε", note, drawn, folder, readings.convergence(shown))


def figure2(name: str, plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """SGD networks: accuracy against each measure; beneath, each measure over capacity and over training length."""
    bands = {dataset: list(_columns(plan, alike, measured, {"sgd"})) for dataset, alike in _alike(networks, "sgd")}

    def draw(band: SubFigure, columns: list[Column]) -> None:
        grid = band.add_gridspec(2, 2 * len(columns), height_ratios=[1.7, 1])
        for index, column in enumerate(columns):
            above = _scattered(band, grid[0, 2 * index : 2 * index + 2], column, scatter)
            length = tradeoff.ordered(column.shown["epochs"])
            beneath = (tradeoff.capacity(column.shown), style.CAPACITY, "weights and biases")
            for side, (by, ends, label) in enumerate((beneath, (length, style.DURATION, "epochs"))):
                panel = band.add_subplot(grid[1, 2 * index + side], sharey=above)
                tradeoff.boxes(panel, column.shown, by, tradeoff.tones(column.shown, ends))
                _named(panel, label, labelled=side == 0)

    def handles(shown: pd.DataFrame) -> list[Artist]:
        boxed = ((style.CAPACITY, "over capacity"), (style.DURATION, "over training length"))
        return kinds(shown) + [Patch(color=dark, label=label) for (dark, _), label in boxed]

    _bands(name, "The trade-off of SGD networks", bands, draw, handles, MIDDLE, folder)


def figure3(name: str, plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """Pruned networks among the unpruned ones; beneath, each measure over the share removed; and accuracy over it."""
    bands = {
        dataset: list(_columns(plan, alike, measured, {"sgd", "imp"})) for dataset, alike in _alike(networks, "imp")
    }

    def draw(band: SubFigure, columns: list[Column]) -> None:
        grid = band.add_gridspec(2, len(columns) + 1, height_ratios=[1.7, 1], width_ratios=[*[1] * len(columns), 0.8])
        for index, column in enumerate(columns):
            above = _scattered(band, grid[0, index], column, scatter)
            if (column.shown["method"] == "imp").any():
                beneath = band.add_subplot(grid[1, index], sharey=above)
                pruning.boxes(beneath, column.shown, "estimate", "trunk_estimate")
                _named(beneath, "share of weights removed")
        if (columns[0].shown["method"] == "imp").any():
            panel = band.add_subplot(grid[:, -1])
            pruning.boxes(panel, columns[0].shown, "test_accuracy", "trunk_accuracy")
            panel.yaxis.set_major_formatter(style.PERCENT)
            panel.set_title("test accuracy", loc="left")
            _named(panel, "share of weights removed")

    remark = f"Share 0 are the dense trunks. {MIDDLE}"
    _bands(name, "Iterative magnitude pruning", bands, draw, kinds, remark, folder)


def figure4(name: str, plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """Bayesian beside SGD networks, at equal δ and with SGD networks attacked ten times weaker; and over capacity."""
    bands = {
        dataset: [*_columns(plan, alike, measured, {"sgd", "hmc"}), _weakened(plan, alike, measured)]
        for dataset, alike in _alike(networks, "hmc")
    }

    def draw(band: SubFigure, columns: list[Column]) -> None:
        grid = band.add_gridspec(2, len(columns), height_ratios=[1.7, 1])
        for index, column in enumerate(columns):
            if column.shown.empty:
                _absent(band, grid[:, index], column)
                continue
            shown = bayes.kinds(column.shown)
            above = _scattered(band, grid[0, index], column, lambda panel, _, shown=shown: bayes.scatter(panel, shown))
            beneath = band.add_subplot(grid[1, index], sharey=above)
            bayes.boxes(beneath, shown, tradeoff.capacity(shown))
            _named(beneath, "weights and biases")

    remark = f"In the right panels SGD networks are attacked at a tenth of δ, as in the paper. {bayes.REMARK} {MIDDLE}"
    _bands(name, "Bayesian and deterministic networks", bands, draw, bayes.handles, remark, folder)


def at_middle(plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, notion: str) -> pd.DataFrame:
    """The rows that these figures show of a notion: of each data set at its own middle δ."""
    parts = []
    for _, alike in networks.groupby("dataset", sort=False):
        asked = _levels(plan, alike, notion)
        if asked:
            parts.append(_at(measured, alike, notion, middle_level(asked)))
    return pd.concat(parts, ignore_index=True) if parts else measured.iloc[:0]


def _alike(networks: pd.DataFrame, method: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Per data set that a method trains on: its networks of that method's architectures, whatever their method.

    Of those trained to be robust the paper shows none.
    """
    trained = networks[networks["objective"] == DEFAULT]
    for dataset, of_dataset in trained.groupby("dataset", sort=False):
        architectures = of_dataset.loc[of_dataset["method"] == method, "architecture"].unique()
        if len(architectures):
            yield dataset, of_dataset[of_dataset["architecture"].isin(architectures)]


def _levels(plan: Plan, networks: pd.DataFrame, notion: str) -> dict[Level, int]:
    """Of how many networks attacks at each norm, γ and δ are asked, where of any."""
    asked: dict[Level, pd.Series] = {}
    for one in plan.measures:
        if one.notion == notion and one.attack:
            level = (one.norm, one.gamma, one.delta)
            asked[level] = applies(plan, one, networks) | asked.get(level, False)
    return {level: int(wanted.sum()) for level, wanted in asked.items() if wanted.any()}


def middle_level(asked: Mapping[Level, int]) -> Level:
    """The middle δ (of two, the larger) of those asked of most networks, in the first norm and at the first γ."""
    most = max(asked.values())
    norm, gamma, _ = next(level for level, count in asked.items() if count == most)
    deltas = sorted(level[2] for level, count in asked.items() if count == most and level[:2] == (norm, gamma))
    return norm, gamma, deltas[len(deltas) // 2]


def _columns(plan: Plan, alike: pd.DataFrame, measured: pd.DataFrame, methods: set[str]) -> Iterator[Column]:
    """A column per notion that is asked of at least half as many networks of a data set (`alike`) as any is.

    Of the paper's notions; where the study asks for none of them, of the first others.
    """
    asked = {notion: found for notion in NOTIONS if (found := _levels(plan, alike, notion))}
    chosen = [notion for notion in PAPERS_NOTIONS if notion in asked] or [*asked][: len(PAPERS_NOTIONS)]
    counts = {notion: max(asked[notion].values()) for notion in chosen}
    for notion, count in counts.items():
        if 2 * count >= max(counts.values()):
            found = asked[notion]
            level = middle_level(found)
            wanted = alike[alike["method"].isin(methods) & asked_of(plan, alike, notion)]
            shown = _at(measured, wanted, notion, level)
            yield Column(_title(notion, level), axis_label(notion), wanted, shown)


def _weakened(plan: Plan, alike: pd.DataFrame, measured: pd.DataFrame) -> Column:
    """Bayesian networks at δ and SGD networks at a tenth of it, for the first notion of which the study has both."""
    for notion in WEAKENED:
        asked = _levels(plan, alike, notion)
        if not asked:
            continue
        norm, gamma, delta = middle_level(asked)
        weaker = next((one for one in asked if one[:2] == (norm, gamma) and isclose(one[2] * WEAKER, delta)), None)
        if weaker is None:
            continue
        wanted = alike[alike["method"].isin({"sgd", "hmc"}) & asked_of(plan, alike, notion)]
        parts = [
            _at(measured, wanted[wanted["method"] == method], notion, level)
            for method, level in (("hmc", (norm, gamma, delta)), ("sgd", weaker))
        ]
        title = f"SGD at δ = {weaker[2]:g}, HMC at {delta:g}"
        return Column(title, axis_label(notion), wanted, pd.concat(parts, ignore_index=True))
    return Column("SGD at a tenth of δ", "", alike.iloc[:0], measured.iloc[:0])


def _at(measured: pd.DataFrame, networks: pd.DataFrame, notion: str, level: Level) -> pd.DataFrame:
    norm, gamma, delta = level
    alike = (measured["notion"] == notion) & (measured["norm"] == norm) & (measured["delta"] == delta)
    alike &= measured["gamma"].isna() if gamma is None else measured["gamma"] == gamma
    return judged(measured[alike & measured["network_id"].isin(networks["network_id"])])


def _title(notion: str, level: Level) -> str:
    norm, gamma, delta = level
    ball = "" if norm == "linf" else f"{NORMS[norm]}, "
    return f"{NOTIONS[notion].shortly(gamma)}, {ball}δ = {delta:g}"


def _bands(
    name: str,
    title: str,
    bands: dict[str, list[Column]],
    draw: Callable[[SubFigure, list[Column]], None],
    handles: Callable[[pd.DataFrame], list[Artist]],
    remark: str,
    folder: Path,
) -> None:
    """Draw a band per data set of which anything is measured, and write the figure."""
    there = {dataset: columns for dataset, columns in bands.items() if any(len(one.shown) for one in columns)}
    planned = pd.concat([one.planned for columns in bands.values() for one in columns]).drop_duplicates("network_id")
    parts = [one.shown.assign(panel=one.title) for columns in there.values() for one in columns if len(one.shown)]
    nothing = pd.DataFrame(columns=["network_id"])
    shown = pd.concat(parts, ignore_index=True) if parts else nothing
    if shown.empty:
        finish(empty(), name, title, caption(shown, planned), shown, folder, readings.NOTHING)
        return
    figure = plt.figure(figsize=(WIDTH, 4.1 * len(there) + 1.2), layout="constrained")
    rows = figure.subfigures(len(there) + 1, height_ratios=[0.16, *[4.1] * len(there)], squeeze=False)[:, 0]
    legend_above(rows[0].add_subplot(), handles(shown))
    for band, (dataset, columns) in zip(rows[1:], there.items(), strict=True):
        band.suptitle(dataset, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
        draw(band, columns)
    told = readings.trends(part for _, part in shown.groupby(["dataset", "panel"], sort=False))
    note = caption(shown, planned, remark)
    finish(figure, name, title, note, numbers(shown).join(shown["panel"]), folder, told)


def _scattered(band: SubFigure, place: Any, column: Column, scatter: Callable[[Axes, pd.DataFrame], None]) -> Axes:
    panel = band.add_subplot(place)
    if len(column.shown):
        scatter(panel, column.shown)
    panel.set_title(column.title, loc="left")
    panel.set(xlabel="test accuracy", ylabel=column.axis)
    return panel


def _named(panel: Axes, label: str, labelled: bool = True) -> None:
    """The axes of box plots, which stand beneath a scatter panel whose y axis they share."""
    panel.set(xlabel=label, ylabel="")
    panel.tick_params(axis="x", labelsize=7)
    panel.tick_params(labelleft=labelled)


def _absent(band: SubFigure, place: Any, column: Column) -> None:
    panel = band.add_subplot(place)
    panel.set_axis_off()
    panel.set_title(column.title, loc="left")
    reason = "The paper attacked SGD networks at a tenth of δ, which this study does not. It would with a measure of "
    text = "\n".join(textwrap.wrap(f"{reason}{{method: sgd}} alone, at δ/10.", 26))
    panel.text(0, 0.92, text, va="top", color="0.4", transform=panel.transAxes)
