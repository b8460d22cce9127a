"""What a user's environment may not change: numbers. Standard library only; before any library reads it."""

import os
import sys

# One thread per process: two torch processes with two threads each on two cores run a hundred times slower, and a sum
# on several threads rounds otherwise. Without MKL_CBWR, MKL may round a product differently where its operands lie
# differently in memory, so that a network would depend, in the last bit, on its place in a pack.
ARITHMETIC = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_CBWR": "AUTO",
}
# Keras chooses its backend when it is imported; a process that samples chains sets another (`libraries.prepare_jax`).
KERAS = {"KERAS_BACKEND": "torch"}
# JAX reads every option from a variable of this prefix; these say where it computes, what it tells and what it keeps.
JAX = "JAX_"
JAX_KEPT = ("JAX_PLATFORMS", "JAX_LOG_COMPILES", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_")


def pin() -> None:
    """Set the variables that change numbers, whatever they were, and print in any encoding."""
    for name in [name for name in os.environ if name.startswith(JAX) and not name.startswith(JAX_KEPT)]:
        del os.environ[name]
    os.environ.update(ARITHMETIC | KERAS)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # where ε or δ cannot be encoded, a '?' and no traceback
