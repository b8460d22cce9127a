"""What this machine computes with, by name. Standard library only."""

import contextlib
import platform
from pathlib import Path


def processor() -> str:
    """The model of the CPU where the system says it, else its architecture. Processors of two makes round otherwise."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
