"""One GPU per job on a machine that has several and no scheduler that deals them out. Light until a job is ready."""

import contextlib
import fcntl
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from deltaball.base.errors import InputError, system_message
from deltaball.run.libraries import prepare_jax, prepare_torch
from deltaball.study.methods import TRAININGS
from deltaball.workflow.jobs import Job

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
def ready(job: Job) -> Iterator[None]:
    """Hold a device for a job, with torch (and JAX, for chains) ready for it; the record learns which."""
    kind, asked = job.plan.study.compute.device, time.monotonic()
    with held(kind):
        job.waited = time.monotonic() - asked
        torch = prepare_torch(kind)
        if any(TRAININGS[one.method].on_jax for one in job.shard.trajectories):
            prepare_jax()
        job.device = torch.cuda.get_device_name() if kind == "cuda" else platform.machine()
        try:
            yield
        except OSError as problem:
            raise InputError(f"shard {job.shard.id}: {system_message(problem)}") from None
        finally:
            if kind == "cuda":
                job.device_memory_mb = round(torch.cuda.max_memory_allocated() / 2**20)


@contextlib.contextmanager
def held(kind: str = "cuda") -> Iterator[None]:
    """Make one GPU the only one that this process sees, and keep other jobs off it until the block ends.

    Nothing is held for a `kind` that is no GPU. A single device in CUDA_VISIBLE_DEVICES was chosen by a scheduler or by
    the user, and is left at that. Must come before CUDA is started. Waits while other jobs hold all the devices.
    """
    candidates = listed() if kind == "cuda" else []
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
