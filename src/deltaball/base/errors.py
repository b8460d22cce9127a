"""The error a user can mend: one line saying what is wrong, where, and what would be right."""

import difflib
from collections.abc import Iterable
from typing import Any

MOST_LISTED = 20
MOST_QUOTED = 80  # characters of a value


class InputError(ValueError):
    """Something the user gave (a file, a key, a value, a name) cannot be used.

    The message is one line, complete without a traceback; the command line prints it and exits with 2.
    """


class OutsideError(InputError):
    """What went wrong lies outside the network at work: its data, the disk or the device. No network failed."""


def system_message(problem: OSError) -> str:
    """What the operating system refused, in a line."""
    where = f"{problem.filename}: " if problem.filename else ""
    return f"{where}{problem.strerror or problem}"


def one_of(names: Iterable[str]) -> str:
    """The possible names, in words: ``'a', 'b' or 'c'``."""
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def alternatives(wrong: object, names: Iterable[str]) -> str:
    """What the user may have meant: the close names if there are any, else every possible one."""
    names = sorted(names)
    close = difflib.get_close_matches(str(wrong), names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {one_of(close)}?"
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"possible: {', '.join(names[:MOST_LISTED])}{more}"


def shown(value: Any) -> str:
    """A value as a message quotes it: what would fill a page is cut."""
    text = repr(value)
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}…"
