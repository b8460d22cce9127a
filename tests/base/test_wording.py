"""Durations and sizes in words."""

import pytest

from deltaball.base.wording import duration, estimated, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (3599.6, "1 h 0 min"),
        (100 * 3600 + 61, "100 h 1 min"),
        (float("inf"), "unknown time"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (3_754_000, "3.75 MB"), (3.65e11, "365 GB"), (1.2e15, "1.2e+03 TB")],
)
def test_sizes(count: float, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "< 1 s"),
        (0.4, "< 1 s"),
        (59.4, "59 s"),
        (59.6, "1.0 min"),
        (594, "9.9 min"),
        (3599, "60 min"),
        (7560, "2.1 h"),
        (4_442_400, "1,234 h"),
        (float("inf"), "unknown time"),
    ],
)
def test_times_that_are_known_about(seconds: float, words: str) -> None:
    assert estimated(seconds) == words
