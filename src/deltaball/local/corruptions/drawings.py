"""What is drawn over an image (MNIST-C's ``stripe``, ``dotted_line``, ``zigzag``) or of it (``canny_edges``)."""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from skimage.feature import canny

WIDTH = 2.3  # pixels from the middle of a line to where it ends
STEP = AMPLITUDE = 2.0  # of a zigzag, pixels
MARGIN = 2  # columns beside a zigzag


def identity(images: np.ndarray, draws: Sequence[Generator]) -> np.ndarray:
    """The images themselves."""
    return images


def stripe(images: np.ndarray, draws: Sequence[Generator]) -> np.ndarray:
    """1 - x in the first and the last quarter of the columns."""
    quarter = images.shape[2] // 4
    outer = np.ones(images.shape[2], dtype=bool)
    outer[quarter : images.shape[2] - quarter] = False
    return np.where(outer[:, None], 1 - images, images)


def dotted_line(images: np.ndarray, draws: Sequence[Generator]) -> np.ndarray:
    """A line from the first column to the last, at rows uniform in {0, …, h - 2}: columns 2, 3, 6, 7, … of it added.

    The last column stays empty.
    """
    height, width = images.shape[1:3]
    ends = [one.integers(0, height - 1, 2) for one in draws]
    lines = np.stack([line((0, first), (width - 1, last), height, width) for first, last in ends])
    lines[:, :, np.arange(width) // 2 % 2 == 0] = 0
    return images + lines[..., None]


def zigzag(images: np.ndarray, draws: Sequence[Generator]) -> np.ndarray:
    """A zigzag from column 2 to column w - 3 added; its row rises or falls by up to five."""
    height, width = images.shape[1:3]
    starts = [(int(one.integers(0, height - 1)), int(one.integers(-5, 5))) for one in draws]
    return images + np.stack([_zigzag(first, rise, height, width) for first, rise in starts])[..., None]


def canny_edges(images: np.ndarray, draws: Sequence[Generator]) -> np.ndarray:
    """1 at the edges that Canny's detector finds in the mean of the channels (σ = 1, thresholds .1 and .2), else 0."""
    edges = np.stack([canny(image, sigma=1, low_threshold=0.1, high_threshold=0.2) for image in images.mean(-1)])
    return np.broadcast_to(edges[..., None], images.shape).astype(float)


def line(start: tuple[float, float], end: tuple[float, float], height: int, width: int) -> np.ndarray:
    """A line between two points (column, row), [height, width]: 1 + ln(1 - d / 2.3), at least 0, at d rows from it.

    Columns from that of the start, rounded down, up to that of the end, rounded up, which is left out.
    """
    (left, first), (right, last) = start, end
    if left == right:
        return np.zeros((height, width))
    rows = first + (last - first) / (right - left) * (np.arange(width) - left)
    distance = np.clip(np.abs(np.arange(height)[:, None] - rows), 0, WIDTH - 1e-10)
    drawn = np.clip(1 + np.log(1 - distance / WIDTH), 0, 1)
    drawn[:, : math.floor(left)] = 0
    drawn[:, math.ceil(right) :] = 0
    return drawn


@lru_cache(maxsize=4096)
def _zigzag(first: int, rise: int, height: int, width: int) -> np.ndarray:
    """The sum of a zigzag's lines, [height, width]; where they meet it may be above 1."""
    left, right = MARGIN, width - 1 - MARGIN
    angle = math.atan(rise / (right - left))
    length = (right - left) / math.cos(angle)
    turns = int((length - STEP) // (2 * STEP)) + 1
    along, beside = [0.0], [0.0]
    for turn in range(turns):
        along.append((2 * turn + 1) * STEP)
        beside.append((-1) ** turn * AMPLITUDE)
    whole = 2 * STEP * (length // (2 * STEP))
    if length != whole:
        along.append(length)
        beside.append(beside[-1] / (2 * (length - whole)))
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = (turned @ np.array([along, beside])).T + np.array([left, first])
    return np.sum([line(start, end, height, width) for start, end in pairwise(points)], 0)
