"""Files that are there whole or not at all. Standard library only."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well and is removed otherwise.

    An OSError of the block that names no file, as that of a full disk, comes out naming `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: some writers choose their format by it.
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as problem:
        if problem.filename is None:
            problem.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def written_checked(path: Path) -> Iterator[Path]:
    """As `written_whole`; beside the file stays a checksum, by which `changed` tells whether it is what was written."""
    with written_whole(path) as temporary:
        yield temporary
        note = _note(path)
        # Both, for a process may be killed between the note and the file.
        sums = [*_sums(note)[:1], hashlib.sha256(temporary.read_bytes()).hexdigest()]
        with written_whole(note) as noted:
            noted.write_text("\n".join(sums[::-1]), encoding="utf-8")


def changed(path: Path) -> str | None:
    """Why a file is not what was written; None where it is, or is not there, or nothing is known of it."""
    if path.is_dir():
        return f"{path} is a folder"
    if not path.exists():
        return None
    sums = _sums(_note(path))
    if sums and hashlib.sha256(path.read_bytes()).hexdigest() not in sums:
        return f"{path} is not what was written"
    return None if path.stat().st_size else f"{path} is empty"


def _note(path: Path) -> Path:
    return path.parent / ".checksums" / path.name


def _sums(note: Path) -> list[str]:
    """The checksums that a note holds, the newest first; none of a damaged one."""
    try:
        lines = note.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        if note.is_dir():
            remove(note)
        return []
    return lines if all(len(line) == 64 for line in lines) else []


def remove(path: Path) -> None:
    """Remove a file that is damaged, or a folder that stands in its place; whatever is gone already is gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
