"""Names beneath box plots: whatever the levels, none runs into its neighbour."""

import itertools
import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import seaborn as sns
from hypothesis import given
from hypothesis import strategies as st

from deltaball.figures import labels


@given(st.lists(st.floats(1, 80), min_size=2, max_size=30), st.floats(4, 12), st.floats(2, 100))
def test_labels_fit_into_their_room_at_the_angle_that_is_chosen(
    widths: list[float], height: float, room: float
) -> None:
    angle, every = labels.angle_of(widths, height, room)
    if angle == 0:
        assert all((one + two) / 2 <= room for one, two in itertools.pairwise(widths))
    else:
        # Parallel lines of text, `room` apart along the axis.
        assert every * room * math.sin(math.radians(angle)) >= height * (1 - 1e-6)
    assert angle == 90 or every == 1


@pytest.mark.parametrize(
    ("levels", "width", "angle"),
    [
        (["5", "10", "15"], 3, 0),
        (["12", "15", "20", "25", "30", "40"], 0.75, 90),
        (["33k–55k", "65k–102k", "118k–127k"], 0.8, 35),
    ],
)
def test_box_plots_of_a_narrow_panel_have_labels_that_can_be_told_apart(
    levels: list[str], width: float, angle: int
) -> None:
    figure, panel = plt.subplots(figsize=(width, 2))
    sns.boxplot(x=levels * 2, y=range(2 * len(levels)), order=levels, ax=panel)
    panel.tick_params(axis="x", labelsize=7)
    figure.draw_without_rendering()
    labels.turn(figure)
    figure.draw_without_rendering()
    shown = panel.get_xticklabels()
    assert [label.get_rotation() for label in shown] == [angle] * len(levels)
    assert [label.get_text() for label in shown if label.get_visible()] == levels
    if angle != labels.LEAN:
        boxes = [label.get_window_extent() for label in shown]
        # Upright text has a line's height; digits are lower.
        slack = 0 if angle == 0 else 0.25 * boxes[0].width
        assert all(one.x1 - slack <= two.x0 + slack for one, two in itertools.pairwise(boxes))
    plt.close(figure)


def test_an_axis_of_numbers_keeps_its_own_labels() -> None:
    figure, panel = plt.subplots(figsize=(1, 1))
    panel.plot(pd.Series([0.0, 1000.0, 20_000.0]), [1, 2, 3])
    figure.draw_without_rendering()
    labels.turn(figure)
    assert {label.get_rotation() for label in panel.get_xticklabels()} == {0}
    plt.close(figure)
