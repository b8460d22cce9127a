"""How far the training of a job is: networks done, sample-steps per second, the time that is left."""

import sys
import time
from typing import TextIO

from deltaball.base.reporting import Report
from deltaball.base.wording import duration


class Stopped(BaseException):
    """The job is to end. No Exception, so that no network is blamed for it."""


class Progress(Report):
    """Counts what a job trains, and reports it now and then. A sample-step is one image in one step of one network."""

    def __init__(
        self, networks: int, sample_steps: float, out: TextIO | None = None, terminal: TextIO | None = sys.__stderr__
    ) -> None:
        super().__init__(out, terminal)
        self.networks, self.sample_steps = networks, sample_steps  # that are to come
        self.done, self.taken = 0, 0.0
        self.stopped = False

    def advance(self, sample_steps: float) -> None:
        """Count what was trained. Raises Stopped once the job is to end."""
        if self.stopped:
            raise Stopped
        with self.lock:
            self.taken += sample_steps
            self.report()

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
        """Report for the last time, if there was anything to train."""
        if self.taken:
            super().close()


class _Silent(Progress):
    """Of training that is a part of something else."""

    def report(self) -> None:
        pass


SILENT = _Silent(0, 0)
