"""How far a job is, said now and then: on a terminal in place, in a log as lines of their own. Standard library."""

import sys
import threading
import time
from typing import TextIO

# Seconds between two reports.
ON_A_TERMINAL, IN_A_LOG = 0.5, 20.0

IN_PLACE = "\r\x1b[K"  # to the start of the line, which is erased


class Report:
    """What is said where; a subclass counts, and says in `line` what it counted. Several threads may count at once.

    Where `out` (sys.stdout) is a log and the process has a terminal all the same (its standard error), both are told.
    """

    def __init__(self, out: TextIO | None = None, terminal: TextIO | None = sys.__stderr__) -> None:
        self.out = out or sys.stdout
        self.terminal = terminal if terminal and terminal.isatty() and not self.out.isatty() else None
        self.began = time.monotonic()
        self.reported = {stream: self.began for stream in (self.out, self.terminal) if stream}
        self.lock = threading.Lock()

    def line(self) -> str:
        """What is reported."""
        raise NotImplementedError

    def report(self) -> None:
        """Report where it is time to."""
        for stream, last in self.reported.items():
            is_terminal = stream.isatty()
            if time.monotonic() - last >= (ON_A_TERMINAL if is_terminal else IN_A_LOG):
                self.reported[stream] = time.monotonic()
                _write(stream, f"{IN_PLACE}{self.line()}" if is_terminal else f"{self.line()}\n")

    def close(self) -> None:
        """Report for the last time; on a terminal beside a log, leave no trace."""
        if self.terminal:
            _write(self.terminal, IN_PLACE)
        _write(self.out, f"{IN_PLACE if self.out.isatty() else ''}{self.line()}\n")


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()
