"""Networks under corruptions: a heat map of kinds of networks × corruptions, and curves over severities."""

import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from deltaball.analysis.corruptions import MEAN
from deltaball.base.guarantees import confidence_text, epsilon_reached
from deltaball.figures import readings, style
from deltaball.figures.distances import LINES, arranged
from deltaball.figures.panels import applies, empty, finish, listed
from deltaball.plan.plan import Plan
from deltaball.study.corruptions import CORRUPTIONS, SEVERITIES

COLUMN, ROW, NAMES = 0.46, 0.3, 2.2  # inches
WHITE = 0.55  # below it, numbers are white on dark
TITLES = {"agreement": "agreement with the clean prediction", "accuracy": "accuracy"}


def heat_map(name: str, plan: Plan, networks: pd.DataFrame, corrupted: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``corruptions_DATASET`` to `folder` as PNG, SVG and CSV."""
    shown = rows_of(name, corrupted)
    shown = shown[shown["usual"].astype(bool)].reset_index(drop=True)
    figure = _map(shown) if len(shown) else empty()
    told = readings.corruptions(shown) if len(shown) else readings.NOTHING
    remark = "Each cell is the mean over the networks of a kind, at MNIST-C's severity."
    note = noted(name, plan, networks, shown, remark)
    finish(figure, name, f"{dataset_of(name)}: under corruptions", note, shown, folder, told)


def severities(name: str, plan: Plan, networks: pd.DataFrame, corrupted: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``severities_DATASET`` to `folder` as PNG, SVG and CSV."""
    shown = rows_of(name, corrupted)
    several = shown.groupby(["quantity", "corruption", "kind"])["severity"].transform("nunique") > 1
    shown = shown[several].reset_index(drop=True)
    figure = _curves(shown) if len(shown) else empty()
    told = readings.severities(shown) if len(shown) else readings.NOTHING
    remark = "Lines are means over the networks of a kind; shaded: from the lowest interval to the highest."
    note = noted(name, plan, networks, shown, remark)
    finish(figure, name, f"{dataset_of(name)}: over severities", note, shown, folder, told)


def dataset_of(name: str) -> str:
    """The data set of a figure ``WHAT_DATASET``."""
    return name.partition("_")[2]


def rows_of(name: str, corrupted: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table `corruptions` that a figure is of."""
    return corrupted[corrupted["dataset"] == dataset_of(name)]


def noted(name: str, plan: Plan, networks: pd.DataFrame, shown: pd.DataFrame, remark: str) -> str:
    """What stands below a figure of corruptions: of how many networks and points it is, and whose images these are."""
    alike = networks[networks["dataset"] == dataset_of(name)]
    wanted = pd.Series(False, alike.index)
    for one in plan.measures:
        if one.corrupts:
            wanted |= applies(plan, one, alike)
    count = f"{shown['network_id'].nunique():,} of {int(wanted.sum()):,} planned networks"
    if shown.empty:
        return f"{count}: nothing is measured yet."
    half = [epsilon_reached(*row) for row in shown[["samples", "confidence"]].drop_duplicates().itertuples(index=False)]
    return (
        f"{count}. {remark} Every network sees the same corrupted images of N = {listed(shown['samples'], str)} test "
        f"points; each estimate is within ± {max(half):.3f} with confidence "
        f"{listed(shown['confidence'], confidence_text)} (Hoeffding, which counts points, not images). Images are "
        "drawn by our own random numbers, so they are not those of the published set."
    )


def _map(shown: pd.DataFrame) -> Figure:
    quantities = [one for one in TITLES if (shown["quantity"] == one).any()]
    # Of which the mean of the fifteen is all that is known: a column beside another quantity.
    known = shown.groupby("quantity")["corruption"].agg(set)
    beside = [one for one in quantities if known[one] == {MEAN}] if len(quantities) > 1 else []
    quantities = [one for one in quantities if one not in beside] or quantities
    beside = [one for one in beside if one not in quantities]
    there = list(shown["corruption"].unique())
    brought = [one for one in there if one not in (*CORRUPTIONS, MEAN)]
    order = [one for one in (*CORRUPTIONS, *brought, MEAN) if one in there]
    rows = shown["kind"].nunique()
    size = NAMES + COLUMN * (len(order) + len(beside)), (ROW * rows + 0.4) * len(quantities) + 1.9
    figure, axes = plt.subplots(len(quantities), 1, figsize=size, squeeze=False, sharex=True, layout="constrained")
    titles = shown.drop_duplicates("corruption").set_index("corruption")["title"]
    for panel, quantity in zip(axes[:, 0], quantities, strict=True):
        alike = shown[shown["quantity"] == quantity]
        table = alike.pivot_table(index="kind", columns="corruption", values="estimate", sort=False)
        table = table.reindex(shown["kind"].unique() if beside else table.index, columns=order)
        for one in beside:
            table[one] = shown[shown["quantity"] == one].groupby("kind")["estimate"].mean()
        panel.imshow(table, vmin=0, vmax=1, cmap="cividis", aspect="auto")
        panel.set_yticks(range(len(table)), table.index)
        named = [*titles[order], *(f"mean {one}" for one in beside)]
        panel.set_xticks(range(len(named)), named, rotation=45, ha="right", rotation_mode="anchor")
        panel.set_title(TITLES[quantity], loc="left")
        panel.tick_params(length=0)
        panel.grid(False)
        for row, column in itertools.product(*map(range, table.shape)):
            value = table.iloc[row, column]
            if pd.notna(value):
                colour = "white" if value < WHITE else "black"
                panel.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def _curves(shown: pd.DataFrame) -> Figure:
    panels = [
        (f"{members['title'].iloc[0]}, {quantity}", members)
        for (quantity, _), members in shown.groupby(["quantity", "corruption"], sort=False)
    ]
    looks = dict(zip(shown["kind"].unique(), itertools.product(LINES, style.KINDS), strict=False))
    figure, axes = arranged([title for title, _ in panels], looks)
    for panel, (_, members) in zip(axes, panels, strict=True):
        for kind, (line, colour) in looks.items():
            over = members[members["kind"] == kind].groupby("severity")
            if not over.ngroups:
                continue
            middle = over["estimate"].mean()
            low, high = over["tight_lower"].min(), over["tight_upper"].max()
            panel.fill_between(middle.index, low, high, color=colour, alpha=0.15, linewidth=0)
            panel.plot(middle.index, middle, color=colour, linestyle=line, marker="o", markersize=3)
        panel.set_xlim(SEVERITIES[0] - 0.2, SEVERITIES[-1] + 0.2)
        panel.set_ylim(0, 1.02)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.yaxis.set_major_formatter(PercentFormatter(1))
        panel.set_xlabel("severity")
    return figure
