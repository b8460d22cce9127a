"""How the networks of a file take images, as far as the file does not say it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deltaball.base.errors import InputError
from deltaball.exchange.tracing import Value, affine, image

Layout = Literal["channels_last", "channels_first"]

LAYOUTS: tuple[Layout, ...] = ("channels_last", "channels_first")


@dataclass(frozen=True)
class Convention:
    """What is done with pixels in [0, 1] before a network sees them; None: as the file says, or as it must be.

    They are brought to the range from `low` to `high`; then `mean` is subtracted and what is left divided by
    `deviation`, each one number or one for each channel.
    """

    layout: Layout | None = None
    pixels: tuple[float, float] | None = None
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)

    def check(self, channels: int) -> None:
        """Raise InputError where it does not fit to images of so many channels."""
        for name, values in (("mean", self.mean), ("std", self.deviation)):
            if len(values) not in (1, channels):
                raise InputError(
                    f"{name} {', '.join(map(str, values))}: images have {channels} channels; give 1 number "
                    f"or {channels}"
                )
            if not all(map(math.isfinite, values)):
                raise InputError(f"{name} {', '.join(map(str, values))}: should be finite numbers")
        if 0 in self.deviation:
            raise InputError("std 0: should not be 0")

    def shown(self, images: np.ndarray) -> np.ndarray:
        """Images [n, height, width, channels] in [0, 1] as the network sees them, channels last, float32."""
        scale, shift = self.constants()
        return (images * scale + shift).astype(np.float32)

    def entering(self, shape: tuple[int, int, int]) -> Value:
        """The image that the network sees, of an image of a data set."""
        return affine(image(shape), *self.constants())

    def constants(self) -> tuple[np.ndarray, np.ndarray]:
        """What pixels in [0, 1] are multiplied with, and what is then added: numbers, or one for each channel."""
        low, high = self.pixels or (0.0, 1.0)
        mean, deviation = np.asarray(self.mean), np.asarray(self.deviation)
        return (high - low) / deviation, (low - mean) / deviation

    @property
    def words(self) -> str:
        """What the network sees, in words."""
        low, high = self.pixels or (0.0, 1.0)
        parts = [f"pixels from {low:g} to {high:g}"]
        if any(self.mean):
            parts.append(f"less {', '.join(f'{one:g}' for one in self.mean)}")
        if any(one != 1 for one in self.deviation):
            parts.append(f"divided by {', '.join(f'{one:g}' for one in self.deviation)}")
        return ", ".join(parts)


def pixel_range(text: str) -> tuple[float, float]:
    """A range as people write it: 0..1, 0..255, -1..1. Raises InputError."""
    found = re.fullmatch(r"\s*(-?[\d.]+)\s*\.\.\s*(-?[\d.]+)\s*", text)
    try:
        low, high = float(found[1]), float(found[2])
    except (TypeError, ValueError):
        raise InputError(f"range '{text}': should be as 0..1, 0..255 or -1..1") from None
    if not low < high:
        raise InputError(f"range '{text}': should rise, as 0..1, 0..255 or -1..1")
    return low, high


def arranged(
    shape: tuple[int, int, int], entering: Sequence[int | None], layout: Layout | None
) -> tuple[Layout, tuple[int, ...]]:
    """How images [height, width, channels] lie in what enters a file's graph; None is a size that the file leaves open.

    Raises InputError where they do not fit, or where they fit in two ways and no layout is given.
    """
    height, width, channels = shape
    orders: dict[Layout, list[tuple[int, ...]]] = {
        "channels_last": [(height, width, channels), (math.prod(shape),)],
        "channels_first": [(channels, height, width), (math.prod(shape),)],
    }
    for possible in orders.values():
        possible.extend([(height, width)] if channels == 1 else [])
    fitting = {
        (name, possible)
        for name, each in orders.items()
        for possible in each
        if len(possible) == len(entering)
        and all(size in (None, own) for size, own in zip(entering, possible, strict=True))
    }
    if not fitting:
        takes = ", ".join("any" if size is None else str(size) for size in entering)
        raise InputError(
            f"takes images of shape [{takes}], and those of the data set are [{height}, {width}, {channels}]"
        )
    if len(fitting) > 1 and channels == 1 and len(entering) < 3:  # one channel: first and last are one order
        fitting = {one for one in fitting if one[0] == "channels_last"}
    if layout is not None and len(fitting) > 1:
        fitting = {one for one in fitting if one[0] == layout}
    if len(fitting) > 1:
        raise InputError(
            f"takes images of shape [{', '.join(map(str, entering))}], whose order the file does not say; "
            "give layout channels_first or channels_last"
        )
    return fitting.pop()


def laid_out(value: Value, layout: Layout, entering: tuple[int, ...]) -> Value:
    """The image in the order and shape in which it enters a file's graph."""
    places = np.moveaxis(value.places, -1, 0) if layout == "channels_first" else value.places
    return value.moved(places.reshape(entering))


def presented(images: np.ndarray, layout: Layout, entering: tuple[int, ...]) -> np.ndarray:
    """Images [n, height, width, channels] in the order and shape in which they enter a file's graph."""
    moved = np.moveaxis(images, -1, 1) if layout == "channels_first" else images
    return np.ascontiguousarray(moved.reshape(len(images), *entering))
