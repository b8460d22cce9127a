"""What each judge settles of what the ones before it leave open, and what it takes: two bars per kind of network."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from deltaball.analysis.judges import entry, titles
from deltaball.analysis.settling import order
from deltaball.figures import readings, style
from deltaball.figures.panels import asked, empty, finish, legend_above, levels, listed
from deltaball.study.architectures import ARCHITECTURES
from deltaball.study.notions import NOTIONS

MOST = 30  # kinds of networks in a panel; where there are more, architectures
OPEN = "0.88"
BAR, ROOM = 0.17, 1.0  # inches


def draw(name: str, networks: pd.DataFrame, settled: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``settling_DATASET_NOTION`` to `folder` as PNG, SVG and CSV."""
    _, dataset, notion = asked(name)
    shown = settled[(settled["dataset"] == dataset) & (settled["notion"] == notion)]
    kinds = named(networks[networks["network_id"].isin(shown["network_id"])])
    shown = shown.assign(kind=shown["network_id"].map(kinds))
    figure = _panels(shown, list(dict.fromkeys(kinds))) if len(shown) else empty()
    note = _caption(shown) if len(shown) else "nothing is judged from both sides yet."
    told = readings.settling(shown) if len(shown) else readings.NOTHING
    title = f"{dataset}: {NOTIONS[notion].title}: what did each stage settle and cost?"
    finish(figure, name, title, note, shown, folder, told)


def named(networks: pd.DataFrame) -> pd.Series:
    """What kind each network is, by id: its architecture and what of its shape differs."""
    found = pd.Series("", networks.index, dtype="object")
    for architecture, members in networks.groupby("architecture"):
        axes = [axis for axis in ARCHITECTURES[architecture].axis_names() if axis in members]
        varied = [axis for axis in axes if members[axis].nunique() > 1]
        words = [pd.Series(style.NAMES[architecture], members.index)]
        if {"depth", "width"} & {*varied}:
            words.append(members["depth"].map("{:.0f}".format) + "×" + members["width"].map("{:.0f}".format))
        words += [_told(axis, members[axis]) for axis in varied if axis not in ("depth", "width")]
        found[members.index] = pd.concat(words, axis=1).agg(" ".join, axis=1)
    if found.nunique() > MOST:
        found = networks["architecture"].map(style.NAMES)
    return pd.Series(found.to_numpy(), networks["network_id"])


def _told(axis: str, values: pd.Series) -> pd.Series:
    if axis == "activation":
        return values.astype("str")
    return axis.replace("_", " ") + " " + values.map(lambda value: f"{value:g}" if isinstance(value, float) else value)


def _caption(shown: pd.DataFrame) -> str:
    notion = NOTIONS[shown["notion"].iloc[0]]
    of = "the way between both sides of D that" if notion.violations_raise else "the test points that"
    cost = (
        "Right: seconds that it took of a processor, or of holding a GPU, for one network and δ. An exact answer and "
        "branch and bound attack and bound once more what they are asked, and that is part of what they took."
        if shown["seconds"].notna().any()
        else "What it took was not recorded."
    )
    return (
        f"{shown['network_id'].nunique():,} networks, N = {listed(shown['samples'], str)} test points; bars are means "
        f"over the networks of a kind. Left: the share of {of} each judge settled when those to its left had spoken. "
        f"{cost}"
    )


def _panels(shown: pd.DataFrame, kinds: list[str]) -> Figure:
    rows = levels(shown)
    heights = [ROOM + BAR * chosen["kind"].nunique() for _, chosen in rows]
    figure, panels = plt.subplots(
        len(rows) + 1,
        2,
        figsize=(9.2, sum(heights) + 0.5),
        height_ratios=[0.3, *heights],
        width_ratios=[3, 2],
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.2)  # inches, for long names
    panels[0, 1].set_axis_off()
    judges = sorted(shown["judge"].unique(), key=order)
    names = titles(judges)
    handles = [Patch(color=_colour(one), label=names[one]) for one in judges]
    legend_above(panels[0, 0], [*handles, Patch(color=OPEN, label="open")])
    for (shares, seconds), (label, chosen) in zip(panels[1:], rows, strict=True):
        there = [kind for kind in kinds if kind in set(chosen["kind"])]
        _stacked(shares, chosen, "settled", judges, there)
        _stacked(seconds, chosen, "seconds", judges, there)
        left = 1 - chosen.groupby("kind")["settled"].sum() / chosen.groupby("kind")["network_id"].nunique()
        shares.barh(there, left[there], left=1 - left[there], color=OPEN, height=0.8)
        shares.set_xlim(0, 1)
        shares.xaxis.set_major_formatter(style.PERCENT)
        shares.set_title(label.partition("\n")[0], loc="left")
        seconds.set_title("seconds", loc="left")
        seconds.tick_params(labelleft=False)
    return figure


def _stacked(panel: Axes, chosen: pd.DataFrame, column: str, judges: list[str], kinds: list[str]) -> None:
    """Bars of means over the networks of a kind, a part for each judge."""
    means = chosen.pivot_table(index="kind", columns="judge", values=column, aggfunc="mean", dropna=False)
    means = means.reindex(index=kinds, columns=judges).fillna(0.0)
    ends = means.cumsum(axis=1)
    for judge in judges:
        panel.barh(kinds, means[judge], left=ends[judge] - means[judge], color=_colour(judge), height=0.8)
    panel.invert_yaxis()
    panel.tick_params(axis="y", labelsize=7.5, length=0)
    panel.grid(axis="y", visible=False)
    if not ends.to_numpy().any():
        panel.text(0.5, 0.5, "not recorded", transform=panel.transAxes, ha="center", va="center", color="0.35")
        panel.set_xticks([])


def _colour(judge: str) -> str:
    return style.judge(entry(judge).name)[0]
