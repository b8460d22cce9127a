"""How estimates close in as ε falls and N grows, in the form of paper 004's Figure 1.

One figure per data set, one panel per network (and ball): the estimates of many draws of N test points, the ±ε that was
promised around the mean over all test points, and N. Beneath it, how far the draws scatter and how far they should.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deltaball.analysis import judges
from deltaball.analysis.convergence import KEYS
from deltaball.base.guarantees import confidence_text
from deltaball.figures import readings, style
from deltaball.figures.panels import empty, finish, legend_above, levels, limits, listed
from deltaball.plan.plan import Plan
from deltaball.study.notions import NOTIONS

COLUMNS = 2
DASHES = (0, (3, 2))
JITTER = 0.618034  # of successive draws: spreads any number of them evenly


def draw(name: str, plan: Plan, draws: pd.DataFrame, spread: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``convergence_DATASET`` to `folder` as PNG, SVG and CSV."""
    dataset = name.partition("_")[2]
    shown = spread[spread["dataset"] == dataset]
    experiments = [[one for one in each.networks if one.dataset == dataset] for each in plan.experiments]
    planned = sum(map(len, experiments))
    count = f"{len(shown[['experiment', 'network_id']].drop_duplicates())} of {planned} planned networks"
    drawn = shown.merge(draws[[*KEYS, "draw", "estimate"]], on=KEYS)
    figure = _panels(shown, drawn) if len(shown) else empty()
    note = f"{count}. {_caption(shown)}" if len(shown) else f"{count}: nothing is measured yet."
    told = readings.convergence(shown) if len(shown) else readings.NOTHING
    finish(figure, name, f"{dataset}: how estimates close in as ε falls", note, drawn, folder, told)


def _caption(shown: pd.DataFrame) -> str:
    last = shown.loc[shown["samples"].idxmax()]
    fewest = int(shown["draws"].min())
    every = shown["within_epsilon"].min() == 1
    within = "every draw" if every else f"at least {100 * shown['within_epsilon'].min():.0f} % of the draws"
    known = 100 * 1.96 / np.sqrt(2 * (fewest - 1))
    return (
        f"Each dot is the estimate from one of {listed(shown['draws'], str)} draws of the N test points that ε needs "
        f"with confidence {listed(shown['confidence'], confidence_text)} (Hoeffding; red). Shaded: ±ε around the "
        f"mean over all T = {listed(shown['test_points'], str)} test points, which holds {within} at each ε. Every "
        "side and network sees the same draws. Beneath: marks, the standard deviation of the draws; dashed, that of "
        "means of N independent points; solid, that of draws without replacement from the T points, which overlap: "
        f"it is smaller by √((T − N)/(T − 1)), {last['overlap_factor']:.2f} at N = {last['samples']}. The deviation "
        f"of {fewest} draws is itself known to about ±{known:.0f} %."
    )


def _panels(shown: pd.DataFrame, drawn: pd.DataFrame) -> Figure:
    found = [
        (network, *label.split("\n"), chosen)
        for (_, network), of_network in shown.groupby(["experiment", "network_id"], sort=False)
        for label, chosen in levels(of_network)
    ]
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    figure, panels = plt.subplots(
        2 * rows + 1,
        columns,
        figsize=(9.2, 4.3 * rows + 1.8),
        height_ratios=[0.2, *[3, 1.3] * rows],
        squeeze=False,
        layout="constrained",
    )
    for room in panels[0]:
        room.set_axis_off()
    legend_above(panels[0, 0], _handles(shown))
    for index in range(rows * columns):
        row, column = divmod(index, columns)
        above, beneath = panels[2 * row + 1, column], panels[2 * row + 2, column]
        if index >= len(found):
            above.set_axis_off()
            beneath.set_axis_off()
            continue
        network, ball, axis, chosen = found[index]
        first = chosen.iloc[0]
        above.set_title(
            f"{style.NAMES[first['architecture']]} {network}: {NOTIONS[first['notion']].title}, {ball}", loc="left"
        )
        above.set_ylabel(axis)
        estimates(above, chosen, drawn)
        _deviations(beneath, chosen)
    return figure


def _sides(chosen: pd.DataFrame) -> list[tuple[str, float, pd.DataFrame]]:
    """Each attack or certificate, where it stands beside an ε, and its rows in the order of falling ε."""
    sides = chosen.assign(by=chosen["attack"].fillna(chosen["certificate"]))
    names = sorted(sides["by"].unique(), key=judges.strength)
    step = 0.8 / len(names)
    return [
        (name, (index - (len(names) - 1) / 2) * step, sides[sides["by"] == name].sort_values("samples"))
        for index, name in enumerate(names)
    ]


def estimates(panel: Axes, chosen: pd.DataFrame, drawn: pd.DataFrame) -> None:
    """The draws of each side, ±ε around the mean over all test points, and N in red."""
    sides = _sides(chosen)
    for name, place, members in sides:
        colour, mark = style.judge(judges.entry(name).name)
        at, width = np.arange(len(members)) + place, 0.72 / len(sides)
        low = members["whole"] - members["reach"]
        panel.bar(at, 2 * members["reach"], width, low, color=colour, alpha=0.16, linewidth=0)
        panel.hlines(members["whole"], at - width / 2, at + width / 2, color=colour, linewidth=0.9)
        dots = drawn.merge(members[KEYS].assign(position=range(len(members))), on=KEYS)
        jitter = (dots["draw"] * JITTER % 1 - 0.5) * 0.85 * width
        panel.scatter(
            dots["position"] + place + jitter,
            dots["estimate"],
            s=7,
            marker=mark,
            color=colour,
            alpha=0.65,
            linewidths=0,
        )
    _epsilons(panel, members)
    low, high = ((chosen["whole"] + sign * chosen["reach"]) for sign in (-1, 1))
    panel.set_ylim(*limits(chosen, low.min(), high.max()))
    panel.tick_params(labelbottom=False)
    needed = panel.twinx()
    needed.plot(range(len(members)), members["samples"], color=style.SAMPLES, linewidth=1.2, marker=".", markersize=5)
    needed.set_ylim(0, 1.08 * members["samples"].max())
    needed.set_ylabel("N, test points needed", color=style.SAMPLES)
    needed.tick_params(axis="y", colors=style.SAMPLES)
    needed.grid(visible=False)


def _deviations(panel: Axes, chosen: pd.DataFrame) -> None:
    for name, place, members in _sides(chosen):
        colour, mark = style.judge(judges.entry(name).name)
        at = np.arange(len(members)) + place / 2
        panel.plot(at, members["sd_independent"], color=colour, linewidth=1, linestyle=DASHES)
        panel.plot(at, members["sd_expected"], color=colour, linewidth=1)
        panel.plot(at, members["sd"], color=colour, marker=mark, markersize=4, linestyle="", markeredgewidth=0)
    _epsilons(panel, members)
    panel.set_ylim(bottom=0)
    panel.set(xlabel="ε", ylabel="sd of the draws")


def _epsilons(panel: Axes, members: pd.DataFrame) -> None:
    panel.set_xticks(range(len(members)), [f"{epsilon:g}" for epsilon in members["epsilon"]])
    panel.set_xlim(-0.5, len(members) - 0.5)
    panel.grid(axis="x", visible=False)


def _handles(shown: pd.DataFrame) -> list[Artist]:
    handles: list[Artist] = []
    for side, sense in (("attack", "attacked"), ("certificate", "certified")):
        for name in sorted(shown[side].dropna().unique(), key=judges.strength):
            colour, mark = style.judge(judges.entry(name).name)
            known = judges.entry(name)
            label = known.name if known.says == "decides" else f"{sense}, {judges.display_name(name)}"
            handles.append(Line2D([], [], color=colour, marker=mark, linestyle="", markersize=5, label=label))
    handles.append(Line2D([], [], color=style.SAMPLES, linewidth=1.4, marker=".", label="N"))
    handles.append(Line2D([], [], color="0.3", linewidth=1, linestyle=DASHES, label="sd of independent points"))
    handles.append(Line2D([], [], color="0.3", linewidth=1, label="with the overlap"))
    return handles
