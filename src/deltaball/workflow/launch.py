"""Snakemake started so that one run at a time works in a folder, and a killed one does not block the next."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from deltaball.base.errors import InputError
from deltaball.base.files import written_whole
from deltaball.base.signals import Stopped
from deltaball.plan.plan import Plan
from deltaball.workflow.claims import LOCK_HELD, claim, sign
from deltaball.workflow.watching import Watch

RETRIES = "DELTABALL_RETRIES"
TICK, LISTENING = 0.25, 10.0  # seconds: between two looks, and for the last lines of a process that has ended
# Options with which Snakemake only says something.
LOOKS = {"--summary", "-S", "--detailed-summary", "-D", "--dag", "--rulegraph", "--filegraph", "--d3dag", "--lint"}
LOOKS |= {"--list-rules", "--list", "-l", "--list-target-rules", "--lt", "--list-changes", "--lc", "--list-untracked"}
LOOKS |= {"--list-input-changes", "--li", "--list-params-changes", "--lp", "--lu", "--print-compilation", "--report"}
PATIENCE = 30.0  # seconds that Snakemake and its jobs have to stop in, before they are killed: nothing is lost by it


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
    """Run Snakemake in `folder`; returns its exit status, or that of a signal (`was_stopped`) that stopped it.

    With a `watch`, that hears what Snakemake says, and the terminal does not. A signal that this process heeds is
    handed on to Snakemake and all its jobs.

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
        # A group of its own, so that a signal reaches it and its jobs once, whoever was sent it.
        process = subprocess.Popen(
            [*command, *arguments], cwd=folder, pass_fds=[lock.fileno()], env=environment, process_group=0, **heard
        )
        sign(lock, [os.getpid(), process.pid])
        listener = threading.Thread(target=_listen, args=(process, watch), daemon=True)
        listener.start()
        stopped, deadline = 0, float("inf")
        while True:
            try:
                status = _waited(process, watch, deadline)
                listener.join(LISTENING)
                return stopped if stopped and status else status
            except Stopped as asked:
                # Who asks again does not want to wait.
                _signal(process, signal.SIGKILL if stopped else signal.SIGINT)
                stopped, deadline = asked.status, time.monotonic() + PATIENCE
                if watch:
                    watch.mute()


def was_stopped(status: int) -> bool:
    """Whether an exit status is that of a signal."""
    return status > 128


def _listen(process: subprocess.Popen[str], watch: Watch | None) -> None:
    for line in process.stdout or ():
        watch.hear(line)


def _waited(process: subprocess.Popen[str], watch: Watch | None, deadline: float) -> int:
    while True:
        if watch:
            watch.tick()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(TICK)
        if time.monotonic() > deadline:
            _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


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
