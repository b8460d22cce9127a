"""What was found out about files that take long to read, kept until they change. Standard library only."""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from deltaball.base.files import written_whole

LARGE = 2**25  # bytes; what is smaller is read again

# A file that was changed less than this before it was read may be changed again within the resolution of its clock.
SETTLED_SECONDS = 5.0


def folder() -> Path:
    """Where it is kept: among the user's caches, from which anything may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deltaball"


def recall(path: Path, version: str) -> Any:
    """What `remember` kept of a file by this `version` of the code; None where it kept nothing or the file changed."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # RuntimeError: no home
        checksum, _, content = _place(path, version).read_text(encoding="utf-8").partition("\n")
        if checksum == _checksum(content):
            kept = json.loads(content)
            return kept["found"] if kept["file"] == state(path) else None
    return None


def remember(path: Path, version: str, before: list[Any], found: Any) -> None:
    """Keep what was found in a large file, of which `before` is the `state` before it was read, where that can be."""
    with contextlib.suppress(OSError, RuntimeError):
        settled = time.time() - max(before[-2:]) / 1e9 > SETTLED_SECONDS
        if settled and path.stat().st_size >= LARGE and before == state(path):
            content = json.dumps({"file": before, "found": found})
            with written_whole(_place(path, version)) as temporary:
                temporary.write_text(f"{_checksum(content)}\n{content}", encoding="utf-8")


def state(path: Path) -> list[Any]:
    """What changes when a file does. Its inode's own time cannot be set back, as that of its content can."""
    found = path.stat()
    return [str(path.resolve()), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _place(path: Path, version: str) -> Path:
    return folder() / f"{hashlib.sha256(f'{path.resolve()} {version}'.encode()).hexdigest()[:32]}.json"


def _checksum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
