"""Adapted networks: accuracy under corruptions over the number of corrupted images that an adaptation sees."""

import itertools
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from deltaball.analysis.corruptions import MEAN
from deltaball.analysis.trainings import ADAPTATIONS, ARCHITECTURES, BASELINE, NONE, title
from deltaball.figures import readings, style
from deltaball.figures.corruptions import dataset_of, noted, rows_of
from deltaball.figures.distances import LINES, arranged
from deltaball.figures.panels import empty, finish
from deltaball.plan.plan import Plan

UNADAPTED = "not adapted"
BESIDE = 0.05  # from one bar to the next, of what lies between two numbers of images
LOOKS = {UNADAPTED: ((0, (1, 1)), "#000000")}
LOOKS |= {
    f"{named}, {pooled}": (line, colour)
    for (named, colour), (pooled, line) in itertools.product(
        zip(ADAPTATIONS.values(), style.KINDS[1:], strict=False), zip(("separate", "joint"), LINES, strict=False)
    )
}


def draw(name: str, plan: Plan, networks: pd.DataFrame, corrupted: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``adaptations_DATASET`` to `folder` as PNG, SVG and CSV."""
    rows = rows_of(name, corrupted)
    rows = rows[rows["quantity"] == "accuracy"]
    classifier = [_classifier(*one) for one in zip(rows["architecture"], rows["training"], strict=True)]
    by = [_by(*one) for one in zip(rows["adaptation"], rows["pooled"], strict=True)]
    every = rows.assign(classifier=classifier, by=by)
    every = every[every["classifier"].isin(every.loc[every["adaptation"] != NONE, "classifier"])]
    shown = every[every["corruption"] == MEAN].reset_index(drop=True)
    figure = _drawn(shown) if len(shown) else empty()
    told = readings.adaptations(shown, UNADAPTED) if len(shown) else readings.NOTHING
    remark = (
        "Lines are means over trainings of the accuracy averaged over the fifteen corruptions; bars, and the shade, go "
        "from the lowest interval to the highest. Separate: a network for each corruption; joint: one for all."
    )
    note = noted(name, plan, networks, every if len(shown) else shown, remark)
    finish(figure, name, f"{dataset_of(name)}: over the corrupted images seen", note, shown, folder, told)


def _classifier(architecture: str, training: str) -> str:
    named = ARCHITECTURES[architecture]
    return named if training == BASELINE else f"{named}, {title(training)}"


def _by(adaptation: str, pooled: str | None) -> str:
    return UNADAPTED if adaptation == NONE else f"{ADAPTATIONS[adaptation]}, {pooled}"


def _drawn(shown: pd.DataFrame) -> Figure:
    looks = {name: look for name, look in LOOKS.items() if (shown["by"] == name).any()}
    counts = sorted(shown["corrupted_images"].dropna().astype(int).unique())
    panels = dict(list(shown.groupby("classifier", sort=False)))
    figure, axes = arranged([*panels], looks)
    for panel, members in zip(axes, panels.values(), strict=True):
        _lines(panel, members, looks, counts)
        panel.set_xticks(range(len(counts)), [f"{count:,}" for count in counts])
        panel.set_xlim(-0.3, len(counts) - 0.7)
        panel.yaxis.set_major_formatter(PercentFormatter(1))
        panel.set_xlabel("corrupted images of each corruption")
        panel.set_ylabel("accuracy")
    return figure


def _lines(panel: Axes, members: pd.DataFrame, looks: dict, counts: list[int]) -> None:
    for place, (by, (line, colour)) in enumerate(looks.items()):
        own = members[members["by"] == by]
        if own.empty:
            continue
        if by == UNADAPTED:
            panel.axhspan(own["tight_lower"].min(), own["tight_upper"].max(), color=colour, alpha=0.08, linewidth=0)
            panel.axhline(own["estimate"].mean(), color=colour, linestyle=line)
            continue
        over = own.groupby(own["corrupted_images"].astype(int).map(counts.index))
        middle = over["estimate"].mean()
        low, high = over["tight_lower"].min(), over["tight_upper"].max()
        across = middle.index + BESIDE * (place - len(looks) / 2)
        panel.vlines(across, low, high, color=colour, linewidth=0.8)
        panel.plot(across, middle, color=colour, linestyle=line, marker="o", markersize=3)
