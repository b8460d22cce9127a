"""The figures of paper 001: constraint security over the radius of the ball, by training and by definition.

A band per data set, a panel per constraint or per training, a line per training or per constraint. Lines are means over
independent trainings; bands reach from the least to the most robust of them. The paper's Figures 2 to 14 are panels of
these four.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from deltaball.analysis.judges import judged
from deltaball.analysis.metrics import METRICS, described, metrics
from deltaball.analysis.trainings import BASELINE, in_order, title
from deltaball.figures import readings, style
from deltaball.figures.panels import applies, caption, empty, finish, legend_above, numbers
from deltaball.plan.plan import Plan
from deltaball.study.constraints import CONSTRAINTS
from deltaball.study.neighbourhoods import NORMS
from deltaball.study.notions import NOTIONS

WIDTH, HEIGHT, LEGEND_LINE = 9.2, 2.5, 0.24
LEGEND_COLUMNS = 4
SIDE_BY_SIDE = 5  # panels
TRAINED = "constrained_"
# Of which trainings the paper's Figures 2 and 12 to 14 compare attacks.
ATTACKED = ("adversarial_standard_robustness", TRAINED + "standard_robustness", TRAINED + "lipschitz_robustness")
REMARK = "Lines: means over independent trainings; bands: from the least to the most robust of them."
ROW = 0.24  # inches, of a training in the figure of the three metrics


def trainings(name: str, plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """Data augmentation, adversarial training and constraint loss under each attack (Figures 4 to 7)."""
    wanted = [one for one in in_order(_secured(measured)["training"]) if _compared(one)]
    _over_radius(
        name, "Augmentation, adversarial training and constraint loss", plan, networks, measured, folder, wanted
    )


def constraints(name: str, plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """Different choices of a constraint loss under each attack (Figures 3 and 8 to 10)."""
    there = in_order(_secured(measured)["training"])
    wanted = [one for one in there if one == BASELINE or one.startswith(TRAINED)]
    _over_radius(name, "Different choices of a constraint loss", plan, networks, measured, folder, wanted)


def attacks(name: str, plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """How networks of each training stand against the different definitions of robustness (Figures 2, 12 to 14)."""
    rows = _smallest(_secured(measured))
    there = in_order(rows["training"])
    wanted = [one for one in ATTACKED if one in there] or [one for one in there if one != BASELINE][:SIDE_BY_SIDE]
    levels = _levels(rows[rows["training"].isin(wanted)])
    rows = pd.concat([members.assign(constraint_of_attack=label) for label, members in levels.items()] or [rows])
    panels = {title(one): rows[rows["training"] == one] for one in wanted}
    looks = dict(zip(levels, itertools.cycle(style.CONSTRAINTS), strict=False))
    heading = "Attacks by different definitions of robustness"
    _bands(name, heading, plan, networks, panels, "constraint_of_attack", looks, folder)


def sizes(name: str, plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """The trainings in the paper's network and in larger ones, under attacks by SCR (Figure 11)."""
    rows = _secured(measured)
    scr = rows[rows["notion"] == "strong_classification"]
    rows = scr if len(scr) else rows[rows["notion"] == rows["notion"].iloc[0]] if len(rows) else rows
    networks_there = rows.drop_duplicates("network").sort_values("parameters")["network"]
    panels = {one: rows[rows["network"] == one] for one in networks_there}
    what = NOTIONS[rows["notion"].iloc[0]].short_title if len(rows) else "SCR"
    _bands(name, f"Larger networks, attacked by {what}", plan, networks, panels, "training", _looks(rows), folder)


def _compared(training: str) -> bool:
    return not training.startswith(TRAINED) or training == TRAINED + "standard_robustness"


def _secured(measured: pd.DataFrame) -> pd.DataFrame:
    """Rows of attacks by constraints, in balls of some size, of each training its longest."""
    families = measured["notion"].map(lambda one: NOTIONS[one].family)
    rows = judged(measured[families.isin(CONSTRAINTS) & (measured["delta"] > 0)])
    return described(rows)


def _smallest(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each data set's network that has most trainings, and of such the smallest: the paper's."""
    kept = []
    for _, members in rows.groupby("dataset", sort=False):
        kinds = members.groupby("network").agg(count=("training", "nunique"), parameters=("parameters", "first"))
        first = kinds.sort_values(["count", "parameters"], ascending=[False, True]).index[0]
        kept.append(members[members["network"] == first])
    return pd.concat(kept) if kept else rows


def _constraint_names(rows: pd.DataFrame) -> list[str]:
    there = set(rows["notion"])
    order = ("standard_robustness", "lipschitz_robustness", "strong_classification", "classification")
    return sorted(there, key=lambda one: (order.index(NOTIONS[one].family), one))


def _levels(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A panel per constraint and threshold."""
    panels = {}
    for notion in _constraint_names(rows):
        for gamma, members in rows[rows["notion"] == notion].groupby("gamma", dropna=False):
            panels[NOTIONS[notion].shortly(gamma)] = members
    return panels


def _looks(rows: pd.DataFrame) -> dict[str, str]:
    """The colour of each training."""
    return {one: style.TRAININGS.get(one, style.OTHER_TRAINING) for one in in_order(rows["training"])}


def _over_radius(
    name: str,
    heading: str,
    plan: Plan,
    networks: pd.DataFrame,
    measured: pd.DataFrame,
    folder: Path,
    wanted: Sequence[str],
) -> None:
    """A panel per constraint, a line per training."""
    rows = _smallest(_secured(measured))
    rows = rows[rows["training"].isin(wanted)]
    _bands(name, heading, plan, networks, _levels(rows), "training", _looks(rows), folder)


def _bands(
    name: str,
    heading: str,
    plan: Plan,
    networks: pd.DataFrame,
    panels: dict[str, pd.DataFrame],
    by: str,
    looks: dict[str, str],
    folder: Path,
) -> None:
    """A band per data set with the panels in it, and the file of the figure."""
    panels = {label: rows for label, rows in panels.items() if len(rows)}
    if not panels:
        finish(empty(), name, heading, "Nothing is measured yet.", networks.iloc[:0], folder, readings.NOTHING)
        return
    shown = pd.concat([rows.assign(panel=label) for label, rows in panels.items()], ignore_index=True)
    datasets = list(shown["dataset"].unique())
    handles = [_handle(colour, title(one)) for one, colour in looks.items()]
    lines = -(-len(handles) // LEGEND_COLUMNS)
    heights = [LEGEND_LINE * lines, *[HEIGHT] * len(datasets)]
    figure = plt.figure(figsize=(WIDTH, sum(heights) + 0.9), layout="constrained")
    rows_of_panels = figure.subfigures(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    legend_above(rows_of_panels[0].add_subplot(), handles, LEGEND_COLUMNS)
    for band, dataset in zip(rows_of_panels[1:], datasets, strict=True):
        band.suptitle(dataset, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
        axes = band.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for panel, (label, members) in zip(axes, panels.items(), strict=True):
            _lines(panel, members[members["dataset"] == dataset], by, looks)
            panel.set_title(label, loc="left", fontsize=8.5)
            panel.set(xlabel="radius δ of the ball", ylabel="")
            panel.label_outer()
        axes[0].set_ylabel("constraint security")
    note = caption(shown, _planned(plan, networks, shown), REMARK, lines=False)
    csv = numbers(shown).join(shown[["panel", "training"]])
    finish(figure, name, heading, note, csv, folder, _reading(shown, by))


def _lines(panel: Axes, members: pd.DataFrame, by: str, looks: dict[str, str]) -> None:
    for kind, colour in looks.items():
        of_kind = members[members[by] == kind]
        if of_kind.empty:
            continue
        over = of_kind.groupby("delta")["estimate"].agg(["mean", "min", "max"])
        panel.plot(over.index, over["mean"], color=colour, marker="o", markersize=3.5, clip_on=False)
        panel.fill_between(over.index, over["min"], over["max"], color=colour, alpha=0.18, linewidth=0)
    panel.set_ylim(-0.03, 1.03)


def _handle(colour: str, label: str) -> Artist:
    return Line2D([], [], color=colour, marker="o", markersize=3.5, label=label)


def _planned(plan: Plan, networks: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """The networks that the finished study would show: those of the same trainings and shapes."""
    wanted = pd.Series(False, networks.index)
    for one in plan.measures:
        if one.attack and NOTIONS[one.notion].family in CONSTRAINTS:
            wanted |= applies(plan, one, networks)
    there = described(networks[wanted].assign(cluster=networks["trajectory_id"]))
    return there[there["training"].isin(shown["training"]) & there["network"].isin(shown["network"])]


def _reading(shown: pd.DataFrame, by: str) -> str:
    """Between which trainings, or definitions, security lies in each panel, at the largest radius trained for."""
    radii = shown["delta"][shown["delta"].isin(shown["radius"])]
    delta = (shown["delta"] if radii.empty else radii).max()
    told = []
    for dataset, of_dataset in shown[shown["delta"] == delta].groupby("dataset", sort=False):
        means = of_dataset.groupby(["panel", by], sort=False)["estimate"].mean()
        ends = [(panel, of_panel.droplevel(0)) for panel, of_panel in means.groupby(level=0, sort=False)]
        apart = [
            f"{panel}: {one.min():.2f} ({title(one.idxmin())}) to {one.max():.2f} ({title(one.idxmax())})"
            for panel, one in ends
            if one.max() > one.min()
        ]
        told += [f"{dataset}: {'; '.join(apart)}."] if apart else []
    at = f"Security at δ = {delta:g}"
    return f"{at}. {' '.join(told)}" if told else f"{at} is the same for all lines of a panel."


def three_metrics(name: str, networks: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """The three metrics of one data set's trainings: a band per network and radius, a panel per constraint."""
    dataset = name.partition("_")[2]
    families = measured["notion"].map(lambda one: NOTIONS[one].family)
    rows = metrics(measured[(measured["dataset"] == dataset) & families.isin(CONSTRAINTS) & (measured["delta"] > 0)])
    # A radius at which one metric alone is measured is in the other figures.
    several = rows[list(METRICS)].notna().sum(axis=1).groupby(rows["delta"]).transform("max") > 1
    rows = rows[several] if several.any() else rows
    heading = f"Constraint security, accuracy and satisfaction: {dataset}"
    if rows.empty:
        finish(empty(), name, heading, "Nothing is measured yet.", rows, folder, readings.NOTHING)
        return
    situations = list(_situations(rows))
    heights = [LEGEND_LINE, *[ROW * members["training"].nunique() + 0.75 for _, members in situations]]
    figure = plt.figure(figsize=(WIDTH, sum(heights) + 0.9), layout="constrained")
    bands = figure.subfigures(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    legend_above(bands[0].add_subplot(), _metric_handles(), LEGEND_COLUMNS)
    columns = list(_levels(rows))
    for band, (label, members) in zip(bands[1:], situations, strict=True):
        band.suptitle(label, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
        axes = band.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        order = in_order(members["training"])
        levels = _levels(members)
        for panel, column in zip(axes, columns, strict=True):
            _marks(panel, levels.get(column, members.iloc[:0]), order)
            panel.set_title(column, loc="left", fontsize=8.5)
        axes[0].set_yticks(range(len(order)), [title(one) for one in order])
    note = (
        "Means over independent trainings. Grey: between what certificates prove (satisfaction) and what attacks leave "
        "(security), where the truth lies. Accuracy is the share of random images of the ball, and says nothing of the "
        "worst. Where a mark is missing, the study does not measure it."
    )
    finish(figure, name, heading, note, rows, folder, _metrics_reading(rows))


def _situations(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    balls = {norm: "" if norm == "linf" else f"{label} " for norm, label in NORMS.items()}
    for network, of_network in rows.groupby("network", sort=False):
        for (norm, delta), members in of_network.groupby(["norm", "delta"]):
            yield f"{network}, {balls[norm]}δ = {delta:g}", members


def _marks(panel: Axes, members: pd.DataFrame, order: Sequence[str]) -> None:
    places = {training: place for place, training in enumerate(order)}
    for row in members.itertuples():
        place = places[row.training]
        if not pd.isna(row.security) and not pd.isna(row.satisfaction):
            panel.plot([row.satisfaction, row.security], [place, place], color="0.8", linewidth=5, zorder=1)
        for name in METRICS:
            panel.plot(getattr(row, name), place, **style.METRICS[name], clip_on=False, zorder=3)
    panel.set_xlim(-0.03, 1.03)
    panel.set_ylim(len(order) - 0.4, -0.6)
    panel.grid(axis="y", color="0.93")


def _metric_handles() -> list[Artist]:
    handles = [Line2D([], [], linestyle="", **style.METRICS[name], label=name) for name in METRICS]
    return [*handles, Patch(color="0.8", label="neither proven nor attacked")]


def _metrics_reading(rows: pd.DataFrame) -> str:
    """How far the three metrics are apart, over all trainings and constraints."""
    told = [f"{name} {rows[name].min():.2f} to {rows[name].max():.2f}" for name in METRICS if rows[name].notna().any()]
    return f"Over all trainings, constraints and radii: {', '.join(told)}." if told else ""
