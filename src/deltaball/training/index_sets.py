"""Which training images an adaptation sees clean, and which under a corruption: no image both ways (paper 003)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deltaball.base.draws import generator
from deltaball.data.catalogue import DatasetFacts
from deltaball.data.datasets import Dataset
from deltaball.local.corruptions.corrupted import as_bytes, corrupted
from deltaball.store.store import Store


class IndexSets(NamedTuple):
    """Indices of training images, all different."""

    clean: np.ndarray
    corrupted: Mapping[str, np.ndarray]  # by corruption


def index_sets(facts: DatasetFacts, corruptions: Sequence[str], count: int, seed: int) -> IndexSets:
    """So many images for each corruption, and the others clean; parts of one permutation per data set and seed.

    Larger sets hold smaller ones. Raises ValueError where no image would stay clean.
    """
    order = generator(f"{facts.name} {facts.fingerprint} {seed}", "corrupted images").permutation(facts.train)
    several = len(corruptions)
    if several * count >= facts.train:
        raise ValueError(f"{count} images for each of {several} corruptions, of {facts.train}")
    own = {name: order[place : several * count : several] for place, name in enumerate(corruptions)}
    return IndexSets(order[several * count :], own)


def corrupted_images(dataset: Dataset, sets: IndexSets, store: Store) -> np.ndarray:
    """The corrupted images of index sets, one corruption's after the other's, float32 [n, h, w, c]; kept in the store.

    Their random numbers are not those of test images.
    """
    found = [
        corrupted(name, as_bytes(dataset.x_train[own]), [f"training {one}" for one in own], folder=store.corrupted)
        for name, own in sets.corrupted.items()
    ]
    return np.concatenate(found).astype(np.float32) / np.float32(255)
