"""Snakemake started so that one run at a time works in a folder, and a killed one does not block the next."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from deltaball.errors import InputError

HELD = "DELTABALL_RUN"  # set for the Snakemake that `snakemake` starts: the lock is held for it


def claim(folder: Path = Path()) -> TextIO | None:
    """Hold `folder` for this process's life, or until the returned file is closed; None if it is held for it already.

    Snakemake's own lock is a file that outlives a SIGKILL. Here the kernel holds the lock, which dies with its
    process. Raises InputError while another run is under way.
    """
    if HELD in os.environ:
        return None
    state = folder / ".snakemake"
    state.mkdir(exist_ok=True)
    lock = (state / "deltaball.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise InputError(f"another run is under way in {folder.resolve()}; wait for it or stop it") from None
    return lock


def snakemake(arguments: Sequence[str], folder: Path = Path()) -> int:
    """Run Snakemake in `folder`; returns its exit status. Raises InputError while another run is under way.

    Every run of the Snakefile claims the folder, so under the claim a lock file that Snakemake left behind is known
    to be stale, and is taken away.
    """
    command = [sys.executable, "-m", "snakemake"]
    with claim(folder) as lock:
        environment = {**os.environ, HELD: "1"}
        if any((folder / ".snakemake/locks").glob("*")):
            unlock = [*command, "--unlock", *arguments]
            subprocess.run(unlock, cwd=folder, check=False, capture_output=True, env=environment)
        process = subprocess.Popen([*command, *arguments], cwd=folder, pass_fds=[lock.fileno()], env=environment)
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # Snakemake was told too, and stops its jobs first
                continue
