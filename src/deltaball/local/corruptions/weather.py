"""Light, fog and mud (MNIST-C's ``brightness``, ``fog`` and ``spatter``)."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from deltaball.local.corruptions.blurs import gaussian

LEAST_MAP = 256  # pixels of fog in each direction, of which an image shows the top left corner
QUARTER = np.float32(0.25)
MUD_OF_COLOURS = (63, 42, 20)


def brightness(images: np.ndarray, draws: Sequence[Generator], severity: int) -> np.ndarray:
    """V = max(R, G, B) of HSV becomes min(V + b, 1), hue and saturation stay; one channel becomes min(x + b, 1)."""
    value = images.max(-1, keepdims=True)
    lighter = np.minimum(value + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1], 1)
    return np.where(value > 0, images / np.where(value > 0, value, 1), 1) * lighter


def fog(images: np.ndarray, draws: Sequence[Generator], severity: int) -> np.ndarray:
    """(x + a · plasma) · m / (m + a), m the largest value of the image; all channels have the same fog."""
    amount, decay = ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    height, width = images.shape[1:3]
    largest = images.max((1, 2, 3), keepdims=True)
    size = max(LEAST_MAP, 1 << (max(height, width) - 1).bit_length())
    clouds = np.stack([plasma(one, size, decay)[:height, :width] for one in draws])
    return (images + amount * clouds[..., None]) * (largest / (largest + amount))


def plasma(draw: Generator, size: int, decay: float) -> np.ndarray:
    """A plasma fractal by squares and diamonds, float32 [size, size] from 0 to 1, which repeats beyond its edges.

    It begins with one point. Each turn puts a point amid each square of four neighbours, then one amid each diamond:
    the mean of the four plus a number uniform in ±w². w is 100 at first and is divided by `decay` after each turn.
    `size` is a power of two.
    """
    points, wobble = np.zeros((1, 1), np.float32), 100.0
    while len(points) < size:
        count = len(points)
        noise = (draw.random((3, count, count), np.float32) - np.float32(0.5)) * np.float32(2 * wobble**2)
        corners = np.empty((count + 1, count + 1), np.float32)
        corners[:-1, :-1], corners[:-1, -1] = points, points[:, 0]
        corners[-1] = corners[0]
        pairs = corners[:, :-1] + corners[:, 1:]
        # The last row and column stand before the first ones too.
        centres = np.empty_like(corners)
        inner = np.add(pairs[:-1], pairs[1:], out=centres[1:, 1:])
        inner *= QUARTER
        inner += noise[0]
        centres[0, 1:] = inner[-1]
        centres[:, 0] = centres[:, -1]
        finer = np.empty((2 * count, 2 * count), np.float32)
        finer[::2, ::2], finer[1::2, 1::2] = points, inner
        finer[::2, 1::2] = (pairs[:-1] + inner + centres[:-1, 1:]) * QUARTER + noise[1]
        finer[1::2, ::2] = (points + corners[1:, :-1] + inner + centres[1:, :-1]) * QUARTER + noise[2]
        points, wobble = finer, wobble / decay
    points -= points.min()
    return points / points.max()


def spatter(images: np.ndarray, draws: Sequence[Generator], severity: int) -> np.ndarray:
    """Drops of mud: where blurred normal noise is above a threshold, itself blurred, and what is below .8 left out.

    Mud is 63/255 in every channel, in colour (63, 42, 20)/255 as CIFAR-10-C has it. Severities 1 to 3, there water, are
    mud too, as in MNIST-C.
    """
    mean, deviation, blur, threshold, edge = (
        (0.65, 0.3, 4, 0.69, 0.6),
        (0.65, 0.3, 3, 0.68, 0.6),
        (0.65, 0.3, 2, 0.68, 0.5),
        (0.65, 0.3, 1, 0.65, 1.5),
        (0.67, 0.4, 1, 0.65, 1.5),
    )[severity - 1]
    height, width, channels = images.shape[1:]
    liquid = gaussian(np.stack([one.normal(mean, deviation, (height, width, 1)) for one in draws]), blur)
    covered = gaussian((liquid > threshold).astype(float), edge)
    covered[covered < 0.8] = 0
    mud = np.array(MUD_OF_COLOURS if channels == len(MUD_OF_COLOURS) else MUD_OF_COLOURS[:1]) / 255
    return images * (1 - covered) + mud * covered
