"""Snakemake started so that one run at a time works in a folder, and a killed one does not block the next."""

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from deltaball.base.errors import InputError
from deltaball.base.files import written_whole
from deltaball.plan.plan import Plan
from deltaball.workflow.watching import Watch

LOCK_HELD = "DELTABALL_RUN"  # set for the Snakemake that `snakemake` starts: the lock is held for it
RETRIES = "DELTABALL_RETRIES"
TICK, LISTENING = 0.25, 10.0  # seconds: between two looks, and for the last lines of a process that has ended
# Options with which Snakemake only says something.
LOOKS = {"--summary", "-S", "--detailed-summary", "-D", "--dag", "--rulegraph", "--filegraph", "--d3dag", "--lint"}
LOOKS |= {"--list-rules", "--list", "-l", "--list-target-rules", "--lt", "--list-changes", "--lc", "--list-untracked"}
LOOKS |= {"--list-input-changes", "--li", "--list-params-changes", "--lp", "--lu", "--print-compilation", "--report"}
INTERRUPTED = 130  # a shell's status for SIGINT


def claim(folder: Path = Path()) -> TextIO | None:
    """Hold `folder` for this process's life, or until the returned file is closed; None if it is held for it already.

    Snakemake's own lock is a file that outlives a SIGKILL. Here the kernel holds the lock, which dies with its
    process. Raises InputError while another run is under way.
    """
    if LOCK_HELD in os.environ:
        return None
    state = folder / ".snakemake"
    try:
        state.mkdir(exist_ok=True)
        lock = (state / "deltaball.lock").open("w")
    except OSError as problem:
        raise InputError(f"{problem.filename}: {problem.strerror}; a run needs to write here") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise InputError(f"another run is under way in {folder.resolve()}; wait for it or stop it") from None
    except OSError as problem:
        if problem.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        # Some network disks know no locks. Nothing is lost by two runs at once but the work that both do.
        print(f"deltaball: {folder.resolve()} knows no locks: see that one run at a time works in it", file=sys.stderr)
    return lock


def only_looks(workflow: Any) -> bool:
    """Whether a run of the Snakefile changes nothing, and so needs no claim: another run may be under way.

    Snakemake tells the Snakefile of a dry run alone, so the other ways are read from the command line.
    """
    return workflow.output_settings.dryrun or any(one.partition("=")[0] in LOOKS for one in sys.argv[1:])


def check_writable(folder: Path) -> None:
    """Raise InputError if nothing can be written in `folder`: it is read-only, or its disk is full."""
    try:
        with written_whole(folder / "writable") as temporary:
            temporary.write_bytes(b" " * 65536)
        (folder / "writable").unlink()
    except OSError as problem:
        raise InputError(f"{folder}: {problem.strerror}; a run needs to write its results there") from None


def snakemake(arguments: Sequence[str], folder: Path = Path(), watch: Watch | None = None) -> int:
    """Run Snakemake in `folder`; returns its exit status, INTERRUPTED if the user stopped it.

    With a `watch`, that hears what Snakemake says, and the terminal does not.

    Raises InputError while another run is under way.

    Every run of the Snakefile claims the folder, so under the claim a lock file that Snakemake left behind is known
    to be stale, and is taken away.
    """
    command = [sys.executable, "-m", "snakemake"]
    with claim(folder) as lock:
        environment = {**os.environ, LOCK_HELD: "1"}
        if any((folder / ".snakemake/locks").glob("*")):
            unlock = [*command, "--unlock", *arguments]
            subprocess.run(unlock, cwd=folder, check=False, capture_output=True, env=environment)
        heard = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if watch else {}
        process = subprocess.Popen(
            [*command, *arguments], cwd=folder, pass_fds=[lock.fileno()], env=environment, **heard
        )
        listener = threading.Thread(target=_listen, args=(process, watch), daemon=True)
        listener.start()
        interrupted = False
        while True:
            try:
                status = _waited(process, watch)
                listener.join(LISTENING)
                return INTERRUPTED if interrupted and status else status
            except KeyboardInterrupt:  # Snakemake was told too, and stops its jobs first
                interrupted = True


def _listen(process: subprocess.Popen[str], watch: Watch | None) -> None:
    for line in process.stdout or ():
        watch.hear(line)


def _waited(process: subprocess.Popen[str], watch: Watch | None) -> int:
    while watch:
        watch.tick()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(TICK)
    return process.wait()


def tries_left(workflow: Any, attempt: int) -> int:
    """How often Snakemake would try a job again if its present attempt failed.

    Snakemake does not tell jobs; but they, on this machine or on another, have the environment of the main process.
    """
    if workflow.is_main_process and workflow.execution_settings:
        os.environ[RETRIES] = str(workflow.execution_settings.retries)
    return max(0, int(os.environ.get(RETRIES, 0)) + 1 - attempt)


def unwritable(folder: Path) -> Iterator[str]:
    """Why nothing can be written in `folder`, if so: on a full disk a job can leave neither a log nor a record."""
    try:
        check_writable(folder)
    except InputError as problem:
        yield str(problem)


def tell(lines: Iterable[str]) -> None:
    """Say something at the end of a run."""
    for line in lines:
        print(f"deltaball: {line}", file=sys.stderr)


def collect(plan: Plan, study: Path) -> None:
    """Make the tables and the report of what is there, when a run that was to keep going has failed in part."""
    tell(["the tables and the report are made of what is there; the same command goes on from here"])
    command = [sys.executable, "-m", "deltaball", "collect", "--study", str(study)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tell([f"that failed too: {(done.stderr.strip() or str(done.returncode)).splitlines()[-1]}"])
