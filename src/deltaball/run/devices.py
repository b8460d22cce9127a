"""One GPU per job on a machine that has several and no scheduler that deals them out. Standard library only."""

import contextlib
import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

VISIBLE = "CUDA_VISIBLE_DEVICES"


def listed() -> list[str]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else all of this machine by their UUID.

    UUIDs, because CUDA numbers GPUs from the fastest on and nvidia-smi by their place in the machine.
    """
    if VISIBLE in os.environ:
        return [one.strip() for one in os.environ[VISIBLE].split(",") if one.strip()]
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line.strip() for line in found.stdout.splitlines() if line.strip()]


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Make one GPU the only one that this process sees, and keep other jobs off it until the block ends.

    A single device in CUDA_VISIBLE_DEVICES was chosen by a scheduler or by the user, and is left at that. Must come
    before CUDA is started. Waits while other jobs hold all the devices.
    """
    candidates = listed()
    if not candidates or (VISIBLE in os.environ and len(candidates) == 1):
        yield
        return
    before = os.environ.get(VISIBLE)
    with _locked(candidates) as device:
        os.environ[VISIBLE] = device
        try:
            yield
        finally:
            if before is None:
                del os.environ[VISIBLE]
            else:
                os.environ[VISIBLE] = before


@contextlib.contextmanager
def _locked(candidates: list[str]) -> Iterator[str]:
    # In this machine's own folder for temporary files: there the kernel holds the lock, which dies with its process.
    folder = Path(tempfile.gettempdir()) / f"deltaball-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    waiting = False
    while True:
        for device in candidates:
            with (folder / f"gpu-{device.replace('/', '-')}").open("w") as lock:
                if _taken(lock):
                    yield device
                    return
        if not waiting:
            print(f"waiting for a GPU: other jobs hold all {len(candidates)}", flush=True)
            waiting = True
        time.sleep(1)


def _taken(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
