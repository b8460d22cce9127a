"""Corrupted images that a user brings: ``NAME.npz`` with a map from each to the test image it comes from.

What is known of one before its arrays are loaded is read with the standard library, as of data sets.
"""

import hashlib
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deltaball.base.errors import InputError
from deltaball.data import npz
from deltaball.data.catalogue import LABEL_CODES, DatasetFacts

if TYPE_CHECKING:
    import numpy

ARRAYS = ("images", "indices")
SAVED = "numpy.savez with uint8 images (n, height, width[, channels]) and, for each, the index of its clean test image"


@dataclass(frozen=True)
class SetFacts:
    """What is known of a corrupted set; `fingerprint` is a hash of its arrays."""

    name: str
    path: Path
    shape: tuple[int, int, int]  # height, width, channels
    counts: tuple[int, ...]  # how many images there are of the test images 0, 1, …
    fingerprint: str

    @property
    def content(self) -> str:
        """The part of the fingerprint that tables name."""
        return self.fingerprint[:8]

    def check(self, facts: DatasetFacts, draws: int) -> None:
        """Raise InputError unless there are so many images of every test image of a data set, and of no other one."""
        if self.shape != facts.shape:
            raise InputError(f"{self.path}: images are {[*self.shape]}, and those of {facts.name} {[*facts.shape]}")
        if len(self.counts) > facts.test:
            raise InputError(
                f"{self.path}: index {len(self.counts) - 1} is beyond the test images of {facts.name}, 0 to "
                f"{facts.test - 1}"
            )
        counts = (*self.counts, *[0] * (facts.test - len(self.counts)))
        fewest = min(counts)
        if fewest < draws:
            place = counts.index(fewest)
            raise InputError(
                f"{self.path}: of test image {place} of {facts.name} it holds {fewest} images, and draws {draws} are "
                "asked of each; bring more, or make a data set of those test images that have some"
            )


def facts(name: str, folder: Path) -> SetFacts | None:
    """What is known of the corrupted set ``folder/NAME.npz``; None where there is no such file.

    Raises InputError naming what is wrong with it.
    """
    path = folder / f"{name}.npz"
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [one for one in ARRAYS if f"{one}.npy" not in archive.namelist()]
            if missing:
                raise InputError(f"{path}: no array {', '.join(missing)}; needed: {SAVED}")
            images, indices = (npz.stored(archive, one) for one in ARRAYS)
            return _facts(name, path, images, indices)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as problem:
        raise InputError(f"{path}: not a readable .npz file ({problem}); write it again: {SAVED}") from None


def load(known: SetFacts) -> tuple["numpy.ndarray", "numpy.ndarray"]:
    """Images uint8 [n, h, w, c] and indices int64 [n]. Raises InputError where the file was changed meanwhile."""
    import numpy as np

    if facts(known.name, known.path.parent) != known:
        raise InputError(f"{known.path}: it was changed since the study was planned; run again")
    with np.load(known.path, allow_pickle=False) as archive:
        images, indices = (archive[one] for one in ARRAYS)
    return images.reshape(-1, *known.shape), indices.reshape(-1).astype(np.int64)


def _facts(name: str, path: Path, images: npz.RawArray, indices: npz.RawArray) -> SetFacts:
    if images.dtype != "|u1" or len(images.shape) not in (3, 4) or 0 in images.shape:
        raise InputError(f"{path}: images is {images.dtype} of shape {images.shape}; needed: {SAVED}")
    if indices.dtype not in LABEL_CODES or indices.shape != images.shape[:1]:
        raise InputError(f"{path}: indices is {indices.dtype} of shape {indices.shape}; needed: {SAVED}")
    data = b"".join(indices.pieces())
    places = memoryview(data).cast(LABEL_CODES[indices.dtype]).tolist()
    if min(places) < 0:
        raise InputError(f"{path}: indices holds {min(places)}; test images are counted from 0")
    digest = hashlib.sha256(f"{images.shape} {places}".encode())
    for piece in images.pieces():
        digest.update(piece)
    counted = Counter(places)
    counts = tuple(counted[place] for place in range(max(places) + 1))
    return SetFacts(name, path, (*images.shape, 1)[1:4], counts, digest.hexdigest())
