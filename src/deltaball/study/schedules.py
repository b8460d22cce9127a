"""Learning-rate schedules: what the learning rate is multiplied by in each epoch. Standard library only.

A schedule says what is done in which epoch and does not know in which training ends, so that networks that differ in
their epochs alone stay checkpoints of one trajectory.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

CONSTANT = "constant"
DECAY = 0.1  # of a step that names no factor

POSSIBLE = "possible: constant, step(82, 123), step(82, 123; 0.2), cosine(164)"


@dataclass(frozen=True)
class Schedule:
    """The factor of each epoch, from 0 on, and the first epoch from which on it is 0, if there is one."""

    text: str
    factor: Callable[[int], float]
    ends: int | None = None


@cache
def schedule(text: str) -> Schedule:
    """The schedule of a text. Raises ValueError that says what is possible.

    ``step(82, 123; 0.2)`` multiplies by 0.2 after 82 epochs and again after 123; without a factor, by 0.1.
    ``cosine(164)`` falls along half a cosine to 0 after 164 epochs (Loshchilov & Hutter 2017, without restarts).
    """
    if text == CONSTANT:
        return Schedule(CONSTANT, lambda epoch: 1.0)
    if found := re.fullmatch(r"cosine\(\s*([1-9]\d{0,5})\s*\)", text):
        return _cosine(int(found[1]))
    if found := re.fullmatch(r"step\(([\d\s,]+)(?:;\s*([\d.eE-]+)\s*)?\)", text):
        return _step(text, found[1], found[2])
    raise ValueError(f"{text!r} is no schedule; {POSSIBLE}")


def spelled(text: str) -> str:
    """A schedule as ids know it. Raises ValueError that says what is possible."""
    return schedule(text).text


def _cosine(epochs: int) -> Schedule:
    def factor(epoch: int) -> float:
        return (1 + math.cos(math.pi * min(epoch, epochs) / epochs)) / 2

    return Schedule(f"cosine({epochs})", factor, epochs)


def _step(text: str, after: str, factor: str | None) -> Schedule:
    try:
        epochs, decay = [int(one) for one in after.split(",")], float(factor or DECAY)
    except ValueError:
        raise ValueError(f"{text!r} is no schedule; {POSSIBLE}") from None
    if not 0 < decay < 1 or epochs[0] < 1 or any(later <= one for one, later in pairwise(epochs)):
        raise ValueError(f"{text!r}: epochs should ascend from 1 on, and the factor be between 0 and 1; {POSSIBLE}")
    named = ", ".join(map(str, epochs))
    return Schedule(f"step({named}; {decay!r})", lambda epoch: decay ** sum(epoch >= one for one in epochs))
