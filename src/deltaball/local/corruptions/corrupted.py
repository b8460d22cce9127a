"""Corrupted images: the same for every network and in every run, on any machine, whatever images come along.

The rules are those of MNIST-C's generator, for images of any size and number of channels. The random numbers are our
own and those of the release are not known, so single images are not those of the release, and accuracies differ from
published ones by what drawing again makes of them.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.base.files import remove
from deltaball.base.implementations import implementation
from deltaball.store import tensors
from deltaball.study.corruptions import VERSION, Corruption, corruption

AT_ONCE = 256
LEAST_SIZE = 8  # pixels in each direction; a zigzag does not fit into less
# Halves are rounded up, and so is what rounding errors left a little below them.
HALF = 0.5 + 1e-6


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Pixels of [0, 1] as uint8 0 … 255, rounded to the nearest, halves up; what lies outside is cut off."""
    return np.floor(np.clip(pixels, 0, 1) * np.float64(255) + HALF).astype(np.uint8)


def corrupted(
    name: str,
    images: np.ndarray,
    keys: Sequence[object],
    severity: int | None = None,
    folder: Path | None = None,
) -> np.ndarray:
    """Images under one corruption, uint8 [n, h, w, c] → uint8 [n, h, w, c]; `severity` None is that of MNIST-C.

    An image's random numbers are those of its key and the corruption's name: severities share them, so that a curve
    over severities moves by severity alone. With a `folder` the images are kept there, under a hash of all they are
    made of, and read when they are asked again.

    Raises InputError for a corruption or severity that there is not, and for images of fewer than 8 × 8 pixels.
    """
    entry, severity = corruption(name, severity)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise TypeError(f"images are {images.dtype} of shape {images.shape}, and not uint8 [n, h, w, c]")
    if len(keys) != len(images):
        raise ValueError(f"{len(keys)} keys for {len(images)} images")
    if min(images.shape[1:3]) < LEAST_SIZE:
        height, width = images.shape[1:3]
        raise InputError(f"corruption {name}: images are {height}×{width}; it takes {LEAST_SIZE}×{LEAST_SIZE} or more")
    if folder is None:
        return _made(entry, images, keys, severity)
    path = folder / f"{name}-{_digest(entry, images, keys, severity)}.safetensors"
    kept = _kept(path)
    if kept is None:
        kept = _made(entry, images, keys, severity)
        tensors.write(path, {"images": kept}, {"corrupted": path.stem})
    return kept


def _made(entry: Corruption, images: np.ndarray, keys: Sequence[object], severity: int | None) -> np.ndarray:
    corrupt = implementation(entry.implementation)
    made = np.empty_like(images)
    for start in range(0, len(images), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        draws = [generator("corruption", entry.name, key) for key in keys[part]]
        settings = () if severity is None else (severity,)
        made[part] = as_bytes(corrupt(images[part] / 255, draws, *settings))
    return made


def _digest(entry: Corruption, images: np.ndarray, keys: Sequence[object], severity: int | None) -> str:
    text = f"{VERSION} {entry.version} {entry.name} {severity} {images.shape} {[*map(str, keys)]}"
    digest = hashlib.sha256(text.encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()[:32]


def _kept(path: Path) -> np.ndarray | None:
    """The images of a file; None where there is none. A damaged file is named, removed, and is none."""
    try:
        return tensors.read(path, {"corrupted": path.stem})[0]["images"]
    except FileNotFoundError:
        return None
    except tensors.DamagedFileError as problem:
        print(f"store: {problem}; it is made again", flush=True)
        remove(path)
        return None
