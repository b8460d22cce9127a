"""What a table says of itself in the metadata of its parquet file, and whether the file is still what was written.

A seal says whose the table is, and holds a checksum of the file's bytes, in which its own 64 characters count as
zeros. Light: no table is read for it.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

MAGIC = b"PAR1"  # how every parquet file begins and ends
BLANK = "0" * 64
SEAL = re.compile(rb"sha256=([0-9a-f]{64}) (\{[^{}]*\})")


def blank(identity: dict[str, str]) -> str:
    """A seal without its checksum, to be put in a file's metadata; `sealed` fills the checksum in."""
    return f"sha256={BLANK} {json.dumps(identity, sort_keys=True)}"


def sealed(content: bytes) -> bytes:
    """A file's bytes that have a blank seal, with their checksum in it."""
    start, end = list(SEAL.finditer(content))[-1].span(1)
    return content[:start] + hashlib.sha256(content).hexdigest().encode() + content[end:]


def damage(path: Path) -> str | None:
    """Why a file is not what was written; None where it is, or is not there, or has no seal."""
    if path.is_dir():
        return f"{path} is a folder"
    if not path.exists():
        return None
    content = path.read_bytes()
    if len(content) < 2 * len(MAGIC) or not content.startswith(MAGIC) or not content.endswith(MAGIC):
        return f"{path} is damaged (it is cut, or no table)"
    seals = list(SEAL.finditer(content))
    if not seals:
        torn = any(piece in content for piece in (b"sha256=", b'"asked"', b'"table": "'))
        return f"{path} is damaged (it does not say whose it is)" if torn else None
    start, end = seals[-1].span(1)
    if hashlib.sha256(content[:start] + BLANK.encode() + content[end:]).hexdigest().encode() != seals[-1][1]:
        return f"{path} is damaged (its checksum does not fit)"
    return None


def identity(path: Path) -> dict[str, Any] | None:
    """What the seal of a file that is not damaged says; None where it has none."""
    seals = list(SEAL.finditer(path.read_bytes()))
    return json.loads(seals[-1][2]) if seals else None
