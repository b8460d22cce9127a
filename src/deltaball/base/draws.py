"""Random numbers by key: the same on every machine, in every pack and after any number of kills."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy


def generator(*words: object) -> "numpy.random.Generator":
    """The random numbers that belong to these words: of a trajectory for one purpose, of a point and a restart…"""
    import numpy as np

    key = hashlib.sha256(" ".join(map(str, words)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
