"""How much of each network's robustness is proven: a bar from what is certified to what the attacks leave.

One figure per data set and notion, one panel per norm, δ (and γ), the networks in order of their attacked value. D is
enclosed the other way round than R: attacks bound it from below, certificates from above.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from deltaball.analysis import judges
from deltaball.analysis.enclosures import ROUNDING
from deltaball.base.guarantees import confidence_text
from deltaball.figures import readings, style
from deltaball.figures.panels import asked, asked_of, empty, finish, legend_above, levels, limits, listed
from deltaball.plan.plan import Plan
from deltaball.study.notions import NOTIONS

PANEL_POINTS = 580  # what a panel is wide, which its bars share
GREY = "0.72"


def draw(
    name: str, plan: Plan, networks: pd.DataFrame, measured: pd.DataFrame, enclosed: pd.DataFrame, folder: Path
) -> None:
    """Draw figure ``enclosure_DATASET_NOTION`` to `folder` as PNG, SVG and CSV, at the δ's certificates are asked for.

    At a smaller δ that only attacks are asked for, a proof for the larger ball bounds too, but says next to nothing.
    """
    _, dataset, notion = asked(name)
    certified = {one.delta for one in plan.measures if one.notion == notion and one.certificate}
    alike = (enclosed["dataset"] == dataset) & (enclosed["notion"] == notion)
    planned = networks[networks["dataset"] == dataset]
    # A network that only a convergence experiment certifies is not among them.
    wanted = planned["network_id"][asked_of(plan, planned, notion, certificates=True)]
    alike &= enclosed["epsilon"].notna() & enclosed["network_id"].isin(wanted)
    shown = enclosed[alike & enclosed["delta"].isin(certified)]
    count = f"{shown['network_id'].nunique():,} of {len(wanted):,} networks that certificates are asked of"
    count += f" ({len(planned):,} planned in all)" if len(wanted) < len(planned) else ""
    # A margin is where the class changes: curves.parquet counts it there.
    notions = [one.name for one in NOTIONS.values() if notion in (one.curve, one.name)]
    took_part = measured[measured["network_id"].isin(shown["network_id"]) & measured["notion"].isin(notions)]
    never = _never_meeting(plan, notion)
    note = _caption(shown, took_part) if len(shown) else never or "nothing is measured from both sides yet."
    figure = _panels(shown) if len(shown) else empty()
    title = f"{dataset}: {NOTIONS[notion].title}: how much is proven?"
    told = readings.enclosure(shown) if len(shown) else "Nothing is enclosed." if never else readings.NOTHING
    finish(figure, name, title, f"{count}{'. ' if len(shown) else ': '}{note}", shown, folder, told)


def _caption(shown: pd.DataFrame, measured: pd.DataFrame) -> str:
    attacks, certificates = (judges.joined(measured[side]) for side in ("attack", "certificate"))
    notion = NOTIONS[shown["notion"].iloc[0]]
    ends = (
        f"its lower end is what {attacks} found, its upper end what {certificates} excluded"
        if notion.violations_raise
        else f"its lower end is what {certificates} proved, its upper end what {attacks} left"
    )
    decided = " Diamonds: both ends agree, nothing is left open." if (shown["gap"] < ROUNDING).any() else ""
    fgsm = " The short black lines are what FGSM alone would have said." if shown["fgsm"].notna().any() else ""
    return (
        f"Each bar encloses one network's {notion.quantity} on N = {listed(shown['samples'], str)} test points: "
        f"{ends}. Half of the bars are shorter than {shown['gap'].median():.3f}; {100 * _narrow(shown).mean():.0f} % "
        f"are shorter than ε = {listed(shown['epsilon'])}.{decided} Grey: the interval for the whole input "
        f"distribution at confidence {listed(shown['confidence'], confidence_text)}, for each network and δ alone, one "
        f"end from each side.{fgsm}"
    )


def _never_meeting(plan: Plan, notion: str) -> str:
    """That the plan asks for no δ from both sides, if so."""
    attacked, certified = (
        {one.delta for one in plan.measures if one.notion == notion and getattr(one, side)}
        for side in ("attack", "certificate")
    )
    if attacked & certified:
        return ""
    return (
        f"certificates are asked for at δ = {listed(pd.Series(sorted(certified)))} and attacks at "
        f"δ = {listed(pd.Series(sorted(attacked)))}: what bounds one ball from one side says nothing of another's "
        f"other side, so nothing is enclosed."
    )


def _narrow(shown: pd.DataFrame) -> pd.Series:
    return shown["gap"] < shown["epsilon"]


def _panels(shown: pd.DataFrame) -> Figure:
    rows = levels(shown)
    figure, panels = plt.subplots(
        len(rows) + 1,
        figsize=(9.2, 1.95 * len(rows) + 1.7),
        height_ratios=[0.1] + [1] * len(rows),
        layout="constrained",
    )
    for panel, (label, chosen) in zip(panels[1:], rows, strict=True):
        _bars(panel, chosen.sort_values(["attacked", "certified"], kind="stable"))
        panel.set_ylabel(label)
        panel.set_title(
            f"median gap {chosen['gap'].median():.3f}; below ε: {_narrow(chosen).sum()} of {len(chosen)} networks; "
            f"nothing open: {(chosen['gap'] < ROUNDING).sum()}",
            loc="left",
        )
    quantity = NOTIONS[shown["notion"].iloc[0]].quantity
    panels[-1].set_xlabel(f"networks, in each panel in order of their attacked {quantity}")
    legend_above(panels[0], _handles(shown))
    return figure


def _bars(panel: Axes, chosen: pd.DataFrame) -> None:
    places = np.arange(1, len(chosen) + 1)
    width = float(np.clip(0.65 * PANEL_POINTS / len(chosen), 0.7, 9))
    panel.vlines(places, chosen["lower"], chosen["upper"], color=GREY, linewidth=max(0.35 * width, 0.5), zorder=1)
    decided = (chosen["gap"] < ROUNDING).to_numpy()
    for (method, architecture), index in chosen.reset_index().groupby(["method", "architecture"]).groups.items():
        colour, members = style.colour(method, architecture), chosen.iloc[index]
        panel.vlines(
            places[index],
            members[["certified", "attacked"]].min(axis=1),
            members[["certified", "attacked"]].max(axis=1),
            color=colour,
            linewidth=width,
            zorder=2,
        )
        # A short bar stays visible.
        panel.plot(
            places[index],
            members["attacked"].where(~decided[index]),
            linestyle="",
            marker="_",
            markersize=width,
            markeredgewidth=1.4,
            color=colour,
            zorder=2,
        )
        there = index[decided[index]]
        panel.plot(
            places[there],
            chosen["attacked"].iloc[there],
            linestyle="",
            marker="D",
            markersize=float(np.clip(0.8 * width, 2, 5)),
            color=colour,
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=3,
        )
    panel.plot(
        places,
        chosen["fgsm"],
        linestyle="",
        marker="_",
        markersize=max(1.25 * width, 2.5),
        markeredgewidth=1.1 if width > 3 else 0.8,
        color="black",
        zorder=4,
    )
    every = chosen[["certified", "attacked", "lower", "upper", "fgsm"]]
    panel.set_ylim(*limits(chosen, every.min(axis=None), every.max(axis=None)))
    panel.set_xlim(0.3, len(chosen) + 0.7)
    panel.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    panel.grid(axis="x", visible=False)


def _handles(shown: pd.DataFrame) -> list[Artist]:
    kinds = shown[["method", "architecture"]].drop_duplicates().itertuples(index=False)
    handles: list[Artist] = [
        Patch(color=style.colour(method, architecture), label=f"{style.NAMES[architecture]}, {style.METHODS[method]}")
        for method, architecture in kinds
    ]
    if (shown["gap"] < ROUNDING).any():
        handles.append(Line2D([], [], color="0.3", marker="D", linestyle="", markersize=4, label="nothing open"))
    handles.append(Line2D([], [], color=GREY, linewidth=2, label="interval"))
    if shown["fgsm"].notna().any():
        handles.append(Line2D([], [], color="black", marker="_", linestyle="", markersize=8, label="FGSM alone"))
    return handles
