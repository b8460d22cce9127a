"""Arrays in an ``.npz`` file, read without numpy, a piece at a time. Standard library only."""

import ast
import math
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deltaball.base.errors import InputError

STARTS = (b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"\x93NUMPY\x03\x00")
PIECE = 2**24  # bytes that are read at once; a multiple of every item's size


@dataclass(frozen=True)
class RawArray:
    """An array as bytes: numpy's dtype string (``|u1``, ``<i8``…), shape, C-ordered little-endian data."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def pieces(self) -> Iterator[bytes]:
        """All of the data, one piece after the other."""
        yield self.data


@dataclass(frozen=True)
class StoredArray(RawArray):
    """An array in an open archive, of which `data` is what precedes: it is read when its pieces are asked for."""

    archive: zipfile.ZipFile
    name: str

    def pieces(self) -> Iterator[bytes]:
        with self.archive.open(f"{self.name}.npy") as file:
            file.read(len(self.data))
            count = 0
            while piece := file.read(PIECE):
                count += len(piece)
                yield piece
        # Of text (<U5) the number counts characters, and what is wrong is said where arrays are looked at.
        item = int(self.dtype[2:]) if self.dtype[1:2] in "uifb" and self.dtype[2:].isdigit() else 0
        if item and count != item * math.prod(self.shape):
            raise InputError(
                f"{self.archive.filename}: {self.name} is cut: {count} bytes for {self.dtype} of shape {self.shape}"
            )


def stored(archive: zipfile.ZipFile, name: str) -> StoredArray:
    """An array of an archive. Raises InputError where its header is damaged, or its numbers are in Fortran order."""
    # The .npy format, versions 1 to 3: magic, version, header length, a Python literal, the data.
    with archive.open(f"{name}.npy") as file:
        start = file.read(8)
        wide = start[6:7] != b"\x01"
        counted = file.read(4 if wide else 2)
        try:
            length = struct.unpack("<I" if wide else "<H", counted)[0]
            literal = file.read(length)
            dtype, shape, fortran = _described(start, literal)
        except (struct.error, SyntaxError, ValueError, KeyError, TypeError, RecursionError, MemoryError) as problem:
            raise InputError(f"{archive.filename}: the header of {name} is damaged ({problem})") from None
    if fortran and len(shape) > 1:
        raise InputError(f"{archive.filename}: {name} is in Fortran order; save numpy.ascontiguousarray of it")
    return StoredArray(dtype, shape, start + counted + literal, archive, name)


def _described(start: bytes, literal: bytes) -> tuple[str, tuple[int, ...], Any]:
    written = literal.decode("utf-8")
    header = ast.literal_eval(written.strip())
    dtype, shape, fortran = header["descr"], header["shape"], header["fortran_order"]
    if start not in STARTS or not written.endswith("\n") or any(type(side) is not int for side in shape):
        raise ValueError("not one that numpy writes")
    return str(dtype), tuple(shape), fortran
