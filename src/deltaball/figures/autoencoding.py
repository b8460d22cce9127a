"""What an auto-encoder makes of images and of codes, and how its training went."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from deltaball.base.files import written_whole

INCHES = 0.6  # of an image


def draw(rows: Mapping[str, np.ndarray], history: Mapping[str, np.ndarray], title: str, told: str, path: Path) -> None:
    """Draw rows of images [n, h, w, c] in [0, 1], each as long, and curves over the epochs; `path` is a PNG."""
    count = len(next(iter(rows.values())))
    figure = plt.figure(figsize=(INCHES * (count + 3), INCHES * (len(rows) + 4.5)), layout="constrained")
    images, curves = figure.subfigures(2, 1, height_ratios=(len(rows), 4))
    for axes, (name, row) in zip(images.subplots(len(rows), 1, squeeze=False)[:, 0], rows.items(), strict=True):
        axes.imshow(_beside(row), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    for axes, (name, values) in zip(curves.subplots(1, len(history), squeeze=False)[0], history.items(), strict=True):
        axes.plot(range(1, len(values) + 1), values, marker="o", markersize=2, linewidth=1)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(name, fontsize="medium")
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Title": title, "Description": told})
    plt.close(figure)


def _beside(images: np.ndarray) -> np.ndarray:
    """Images [n, h, w, c] as one, a pixel of white between."""
    framed = np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=1)
    whole = np.concatenate(framed, 1)
    return whole[..., 0] if whole.shape[-1] == 1 else whole
