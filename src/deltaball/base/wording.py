"""Durations and sizes in words."""

import math


def duration(seconds: float) -> str:
    """A time as people say it: 12 s, 3 min 5 s, 2 h 10 min; ``unknown time`` for infinity."""
    if math.isinf(seconds):
        return "unknown time"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def size(count: float) -> str:
    """So many bytes in the unit that leaves at most three digits: 512 B, 3.75 MB, 12 TB (1 kB is 1,000 B)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def estimated(seconds: float) -> str:
    """A time that is known about, in its largest unit: < 1 s, 12 s, 3.5 min, 2.1 h, 1,234 h."""
    if math.isinf(seconds):
        return "unknown time"
    if round(seconds) < 60:
        return f"{seconds:.0f} s" if round(seconds) else "< 1 s"
    unit, count = ("min", seconds / 60) if seconds < 3600 else ("h", seconds / 3600)
    return f"{count:.1f} {unit}" if count < 9.95 else f"{count:,.0f} {unit}"
