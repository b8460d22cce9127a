"""How far the training of a job is: networks done, sample-steps per second, the time that is left."""

import sys
import threading
import time
from typing import TextIO

from deltaball.base.wording import duration

# Seconds between two reports.
ON_A_TERMINAL, IN_A_LOG = 0.5, 20.0

IN_PLACE = "\r\x1b[K"  # to the start of the line, which is erased


class Stopped(BaseException):
    """The job is to end. No Exception, so that no network is blamed for it."""


class Progress:
    """Counts what a job trains, and reports it now and then: on a terminal in place, in a log as lines of their own.

    A sample-step is one image in one step of one network. Several threads may count at once. Where `out` (sys.stdout)
    is a log and the process has a terminal all the same (its standard error), both are told.
    """

    def __init__(
        self, networks: int, sample_steps: float, out: TextIO | None = None, terminal: TextIO | None = sys.__stderr__
    ) -> None:
        self.networks, self.sample_steps = networks, sample_steps  # that are to come
        self.out = out or sys.stdout
        self.terminal = terminal if terminal and terminal.isatty() and not self.out.isatty() else None
        self.done, self.taken = 0, 0.0
        self.began = time.monotonic()
        self.reported = {stream: self.began for stream in (self.out, self.terminal) if stream}
        self.stopped, self.lock = False, threading.Lock()

    def advance(self, sample_steps: float) -> None:
        """Count what was trained. Raises Stopped once the job is to end."""
        if self.stopped:
            raise Stopped
        with self.lock:
            self.taken += sample_steps
            self._report()

    def finish(self, networks: int) -> None:
        """Count networks that need no more training."""
        with self.lock:
            self.done += networks

    def stop(self) -> None:
        """End the work of all that count here, wherever each counts next."""
        self.stopped = True

    def line(self) -> str:
        """What is reported."""
        seconds = time.monotonic() - self.began
        rate = self.taken / max(seconds, 1e-9)
        left = max(0.0, self.sample_steps - self.taken) / rate if rate else float("inf")
        return f"{self.done} of {self.networks} networks trained, {rate:,.0f} sample-steps/s, {duration(left)} left"

    def close(self) -> None:
        """Report for the last time; on a terminal beside a log, leave no trace."""
        if not self.taken:
            return
        if self.terminal:
            _write(self.terminal, IN_PLACE)
        _write(self.out, f"{IN_PLACE if self.out.isatty() else ''}{self.line()}\n")

    def _report(self) -> None:
        for stream, last in self.reported.items():
            is_terminal = stream.isatty()
            if time.monotonic() - last >= (ON_A_TERMINAL if is_terminal else IN_A_LOG):
                self.reported[stream] = time.monotonic()
                _write(stream, f"{IN_PLACE}{self.line()}" if is_terminal else f"{self.line()}\n")


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


class _Silent(Progress):
    """Of training that is a part of something else."""

    def _report(self) -> None:
        pass


SILENT = _Silent(0, 0)
