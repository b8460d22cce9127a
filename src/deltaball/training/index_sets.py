"""Which training images an adaptation sees clean, and which under a corruption: no image both ways (paper 003)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deltaball.base.draws import generator
from deltaball.data.catalogue import DatasetFacts
from deltaball.data.datasets import Dataset
from deltaball.local.corruptions.corrupted import as_bytes, corrupted
from deltaball.store.store import Store
from deltaball.study.transfers import Split


class IndexSets(NamedTuple):
    """Indices of training images, all different."""

    clean: np.ndarray
    corrupted: Mapping[str, np.ndarray]  # by corruption


def index_sets(facts: DatasetFacts, corruptions: Sequence[str], count: int, seed: int) -> IndexSets:
    """So many images for each corruption, and the others clean; parts of one permutation per data set and seed.

    Larger sets hold smaller ones. Raises ValueError where no image would stay clean.
    """
    order = permutation(facts, seed)
    several = len(corruptions)
    if several * count >= facts.train:
        raise ValueError(f"{count} images for each of {several} corruptions, of {facts.train}")
    own = {name: order[place : several * count : several] for place, name in enumerate(corruptions)}
    return IndexSets(order[several * count :], own)


def sharing_sets(facts: DatasetFacts, corruptions: Sequence[str], count: int, seed: int, split: Split) -> IndexSets:
    """As `index_sets`, where corruptions may have originals in common: `split` says of how many they take their own.

    Clean images are the first of all others.
    """
    if len(corruptions) * count == split.corrupted:
        own = index_sets(facts, corruptions, count, seed).corrupted if corruptions else {}
    else:
        taken = (np.arange(place * count, (place + 1) * count) % split.corrupted for place in range(len(corruptions)))
        own = {name: permutation(facts, seed)[each] for name, each in zip(corruptions, taken, strict=True)}
    return IndexSets(permutation(facts, seed)[split.corrupted :][: split.clean], own)


def permutation(facts: DatasetFacts, seed: int) -> np.ndarray:
    """The order in which the training images of a data set are given out: corrupted ones first, then clean ones."""
    return generator(f"{facts.name} {facts.fingerprint} {seed}", "corrupted images").permutation(facts.train)


def corrupted_images(dataset: Dataset, sets: IndexSets, store: Store) -> np.ndarray:
    """The corrupted images of index sets, one corruption's after the other's, float32 [n, h, w, c]; kept in the store.

    Their random numbers are not those of test images.
    """
    found = [
        corrupted(name, as_bytes(dataset.x_train[own]), [f"training {one}" for one in own], folder=store.corrupted)
        for name, own in sets.corrupted.items()
    ]
    made = np.concatenate([np.empty((0, *dataset.facts.shape), np.uint8), *found])
    return made.astype(np.float32) / np.float32(255)
