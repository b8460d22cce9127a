"""Arrays in TensorFlow's checkpoints (a tensor bundle: NAME.index and NAME.data-00000-of-00001), without TensorFlow.

The index is a table of sorted names in blocks, each entry a protocol buffer that says where in the data an array lies.
Every block and every array has a checksum, and all are checked.
"""

import struct
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deltaball.base.errors import InputError

MAGIC = 0xDB4775248B80FB57
FOOTER, TRAILER = 48, 5
FLOAT32 = 1  # of TensorFlow's data types
POLYNOMIAL = 0x82F63B78  # Castagnoli's, its lowest power first


class Entry(NamedTuple):
    """Where an array lies in the data."""

    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


def arrays(checkpoint: Path, scope: str) -> dict[str, np.ndarray]:
    """The float32 arrays of a checkpoint whose names begin with `scope`, by name.

    `checkpoint` is the path without `.index`. Raises InputError where it cannot be read or a checksum does not fit.
    """
    try:
        shards, entries = _index(_content(checkpoint.with_name(f"{checkpoint.name}.index")), scope)
        contents = {
            shard: _content(checkpoint.with_name(f"{checkpoint.name}.data-{shard:05d}-of-{shards:05d}"))
            for shard in {one.shard for one in entries.values()}
        }
        return {name: _array(contents[one.shard], one) for name, one in entries.items()}
    except (IndexError, ValueError, KeyError, struct.error) as problem:
        if isinstance(problem, InputError):
            raise InputError(f"{checkpoint}: {problem}") from None
        raise InputError(f"{checkpoint}: not a readable checkpoint of TensorFlow ({problem}); fetch it again") from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise InputError(f"{path.name} cannot be read ({problem.strerror})") from None


def _array(content: bytes, entry: Entry) -> np.ndarray:
    found = content[entry.offset : entry.offset + entry.size]
    if masked(crc32c(found)) != entry.checksum:
        raise ValueError("an array's checksum does not fit")
    return np.frombuffer(found, "<f4").reshape(entry.shape)


def _index(content: bytes, scope: str) -> tuple[int, dict[str, Entry]]:
    """In how many files the data are, and the entries of arrays."""
    footer = content[-FOOTER:]
    if len(footer) < FOOTER or struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise ValueError("its index does not end as one does")
    place = _numbers(footer, 4)[2:]
    shards, found = 1, {}
    for _, handle in _block(content, *place):
        for key, value in _block(content, *_numbers(handle, 2)):
            message = _message(value)
            if not key:
                shards = message.get(1, [1])[0]
                if message.get(2, [0])[0]:
                    raise ValueError("it is of a machine that has the highest byte first")
            elif key.decode().startswith(scope) and message.get(1) == [FLOAT32]:
                found[key.decode()] = _entry(message)
    return shards, found


def _entry(message: Mapping[int, list[Any]]) -> Entry:
    if 7 in message:
        raise ValueError("it has an array in slices")
    shape = _message(message.get(2, [b""])[0])
    sides = tuple(_message(side).get(1, [0])[0] for side in shape.get(2, []))
    shard, offset, size = (message.get(number, [0])[0] for number in (3, 4, 5))
    return Entry(sides, shard, offset, size, message[6][0])


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block; a key has what it shares with the one before left out."""
    block, trailer = content[offset : offset + size], content[offset + size : offset + size + TRAILER]
    kind, checksum = struct.unpack("<BI", trailer)
    if masked(crc32c(block + trailer[:1])) != checksum:
        raise ValueError("the checksum of its index does not fit")
    if kind:
        raise ValueError("its index is compressed")
    (restarts,) = struct.unpack("<I", block[-4:])
    end, place, key = len(block) - 4 * (restarts + 1), 0, b""
    while place < end:
        (shared, own, length), place = _varints(block, place, 3)
        key = key[:shared] + block[place : place + own]
        place += own + length
        yield key, block[place - length : place]


def _numbers(content: bytes, count: int) -> list[int]:
    return _varints(content, 0, count)[0]


def _varints(content: bytes, place: int, count: int) -> tuple[list[int], int]:
    """So many numbers of seven bits a byte, lowest first, from a place on; and the place after them."""
    found = []
    for _ in range(count):
        number, shift = 0, 0
        while True:
            byte = content[place]
            number, place, shift = number | (byte & 127) << shift, place + 1, shift + 7
            if byte < 128:
                break
        found.append(number)
    return found, place


def _message(content: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol buffer by their number: numbers, and bytes of what is nested."""
    fields: dict[int, list[Any]] = {}
    place = 0
    while place < len(content):
        (tag,), place = _varints(content, place, 1)
        if tag & 7 == 0:
            (value,), place = _varints(content, place, 1)
        elif tag & 7 == 2:
            (size,), place = _varints(content, place, 1)
            value, place = content[place : place + size], place + size
        elif tag & 7 == 5:
            (value,), place = struct.unpack("<I", content[place : place + 4]), place + 4
        else:
            raise ValueError("an entry of its index is none")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def masked(checksum: int) -> int:
    """A checksum as it is stored: turned, so that one of what holds checksums is not weak."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    """The CRC-32 of Castagnoli's polynomial.

    It is linear: rows of bytes are divided side by side, and their remainders joined.
    """
    if len(content) < 4:
        return _short(content)
    # To begin with ones is to flip the first four bytes; zeros before the first one change nothing.
    first = bytes(byte ^ 255 for byte in content[:4])
    rows = max(1, int(len(content) ** 0.5))
    width = -(-len(content) // rows)
    padded = np.frombuffer((first + content[4:]).rjust(rows * width, b"\0"), np.uint8).reshape(rows, width)
    remainders = np.zeros(rows, np.uint32)
    for column in padded.T:
        remainders = _shifted(remainders, column)
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(width):
        bits = _shifted(bits, 0)
    joined, powers = 0, [int(one) for one in bits]
    for remainder in remainders.tolist():
        moved = 0
        while joined:
            lowest = joined & -joined
            moved, joined = moved ^ powers[lowest.bit_length() - 1], joined ^ lowest
        joined = moved ^ remainder
    return joined ^ 0xFFFFFFFF


def _short(content: bytes) -> int:
    remainder = np.array([0xFFFFFFFF], np.uint32)
    for byte in content:
        remainder = _shifted(remainder, byte)
    return int(remainder[0]) ^ 0xFFFFFFFF


def _shifted(remainders: np.ndarray, byte: np.ndarray | int) -> np.ndarray:
    """Remainders with a byte more."""
    return _table()[(remainders ^ byte) & 255] ^ (remainders >> 8)


@cache
def _table() -> np.ndarray:
    found = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        found = np.where(found & 1, found >> 1 ^ POLYNOMIAL, found >> 1).astype(np.uint32)
    return found
