"""What a job says of its training: counts, a rate, the time that is left; on a terminal in place, in a log by lines."""

import io
import threading

import pytest

from deltaball.training import progress as room
from deltaball.training.progress import SILENT, Progress, Stopped


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(room.time, "monotonic", lambda: self.now)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_networks_rate_and_time_left(clock: Clock) -> None:
    one = Progress(12, 600_000, io.StringIO())
    assert one.line() == "0 of 12 networks trained, 0 sample-steps/s, unknown time left"
    clock.now += 4
    one.advance(20_000)
    one.finish(2)
    assert one.line() == "2 of 12 networks trained, 5,000 sample-steps/s, 1 min 56 s left"
    clock.now += 116
    one.advance(580_000)
    one.finish(10)
    assert one.line() == "12 of 12 networks trained, 5,000 sample-steps/s, 0 s left"


def test_a_log_has_a_line_now_and_then_and_one_at_the_end(clock: Clock) -> None:
    out = io.StringIO()
    one = Progress(4, 4000, out)
    for _ in range(40):
        clock.now += 1
        one.advance(100)
    one.close()
    lines = out.getvalue().splitlines()
    assert [line.rpartition(",")[2] for line in lines] == [" 20 s left", " 0 s left", " 0 s left"]
    assert "\r" not in out.getvalue()


def test_a_terminal_has_one_line(clock: Clock) -> None:
    out = Terminal()
    one = Progress(4, 4000, out)
    for _ in range(4):
        clock.now += 1
        one.advance(1000)
    one.close()
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().count("\r") == 5


def test_a_terminal_beside_a_log_is_told_too_and_left_clean(clock: Clock) -> None:
    log, terminal = io.StringIO(), Terminal()
    one = Progress(4, 4000, log, terminal)
    for _ in range(40):
        clock.now += 1
        one.advance(100)
    one.close()
    assert log.getvalue().count("\n") == 3
    assert terminal.getvalue().count("\r") == 41
    assert terminal.getvalue().endswith("\r\x1b[K")
    alone = Terminal()
    Progress(4, 4000, alone, terminal).close()
    assert Progress(4, 4000, log, io.StringIO()).terminal is Progress(4, 4000, alone, terminal).terminal is None


def test_what_trains_nothing_says_nothing() -> None:
    out = io.StringIO()
    Progress(0, 0, out).close()
    assert out.getvalue() == ""


def test_threads_count_together() -> None:
    one = Progress(8, 8000, io.StringIO())

    def count() -> None:
        for _ in range(1000):
            one.advance(1)
        one.finish(1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (one.done, one.taken) == (8, 8000)


def test_what_is_stopped_ends_where_it_counts_next() -> None:
    one = Progress(1, 10, io.StringIO())
    one.advance(1)
    one.stop()
    with pytest.raises(Stopped):
        one.advance(1)
    # No network is blamed: whoever isolates failing networks catches Exception.
    assert not issubclass(Stopped, Exception)


def test_silence_counts_and_says_nothing(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    clock.now += 1e6
    SILENT.advance(1)
    assert capsys.readouterr().out == ""
