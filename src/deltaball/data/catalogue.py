"""What is known of a data set before it is loaded: sizes, classes, fingerprint. Standard library only.

The study checks ε against the number of test points and the plan counts weights and FLOP, both before any
array library is imported. Of a data set that deltaball can fetch the facts are written down here; of a
``NAME.npz`` that the user dropped into the data folder they are read from the file.
"""

import hashlib
import lzma
import math
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from deltaball.base.errors import InputError, alternatives
from deltaball.data import npz, remembered
from deltaball.data.npz import RawArray

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# How many channels an image of these data sets may be taken to have.
CHANNELS = (1, 3, 4)
IMAGE_DTYPES = ("|u1", "<f4")
ONE = 0x3F800000  # the bits of 1.0 in float32
# Made by a command of their own (`data.gtsrb`), and of no known content: sizes differ. Their images come in tracks.
SIGNS = ("gtsrb", "gtsrb_validation", "gtsrb10", "gtsrb10_validation")
LABEL_CODES = {"|u1": "B", "|i1": "b", "<u2": "H", "<i2": "h", "<u4": "I", "<i4": "i", "<u8": "Q", "<i8": "q"}


@dataclass(frozen=True)
class DatasetFacts:
    """Sizes of a data set; `fingerprint` is the hash of its arrays (`facts_of`)."""

    name: str
    shape: tuple[int, int, int]  # height, width, channels
    classes: int
    train: int
    test: int
    fingerprint: str

    @property
    def is_catalogued(self) -> bool:
        """Whether these are exactly the arrays that the name stands for everywhere."""
        known = CATALOGUE.get(self.name)
        return known is not None and known.fingerprint == self.fingerprint


CATALOGUE = {
    facts.name: facts
    for facts in (
        DatasetFacts(
            "mnist5k", (28, 28, 1), 10, 4000, 1000, "06edf98fa1342ec49421244757e44f649771e94c10937605a002196bcff5bab8"
        ),
        DatasetFacts(
            "mnist", (28, 28, 1), 10, 60000, 10000, "5db30ac3dfcfe3e7d382178377084152fa4a250f6ba53835fb82ef226057236c"
        ),
        DatasetFacts(
            "fashion_mnist",
            (28, 28, 1),
            10,
            60000,
            10000,
            "85dfb8d9b428c859217824fa8f858f42069124cd021b61cc7cc37bfa5a509f19",
        ),
        DatasetFacts(
            "cifar10", (32, 32, 3), 10, 50000, 10000, "f09cebe41e3a101a7d67c0479b1505f1ea41cb616a36be7003350dfb348468ea"
        ),
    )
}


# What that command makes of a gtsrb.npz of 32×32 pixels: a plan goes by it until there is a file, of whatever content.
EXPECTED = {
    "gtsrb10": DatasetFacts(
        "gtsrb10", (32, 32, 1), 10, 12660, 4170, "5e261038d9872ce4c253e1e6f736d4318f9c4d5b2c766fe3a0feb9be7e973e46"
    )
}


def facts(name: str, folder: Path) -> DatasetFacts:
    """The facts of data set `name`; a ``NAME.npz`` in `folder` wins over the catalogue, and that over what is expected.

    Raises InputError when the name is none of them, or the file is damaged.
    """
    path = folder / f"{name}.npz"
    if path.exists():
        return _known_facts(path)
    if name in CATALOGUE or name in EXPECTED:
        return CATALOGUE.get(name) or EXPECTED[name]
    check_there(name, folder)
    raise InputError(
        f"no data set '{name}': {alternatives(name, CATALOGUE)}; or put {path} "
        f"(numpy.savez with {', '.join(ARRAYS)}) in place"
    )


def check_there(name: str, folder: Path) -> None:
    """Raise InputError for a data set that a command makes, while its file is not in `folder`."""
    path = folder / f"{name}.npz"
    if name in SIGNS and not path.exists():
        raise InputError(f"no data set '{name}': `deltaball gtsrb` makes {path}, or put another one there")


def _known_facts(path: Path) -> DatasetFacts:
    """As `read_facts`, which takes seconds where a file is large: what it found is kept until the file changes."""
    # By code that checks otherwise the file is read again.
    version = hashlib.sha256(b"".join(Path(code).read_bytes() for code in (__file__, npz.__file__))).hexdigest()
    known = remembered.recall(path, version)
    if known is not None:
        return DatasetFacts(**{**known, "shape": tuple(known["shape"])})
    before = remembered.state(path)
    found = read_facts(path)
    remembered.remember(path, version, before, asdict(found))
    return found


def read_facts(path: Path) -> DatasetFacts:
    """The facts of an ``.npz`` file, read without numpy. Raises InputError naming what is wrong with it."""
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [name for name in ARRAYS if f"{name}.npy" not in archive.namelist()]
            if missing:
                raise InputError(f"{path}: no array {', '.join(missing)}; needed are {', '.join(ARRAYS)}")
            arrays = {name: npz.stored(archive, name) for name in ARRAYS}
            facts = facts_of(path.stem, arrays, str(path))
            _check_meant(arrays, facts, str(path))
            return facts
    # NotImplementedError and RuntimeError: a damaged header that asks for encryption or another zip version.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError) as problem:
        raise InputError(f"{path}: not a readable .npz file ({problem}); write it again, with numpy.savez") from None


def facts_of(name: str, arrays: dict[str, RawArray], source: str) -> DatasetFacts:
    """The facts of four arrays: images [n, height, width(, channels)], labels [n] or [n, 1] from 0 to 255.

    The fingerprint covers values, order and dtype of the images and the values of the labels, so it is the same
    however the arrays are stored. Raises InputError, starting with `source`, when they are not such a data set.
    """
    digest = hashlib.sha256()
    shapes, classes = set(), 0
    for split in ("train", "test"):
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if images.dtype not in IMAGE_DTYPES or len(images.shape) not in (3, 4) or 0 in images.shape:
            raise InputError(
                f"{source}: x_{split} is {images.dtype} of shape {images.shape}; it should be uint8, or float32 "
                "in [0, 1], of shape (n, height, width) or (n, height, width, channels)"
            )
        if labels.dtype not in LABEL_CODES or labels.shape not in ((images.shape[0],), (images.shape[0], 1)):
            raise InputError(
                f"{source}: y_{split} is {labels.dtype} of shape {labels.shape}; it should hold one integer class "
                f"for each of the {images.shape[0]} images of x_{split}"
            )
        try:
            values = _labels(labels)
        except ValueError:
            raise InputError(f"{source}: y_{split} holds a class below 0 or above 255") from None
        shape = (*images.shape, 1)[1:4]
        shapes.add(shape)
        classes = max(classes, max(values) + 1)
        digest.update(f"{split} {images.dtype} {images.shape[0]} {shape}".encode())
        for piece in images.pieces():
            digest.update(piece)
        digest.update(values)
    if len(shapes) > 1:
        raise InputError(f"{source}: the images of x_train and x_test have different shapes, {sorted(shapes)}")
    train, test = arrays["x_train"].shape[0], arrays["x_test"].shape[0]
    return DatasetFacts(name, shapes.pop(), classes, train, test, digest.hexdigest())


def _check_meant(arrays: dict[str, RawArray], facts: DatasetFacts, source: str) -> None:
    """Refuse what is a data set by its form, and surely not the one that is meant."""
    for name in ("x_train", "x_test"):
        if arrays[name].dtype == "<f4":
            _check_range(arrays[name], f"{source}: {name}")
    height, width, channels = facts.shape
    if height in CHANNELS and width > 1 and channels not in CHANNELS:
        raise InputError(
            f"{source}: the images are {height}×{width} with {channels} channels, which looks like channels first; "
            "save numpy.moveaxis(x, 1, -1)"
        )
    labels = {value for split in ("train", "test") for value in _labels(arrays[f"y_{split}"])}
    absent = sorted(set(range(facts.classes)) - labels)
    if absent:
        raise InputError(
            f"{source}: the classes go from {min(labels)} to {max(labels)}, and no image has class {absent[0]}; "
            "number them from 0 without a gap"
        )
    if facts.classes < 2:
        raise InputError(f"{source}: all images have class 0; a classifier needs two classes or more")


def _check_range(images: RawArray, what: str) -> None:
    # Floats of [0, 1] as integers are those up to that of 1; -0.0, infinities and NaN lie above it.
    if all(max(memoryview(piece).cast("I"), default=0) <= ONE for piece in images.pieces()):
        return
    low, high, numbers = math.inf, -math.inf, True
    for piece in images.pieces():
        values = memoryview(piece).cast("f").tolist()
        numbers = numbers and not any(map(math.isnan, values))
        low, high = min(low, *values), max(high, *values)
    if not numbers:
        raise InputError(f"{what} has pixels that are not a number (NaN); float images must lie in [0, 1]")
    if low < 0 or high > 1:
        raise InputError(
            f"{what} has pixels from {low:g} to {high:g}; float images must lie in [0, 1]{_meant(low, high)}"
        )


def _meant(low: float, high: float) -> str:
    """What to do with pixels of the usual other ranges."""
    if low >= 0 and high <= 255:
        return ": divide by 255, or save uint8"
    return ": save (x + 1) / 2" if low >= -1 and high <= 1 else ""


def _labels(array: RawArray) -> bytes:
    """Labels, each a byte. Raises ValueError for one below 0 or above 255."""
    return bytes(memoryview(b"".join(array.pieces())).cast(LABEL_CODES[array.dtype]).tolist())
