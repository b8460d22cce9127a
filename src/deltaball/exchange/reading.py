"""Networks of files, whatever their format, as far as no weights are needed."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from deltaball.base.errors import InputError, alternatives
from deltaball.exchange.conventions import Convention
from deltaball.exchange.described import Description, described
from deltaball.exchange.files import NetworkFile
from deltaball.networks.layers import Layers, Normalise

FORMATS = (".keras", ".onnx", ".safetensors")

# Means and deviations of pixels from 0 to 1 are less.
LARGEST_OF_UNIT = 5.0


def digest(path: Path) -> str:
    """SHA-256 of a network's file and of the files that belong to it. Raises InputError where one cannot be read."""
    content = hashlib.sha256()
    for part in (path, *_companions(path)):
        content.update(_content_digest(part, *_state(part)))
    return content.hexdigest()


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from None
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4096)
def _content_digest(path: Path, size: int, changed: int) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from None


def _companions(path: Path) -> list[Path]:
    _check_format(path)
    beside = [path.with_suffix(".yaml")] if path.with_suffix(".yaml").exists() else []
    if path.suffix == ".onnx":
        from deltaball.exchange import onnx_files

        with naming(path):
            return [*beside, *onnx_files.companions(path)]
    return beside


def layers(path: Path, shape: tuple[int, int, int], classes: int) -> Layers:
    """The layers of a file's network for images [height, width, channels].

    Raises InputError as `opened` does, and where something in it is no layer of ours.
    """
    return _layers(path, digest(path), shape, classes)


@lru_cache(maxsize=4096)
def _layers(path: Path, content: str, shape: tuple[int, int, int], classes: int) -> Layers:
    file = opened(path, shape, classes)
    if file.layers is None:
        raise InputError(
            f"{path}: there is no layer for {file.lacking}, and networks of a study are layers; "
            "`deltaball measure-file` attacks it as it is"
        )
    return file.layers


def opened(path: Path, shape: tuple[int, int, int], classes: int, given: Convention | None = None) -> NetworkFile:
    """The network of a file for images [height, width, channels] of so many classes.

    `given` stands in for what is written beside the file.

    Raises InputError, one line that names the file, where it cannot be used.
    """
    _check_format(path)
    description = described(path)
    with naming(path):
        convention = given or description.input.convention()
        convention.check(shape[2])
        found = _read(path, shape, convention, description)
        if convention.pixels is None and _takes_bytes(found.layers):
            found = _read(path, shape, replace(convention, pixels=(0.0, 255.0)), description)
        if found.classes != classes:
            raise InputError(f"has {found.classes} classes, and the data set has {classes}")
    return found


def _check_format(path: Path) -> None:
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: no network is read from '{path.suffix}' files; possible: {', '.join(FORMATS)}")
    if not path.is_file():
        there = [one.name for one in path.parent.glob("*") if one.suffix in FORMATS] if path.parent.is_dir() else []
        more = f"; {alternatives(path.name, there)}" if there else ""
        raise InputError(f"{path}: there is no such file{more}")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """What goes wrong names the file."""
    try:
        yield
    except InputError as problem:
        named = str(problem).startswith(f"{path.with_suffix('')}.")
        raise InputError(str(problem) if named else f"{path}: {problem}") from None


def _read(path: Path, shape: tuple[int, int, int], convention: Convention, description: Description) -> NetworkFile:
    if path.suffix == ".safetensors":
        from deltaball.exchange import tensor_files

        return tensor_files.read(path, shape, convention, description)
    if description.layers:
        raise InputError(f"{path.with_suffix('.yaml')} lists layers, and the file has its own; take them out")
    if path.suffix == ".onnx":
        from deltaball.exchange import onnx_files

        return onnx_files.read(path, shape, convention)
    from deltaball.exchange import keras_files

    return keras_files.read(path, shape, convention)


def _takes_bytes(layers: Layers | None) -> bool:
    """Whether a network begins by scaling pixels that must go far beyond 1."""
    first = layers.sequence[0] if layers else None
    if not isinstance(first, Normalise):
        return False
    return max(map(abs, first.mean)) > LARGEST_OF_UNIT or max(map(abs, first.deviation)) > LARGEST_OF_UNIT
