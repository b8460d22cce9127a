import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("MKL_CBWR", "AUTO")  # as the command line sets it
# Whatever JAX compiled is worth keeping for the next process.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import gc
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from deltaball.data.datasets import Dataset, from_arrays, load
from deltaball.run.libraries import prepare_torch

prepare_torch("cpu")
# A busy machine is no failure; fixtures are folders into which every example writes anew.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("patient")

ROOT = Path(__file__).parents[1]
# What takes longest begins first, so that no core waits for the last of it.
LONGEST = (
    "cluster/test_slurm.py",
    "test_gpu_rehearsal.py",
    "workflow/test_edits.py",
    "workflow/test_faults.py",
    "workflow/test_snakemake.py",
    "test_small_paper.py",
    "figures/test_drawing.py",
    "training/test_hmc.py",
    "workflow/test_eviction.py",
    "workflow/test_finished.py",
    "run/test_limited.py",
    "local/test_exact.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Let the processes of this run share what JAX compiles: pytest's workers, and what tests start."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="deltaball-jax-")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        config.add_cleanup(folder.cleanup)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what all tests share: libraries, and the tests themselves."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def mnist5k() -> Dataset:
    return load("mnist5k", Path("no-such-folder"))


@pytest.fixture(scope="session")
def few_arrays(mnist5k: Dataset) -> dict[str, np.ndarray]:
    """130 training and 40 test digits of mnist5k at half the resolution, all classes, in a fixed order."""

    def few(images: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.random.default_rng(0).permutation(len(images))[:count]
        return (images[chosen, ::2, ::2, 0] * 255).round().astype(np.uint8), labels[chosen].astype(np.uint8)

    x_train, y_train = few(mnist5k.x_train, mnist5k.y_train, 130)
    x_test, y_test = few(mnist5k.x_test, mnist5k.y_test, 40)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


@pytest.fixture(scope="session")
def few(few_arrays: dict[str, np.ndarray]) -> Dataset:
    """`few_arrays` as a data set of the name few."""
    return from_arrays("few", few_arrays, "a slice of mnist5k")


@pytest.fixture(scope="session")
def data_folder(few_arrays: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that holds few.npz."""
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "few.npz", **few_arrays)
    return folder
