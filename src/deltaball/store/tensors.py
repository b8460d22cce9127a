"""Files of arrays, with facts beside them: safetensors, written whole or not at all, checked when they are read."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from deltaball.base.errors import OutsideError
from deltaball.base.files import written_whole


class DamagedFileError(OutsideError):
    """A file of the store that cannot be what was written there; the message names it."""


def write(
    path: Path, tensors: dict[str, np.ndarray], identity: dict[str, str], facts: Mapping[str, Any] | None = None
) -> None:
    """Write tensors by name, with what identifies them and their `facts` (JSON values), whole or not at all."""
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    text = json.dumps(dict(facts or {}), sort_keys=True)
    # Two checksums, so that the facts can be trusted without reading the tensors.
    metadata = {**identity, "facts": text, "facts_sha256": _digest({}, text), "sha256": _digest(tensors, text)}
    with written_whole(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def read(path: Path, identity: dict[str, str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors and the facts of a file. Raises as `opened` and `read_facts` do."""
    with opened(path) as file:
        facts = read_facts(file, path, identity)
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if metadata.get("sha256") != _digest(tensors, metadata["facts"]):
        raise DamagedFileError(f"{path} is damaged (its checksum does not fit)")
    return tensors, facts


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file of tensors, open. Raises FileNotFoundError, and DamagedFileError wherever it turns out damaged."""
    if path.is_dir():
        raise DamagedFileError(f"{path} is a folder")
    try:
        with safe_open(path, "numpy") as file:
            yield file
    except (SafetensorError, UnicodeDecodeError) as problem:
        raise DamagedFileError(f"{path} is damaged ({problem})") from None


def read_facts(file: Any, path: Path, identity: dict[str, str]) -> dict[str, Any]:
    """The facts of an `opened` file, without its tensors. Raises DamagedFileError if it is not what `identity` says."""
    metadata = file.metadata() or {}
    for name, value in identity.items():
        if metadata.get(name) != value:
            raise DamagedFileError(f"{path} holds {name} {metadata.get(name)} instead of {value}")
    text = metadata.get("facts", "")
    if metadata.get("facts_sha256") != _digest({}, text):
        raise DamagedFileError(f"{path} is damaged (the checksum of its facts does not fit)")
    return json.loads(text)


def _digest(tensors: Mapping[str, np.ndarray], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
