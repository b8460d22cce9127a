"""GTSRB, German traffic signs, as files of the data folder: 43 classes, paper 001's ten, and their validation splits.

The benchmark is of Stallkamp et al. 2012, "Man vs. computer". Its training images come in tracks of about 30 frames of
one physical sign. A split by frames would show each sign to both sides; these go by track.
"""

import csv
import hashlib
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from deltaball.base.errors import InputError
from deltaball.base.files import written_whole
from deltaball.data.catalogue import ARRAYS, DatasetFacts, read_facts

CLASSES = 43

# Paper 001 names neither its ten classes nor their numbers; its 12,660 training and 4,170 test images are these.
TEN = (3, 5, 6, 11, 12, 13, 14, 32, 38, 39)

# Of each class one track in so many is for validation.
HELD_OUT = 5

WHERE = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"

# What is downloaded from there, 354 MB, and its md5.
ARCHIVES = {
    "GTSRB_Final_Training_Images.zip": "f33fd80ac59bff73c82d25ab499e03a3",
    "GTSRB_Final_Test_Images.zip": "c7e4e6327067d32654124b0fe9e82185",
    "GTSRB_Final_Test_GT.zip": "fe31e9c9270bbcd7b84b7f21a9d9d9e5",
}

# Where the training images lie in an archive: the benchmark's, and the one of torchvision, which has fewer.
TRAINING = ("GTSRB/Final_Training/Images", "GTSRB/Training")
TEST = "GTSRB/Final_Test/Images"
TEST_LABELS = "GT-final_test.csv"

Arrays = Mapping[str, np.ndarray]


def write(folder: Path, arrays: Arrays) -> Iterator[DatasetFacts]:
    """Write ``gtsrb``, ``gtsrb10`` and of both a ``…_validation`` into a folder; the facts of each. A gtsrb.npz stays.

    A ``…_validation`` holds training images alone: its test images are those of tracks that it does not train on.
    Raises InputError when a class has one track only.
    """
    ten = paper_001(arrays)
    for name, made in (("gtsrb", arrays), ("gtsrb10", ten)):
        for path, content in ((folder / f"{name}.npz", made), (folder / f"{name}_validation.npz", by_track(made))):
            if not path.exists() or path.stem != "gtsrb":
                with written_whole(path) as temporary, temporary.open("wb") as file:
                    np.savez(file, **content)
            yield read_facts(path)


def from_file(path: Path) -> dict[str, np.ndarray]:
    """GTSRB from an ``.npz`` with x_train, y_train, x_test, y_test and track_train, all as in the benchmark.

    Raises InputError when it is not that.
    """
    classes = read_facts(path).classes
    if classes != CLASSES:
        raise InputError(f"{path}: it has {classes} classes; GTSRB has {CLASSES}")
    with np.load(path, allow_pickle=False) as archive:
        if "track_train" not in archive:
            raise InputError(
                f"{path}: no array track_train, the track of each training image; images of one track show one sign, "
                "and without it they would be on both sides of a split"
            )
        arrays = {name: archive[name] for name in (*ARRAYS, "track_train")}
    count, tracks = len(arrays["x_train"]), arrays["track_train"]
    if tracks.shape != (count,) or tracks.dtype.kind not in "iu":
        raise InputError(
            f"{path}: track_train is {tracks.dtype} of shape {tracks.shape}; it should hold an integer for each of the "
            f"{count} images of x_train"
        )
    if arrays["x_train"].dtype != np.uint8 or arrays["x_test"].dtype != np.uint8:
        raise InputError(f"{path}: images of {arrays['x_train'].dtype} and {arrays['x_test'].dtype}; uint8 is needed")
    return arrays | {name: arrays[name].reshape(-1) for name in ("y_train", "y_test")}


def from_folder(folder: Path, size: int) -> dict[str, np.ndarray]:
    """GTSRB from its unpacked archives, the whole pictures in colour at `size` × `size` (bilinear, antialiased).

    The folder is laid out as torchvision's ``gtsrb``. Raises InputError when it is not that, or an image is missing or
    damaged.
    """
    training = next((folder / place for place in TRAINING if (folder / place).is_dir()), None)
    if training is None:
        raise InputError(f"{folder}: no folder {' or '.join(TRAINING)} in it, as GTSRB's archives unpack to")
    names, labels = [], []
    for number in range(CLASSES):
        listed = training / f"{number:05d}" / f"GT-{number:05d}.csv"
        files = [listed.parent / name for name, label in _listed(listed) if _of(label, number, listed)]
        names += files
        labels += [number] * len(files)
    test = _listed(folder / TEST_LABELS)
    return {
        "x_train": _images(names, size),
        "y_train": np.array(labels, np.uint8),
        "x_test": _images([folder / TEST / name for name, _ in test], size),
        "y_test": np.array([label for _, label in test], np.uint8),
        "track_train": np.array([_track(name) for name in names], np.uint16),
    }


def download(folder: Path, where: str = WHERE, archives: Mapping[str, str] = ARCHIVES) -> Path:
    """Download GTSRB's archives into a folder, what it lacks of them, check and unpack them there; returns it.

    Raises InputError when one cannot be had, or is not the one with the md5.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, expected in archives.items():
        path = folder / name
        if not (path.exists() and _md5(path) == expected):
            try:
                with written_whole(path) as temporary:
                    urllib.request.urlretrieve(where + name, temporary)
                    found = _md5(temporary)
                    if found != expected:
                        raise InputError(f"{where}{name}: its md5 is {found} and should be {expected}")
            except OSError as problem:
                raise InputError(
                    f"{where}{name} could not be downloaded ({problem}); on a machine without network unpack "
                    f"{', '.join(archives)} in {folder} and give this folder"
                ) from None
    for name in archives:
        with zipfile.ZipFile(folder / name) as archive:
            archive.extractall(folder)
    return folder


def paper_001(arrays: Arrays) -> dict[str, np.ndarray]:
    """The ten classes of paper 001, in grey (ITU-R BT.601), numbered from 0 in the benchmark's order."""
    chosen = {}
    for split in ("train", "test"):
        rows = np.isin(arrays[f"y_{split}"], TEN)
        chosen[f"x_{split}"] = _grey(arrays[f"x_{split}"][rows])
        chosen[f"y_{split}"] = np.searchsorted(TEN, arrays[f"y_{split}"][rows]).astype(np.uint8)
        if split == "train":
            chosen["track_train"] = arrays["track_train"][rows]
    return chosen


def by_track(arrays: Arrays) -> dict[str, np.ndarray]:
    """The training images split in two. Of each class one track in five is tested on: its last, and every fifth before.

    Raises InputError when a class has one track only.
    """
    labels, tracks = arrays["y_train"], arrays["track_train"]
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.unique(tracks[labels == label])
        if len(own) < 2:
            raise InputError(f"class {label} has one track, {own[0]}, which cannot be on both sides of a split")
        held |= (labels == label) & np.isin(tracks, own[::-HELD_OUT])
    images = arrays["x_train"]
    return {
        "x_train": images[~held],
        "y_train": labels[~held],
        "x_test": images[held],
        "y_test": labels[held],
        "track_train": tracks[~held],
        "track_test": tracks[held],
    }


def _grey(images: np.ndarray) -> np.ndarray:
    """Images [n, h, w, 3] of uint8 in grey [n, h, w]; grey ones as they are."""
    if images.ndim == 3 or images.shape[3] == 1:
        return images.reshape(images.shape[:3])
    weights = np.array([299, 587, 114], np.uint32)
    return ((images.astype(np.uint32) @ weights + 500) // 1000).astype(np.uint8)


def _listed(path: Path) -> list[tuple[str, int]]:
    """File names and classes of an annotation file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row["Filename"], int(row["ClassId"])) for row in csv.DictReader(file, delimiter=";")]
    except OSError:
        raise InputError(f"{path}: not there; the archives of GTSRB have it ({', '.join(ARCHIVES)})") from None
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(f"{path}: not an annotation file of GTSRB, with Filename and ClassId ({problem})") from None
    if not rows:
        raise InputError(f"{path}: no images are listed in it")
    return rows


def _of(label: int, number: int, path: Path) -> bool:
    if label != number:
        raise InputError(f"{path}: an image of class {label} in the folder of class {number}")
    return True


def _track(path: Path) -> int:
    """TTTTT_FFFFF.ppm is a frame of a track."""
    track, _, frame = path.stem.partition("_")
    if not (track.isdigit() and frame.isdigit()):
        raise InputError(f"{path}: its name should be of the form TRACK_FRAME.ppm, which says whose sign it shows")
    return int(track)


def _images(paths: list[Path], size: int) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    images = np.empty((len(paths), size, size, 3), np.uint8)
    for place, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                images[place] = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        except FileNotFoundError:
            raise InputError(f"{path}: not there, though it is listed; unpack the archives again") from None
        except (UnidentifiedImageError, OSError, ValueError) as problem:
            raise InputError(f"{path}: not a readable image ({problem}); unpack the archives again") from None
    return images


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
