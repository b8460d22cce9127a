"""One run at a time in a folder, and who it is that works there."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from deltaball.base.errors import InputError

LOCK_HELD = "DELTABALL_RUN"  # set for the Snakemake that `deltaball study` starts: the lock is held for it
MOST_SHOWN = 200  # letters of a command


def claim(folder: Path = Path()) -> TextIO | None:
    """Hold `folder` for this process's life, or until the returned file is closed; None if it is held for it already.

    Snakemake's own lock is a file that outlives a SIGKILL. Here the kernel holds the lock, which dies with its
    process. Raises InputError, that names the other process, while another run is under way.
    """
    if LOCK_HELD in os.environ:
        return None
    state = folder / ".snakemake"
    try:
        state.mkdir(exist_ok=True)
        lock = (state / "deltaball.lock").open("a+", encoding="utf-8", errors="replace")
    except OSError as problem:
        raise InputError(f"{problem.filename}: {problem.strerror}; a run needs to write here") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(lock)
        lock.close()
        raise InputError(f"another run is under way in {folder.resolve()}{holder}; wait for it or stop it") from None
    except OSError as problem:
        if problem.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        # Some network disks know no locks. Nothing is lost by two runs at once but the work that both do.
        print(f"deltaball: {folder.resolve()} knows no locks: see that one run at a time works in it", file=sys.stderr)
    sign(lock, [os.getpid()])
    return lock


def sign(lock: TextIO, processes: Sequence[int]) -> None:
    """Write into a lock who holds it. Where the disk is full, nobody is named."""
    signature = {
        "processes": [*processes],
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": _command()[:MOST_SHOWN],
    }
    with contextlib.suppress(OSError):
        lock.truncate(0)
        lock.write(json.dumps(signature))
        lock.flush()


def _command() -> str:
    program = Path(sys.argv[0])
    # `python -m` names the module's file.
    name = program.parent.name if program.name == "__main__.py" else program.name
    return " ".join([name, *sys.argv[1:]])


def _holder(lock: TextIO) -> str:
    """Who holds a lock, as far as it says so: a process that was killed may have left it to one that it started."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        lock.seek(0)
        said: dict[str, Any] = json.loads(lock.read())
        here = said["host"] == socket.gethostname()
        alive = [one for one in said["processes"] if not here or Path(f"/proc/{one}").exists() or not _proc()]
        numbers = " and ".join(map(str, alive or said["processes"]))
        return f" (`{said['command']}`, process {numbers} on {said['host']}, since {said['since']})"
    return ""


def _proc() -> bool:
    return Path("/proc/self").exists()
