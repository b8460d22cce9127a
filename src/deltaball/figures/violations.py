"""The closest violations of a few test points, one network of each kind, with their distances (000, Figure 3)."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deltaball.analysis.judges import display_name, strength
from deltaball.analysis.trainings import kinds
from deltaball.figures.panels import finish
from deltaball.study.neighbourhoods import NORMS
from deltaball.study.notions import NOTIONS

INCHES = 1.25  # of an image, with what is written below it
TITLE = 19  # letters in a line above it
LEVELS = 255
ROUNDED = "of images rounded to 256 levels, as they are shown"


def draw(networks: pd.DataFrame, examples: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw ``violations_DATASET`` to `folder` for each data set of which `examples` holds closest violations.

    `networks` are those that are compared. A row is a test point, a column the network of each kind that comes first
    among them, all by the strongest attack that sought distances, in L2 where that was asked. Returns the PNGs.
    """
    distances = tuple(name for name, notion in NOTIONS.items() if notion.is_distance)
    shown = examples[examples["measure"].str.startswith(distances)]
    shown = networks.assign(kind=kinds(networks))[["network_id", "kind"]].merge(shown, on="network_id")
    return [_draw(dataset, members, folder) for dataset, members in shown.groupby("dataset", sort=False)]


def _draw(dataset: str, members: pd.DataFrame, folder: Path) -> Path:
    norm = "l2" if (members["norm"] == "l2").any() else members["norm"].iloc[0]
    members = members[members["norm"] == norm]
    attack = max(members["attack"].unique(), key=strength)
    members = members[members["attack"] == attack]
    first = members.drop_duplicates("kind")["network_id"]
    members = members[members["network_id"].isin(first)].reset_index(drop=True)
    members = members.assign(distance=[_distance(*pair, norm) for pair in _pairs(members)])
    note = (
        f"The closest image of another class that {display_name(attack)} finds, {NORMS[norm]}; below it what the "
        f"network took the point for, what it takes the image for, and how far that is, {ROUNDED}. Points are the "
        "first that every network is measured on, networks the first of their kind; nobody picked them."
    )
    data = members.drop(columns=["image", "perturbed", "height", "width", "channels"])
    name = f"violations_{dataset}"
    finish(_panels(members), name, f"{dataset}: the closest violations", note, data, folder, _reading(members))
    return folder / f"{name}.png"


def _reading(members: pd.DataFrame) -> str:
    """At how many points there is a violation, and how far it is in the median; where there is none it is beyond."""
    far = members["distance"].where(members["became"] != members["predicted"], np.inf)
    told = []
    for kind, distances in far.groupby(members["kind"], sort=False):
        median = distances.median()
        middle = f"median {median:.3g}" if np.isfinite(median) else f"median beyond {members['delta'].max():.3g}"
        told.append(f"{kind}, at {np.isfinite(distances).sum()} of {len(distances)} points, {middle}")
    return f"Violations found: {'; '.join(told)}."


def _panels(members: pd.DataFrame) -> Figure:
    columns, points = [*members["kind"].unique()], sorted(members["point"].unique())
    size = INCHES * (len(columns) + 1), INCHES * len(points) + 1.4
    figure, axes = plt.subplots(len(points), len(columns) + 1, figsize=size, squeeze=False, layout="constrained")
    for room in axes.flat:
        room.set_axis_off()
    of = {(row["point"], row["kind"]): row for row in members.to_dict("records")}
    for row, point in enumerate(points):
        some = next(one for (place, _), one in of.items() if place == point)
        _show(axes[row, 0], _image(some, "image"), f"a {some['label']}")
        for column, kind in enumerate(columns, 1):
            one = of.get((point, kind))
            if one is None:
                continue
            hit = one["became"] != one["predicted"]
            below = f"{one['predicted']} → {one['became']}, {one['distance']:.2f}" if hit else "none found"
            _show(axes[row, column], _image(one, "perturbed"), below)
    for room, kind in zip(axes[0], ["test point", *columns], strict=True):
        room.set_title(textwrap.fill(kind, TITLE), fontsize=7)
    return figure


def _show(axes: plt.Axes, image: np.ndarray, below: str) -> None:
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=LEVELS)
    axes.text(0.5, -0.04, below, transform=axes.transAxes, ha="center", va="top", fontsize=7)


def _image(row: dict, name: str) -> np.ndarray:
    return np.frombuffer(row[name], np.uint8).reshape(row["height"], row["width"], row["channels"])


def _pairs(members: pd.DataFrame) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for row in members.to_dict("records"):
        yield _image(row, "image"), _image(row, "perturbed")


def _distance(image: np.ndarray, perturbed: np.ndarray, norm: str) -> float:
    moved = (perturbed.astype(np.float64) - image).ravel() / LEVELS
    return float(np.linalg.norm(moved, {"l2": 2, "linf": np.inf, "l1": 1}[norm]))
