"""The tiny study, run once for all tests."""

import shutil
from pathlib import Path

import pytest
from tiny_study import TINY, snakemake, write_study


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny study ran to its end."""
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder, TINY)
    snakemake(folder)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """Another folder just like the finished one, timestamps and Snakemake's records included."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))
