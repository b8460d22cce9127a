"""What the plan says of times."""

import re
from pathlib import Path

from builders import grid, planned

from deltaball.run import preview
from deltaball.store.store import Store

EXACT = {"notion": "class_change", "delta": [0.1, 0.2], "certificate": "exact"}


def times(tmp_path: Path, **changed: object) -> list[str]:
    lines = [*preview.lines(planned(grid(epochs=1), **changed), Store(tmp_path))]
    total = next(line for line in lines if line.startswith("all"))
    row = dict(zip(*(re.split(r"  +", line) for line in (lines[1], total)), strict=True))
    return [row["training"], row["measuring"]]


def test_exact_answers_are_in_the_times_and_no_time_is_a_power_of_ten(tmp_path: Path) -> None:
    training, attacking = times(tmp_path)
    same, deciding = times(tmp_path, measures=[EXACT])
    assert training == same
    assert attacking == "< 1 s"
    assert re.fullmatch(r"\d+\.?\d* (s|min)", deciding)
    assert re.fullmatch(r"(< )?\d+\.?\d* (s|min)", training)
