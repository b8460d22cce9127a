"""Networks that two makes of processor trained are told apart by the name of the processor."""

import platform
from pathlib import Path

import pytest

from deltaball.base import hardware

CPUINFO = "processor\t: 0\nmodel name\t: AMD EPYC: 7B13\nflags\t: fpu\n\nprocessor\t: 1\nmodel name\t: another\n"


def test_the_model_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: {"/proc/cpuinfo": CPUINFO}[str(self)])
    assert hardware.processor() == "AMD EPYC: 7B13"


def test_where_the_system_names_no_model_it_is_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: Path) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert hardware.processor() == platform.machine()
