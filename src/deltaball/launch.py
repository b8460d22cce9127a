"""Snakemake started so that one run at a time works in a folder, and a killed one does not block the next."""

import fcntl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deltaball.errors import InputError


def snakemake(arguments: Sequence[str], folder: Path = Path()) -> int:
    """Run Snakemake in `folder`; returns its exit status. Raises InputError while another such run is under way.

    Snakemake's own lock is a file that outlives a SIGKILL. Here the kernel holds the lock, which dies with its
    process; under it, a lock file that Snakemake left behind is known to be stale and is taken away.
    """
    state = folder / ".snakemake"
    state.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "snakemake"]
    with (state / "deltaball.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another run is under way in {folder.resolve()}; wait for it or stop it") from None
        if any((state / "locks").glob("*")):
            subprocess.run([*command, "--unlock", *arguments], cwd=folder, check=False, capture_output=True)
        process = subprocess.Popen([*command, *arguments], cwd=folder, pass_fds=[lock.fileno()])
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # Snakemake was told too, and stops its jobs first
                continue
