"""Which training images a network learns from, and which are held out of them to choose its epoch by.

Both are parts of one permutation per data set and seed, so that networks that differ in anything else see the same.
Test images are never among them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from deltaball.base.draws import generator
from deltaball.data.catalogue import DatasetFacts


class Split(NamedTuple):
    """Indices of training images."""

    seen: np.ndarray
    held_out: np.ndarray


def split(facts: DatasetFacts, axes: Mapping[str, Any]) -> Split | None:
    """The training images of a network with these hyper-parameters; None: it sees all of them as they lie."""
    points, held = axes.get("train_points"), axes.get("validation", 0)
    if points is None and not held:
        return None
    # Held out are the last ones, so that what is seen of few images stays the same with and without.
    order = generator(f"{facts.name} {facts.fingerprint} {axes['seed']}", "training points").permutation(facts.train)
    others = facts.train - held
    return Split(order[:others][:points], order[others:])


def seen_points(facts: DatasetFacts, axes: Mapping[str, Any]) -> np.ndarray:
    """The training images that a network sees."""
    found = split(facts, axes)
    return np.arange(facts.train) if found is None else found.seen
