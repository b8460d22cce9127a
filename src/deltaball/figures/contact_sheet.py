"""A contact sheet: a row of images per corruption, beside it the severities of one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from deltaball.base.files import written_whole

GAP, BLOCK_GAP = 0.12, 0.7  # between images and between both blocks, in images
INCHES = 0.55  # of an image
NAMES = 2.2  # inches


@dataclass(frozen=True)
class Row:
    """Images uint8 [n, h, w, c]; the first of them at each severity, or nothing; which severity the others have."""

    images: np.ndarray
    severities: Sequence[np.ndarray]
    severity: int | None


def draw(rows: Mapping[str, Row], path: Path) -> None:
    """Draw images by the title of their corruption; every row has as many."""
    first = next(iter(rows.values()))
    count, most = len(first.images), max(len(row.severities) for row in rows.values())
    height, width = first.images.shape[1:3]
    tall = height / width + GAP
    across = (count + most) * (1 + GAP) + BLOCK_GAP
    size = NAMES + INCHES * across, INCHES * (len(rows) * tall + 1)
    figure = plt.figure(figsize=size)
    axes = figure.add_axes((NAMES / size[0], 0, 1 - NAMES / size[0], 1))
    axes.set_axis_off()
    axes.set_xlim(0, across)
    axes.set_ylim(len(rows) * tall, -1)
    second = count * (1 + GAP) + BLOCK_GAP
    for place, (title, row) in enumerate(rows.items()):
        top = place * tall
        kind = "" if row.severity is None else f" [{row.severity}]"
        axes.text(-0.2, top + (tall - GAP) / 2, f"{title}{kind}", ha="right", va="center")
        for left, images in ((0.0, row.images), (second, row.severities)):
            for column, image in enumerate(images):
                _place(axes, image, left + column * (1 + GAP), top)
    axes.text(0, -0.25, "test images, at the severity in brackets")
    for number in range(1, most + 1):
        axes.text(second + (number - 1) * (1 + GAP) + 0.5, -0.25, str(number), ha="center")
    axes.text(second - 0.1, -0.25, "severity", ha="right")
    with written_whole(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)


def _place(axes: plt.Axes, image: np.ndarray, left: float, top: float) -> None:
    height, width, channels = image.shape
    shown = np.repeat(image, 3, -1) if channels == 1 else image
    extent = (left, left + 1, top + height / width, top)
    axes.imshow(shown, extent=extent, interpolation="nearest", aspect="auto", clip_on=False)
    axes.add_patch(Rectangle((left, top), 1, height / width, fill=False, edgecolor="0.6", linewidth=0.4))
    axes.set_autoscale_on(False)
