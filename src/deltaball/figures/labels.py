"""Names beneath box plots that never run into each other: level, leaning, upright, or some of them left out."""

import itertools
import math

from matplotlib.axes import Axes
from matplotlib.category import StrCategoryFormatter
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter

LEAN = 35  # degrees
BETWEEN = 4.0  # points between neighbours
INK = 0.75  # height of a digit, the font's size being 1
SMALLEST_PANEL = 2  # labels


def turn(figure: Figure) -> None:
    """Turn the labels of categories beneath each panel as far as their room asks; the figure has been laid out."""
    for panel in figure.axes:
        formatter = panel.xaxis.get_major_formatter()
        shown = [tick.label1 for tick in panel.xaxis.get_major_ticks() if tick.label1.get_visible()]
        named = [label for label in shown if label.get_text()]
        if isinstance(formatter, StrCategoryFormatter | FixedFormatter) and len(named) >= SMALLEST_PANEL:
            _turn(panel, named)


def _turn(panel: Axes, labels: list[Text]) -> None:
    points = 72 / panel.figure.dpi
    low, high = sorted(panel.get_xlim())
    room = panel.get_window_extent().width * points / (high - low)
    widths = [label.get_window_extent().width * points + BETWEEN for label in labels]
    angle, every = angle_of(widths, INK * labels[0].get_fontsize() + 1, room)
    if angle:
        panel.tick_params(axis="x", labelrotation=angle)
    for place, label in enumerate(labels):
        if angle == LEAN:
            label.set(ha="right", rotation_mode="anchor")
        label.set_visible(place % every == 0)


def angle_of(widths: list[float], height: float, room: float) -> tuple[int, int]:
    """By how many degrees labels of these widths lean, `room` being from one to the next; and which are left out.

    The second value is 1 where all are shown, 2 for every other one, and so on.
    """
    if max((one + two) / 2 for one, two in itertools.pairwise(widths)) <= room:
        return 0, 1
    if height / math.sin(math.radians(LEAN)) <= room:
        return LEAN, 1
    return 90, math.ceil(height / room - 1e-9)
