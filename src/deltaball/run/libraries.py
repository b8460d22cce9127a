"""torch and JAX, set up so that results repeat."""

import contextlib
import ctypes
import os
from types import ModuleType

from deltaball.base import environment
from deltaball.base.errors import InputError

# M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h, each as large as may be.
MALLOPT = {-3: 2**25, -1: 2**31 - 1}


def prepare_torch(device: str) -> ModuleType:
    """torch, set up so that results repeat. Raises InputError when `device` is cuda and there is none."""
    os.environ.update(environment.ARITHMETIC)
    keep_memory()
    import torch

    torch.set_num_threads(1)
    # Exactly float32 everywhere: by default convolutions on a GPU use TF32 and matrix products do not.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("compute.device is 'cuda' and torch finds no GPU here; set it to 'cpu' or run on a GPU node")
    return torch


def keep_memory() -> None:
    """Let malloc keep what is freed for the next layer, where it is glibc's.

    Else it gives activations back to the system after every step, and convolutional networks wait for fresh pages.
    """
    with contextlib.suppress(OSError, AttributeError):  # another system
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in MALLOPT.items():
            mallopt(option, value)


def prepare_jax() -> None:
    """Keras on JAX, to be called before either is imported."""
    # Keras chooses its backend, and XLA its threads, when they are imported: one thread per job, like torch.
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    # JAX would take most of a GPU's memory at once, and torch measures in the same process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
