"""Being asked to stop: by Ctrl-C, by a scheduler, by a terminal that closes. Standard library only."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REASONS = {signal.SIGTERM: "terminated: cancelled, or out of time"}


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop. No Exception, so that no network is blamed for it."""

    def __init__(self, number: int) -> None:
        super().__init__(REASONS.get(signal.Signals(number), "stopped"))
        self.status = 128 + number  # as shells tell which signal ended a process


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Raise Stopped in the block when a signal asks to stop; what is ignored (by nohup, for example) stays so."""
    before = {one: signal.getsignal(one) for one in ASKED}
    for one, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(one, _stop)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)
