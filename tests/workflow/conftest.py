"""The tiny study, run once for all tests."""

import shutil
from pathlib import Path

import pytest
from sharing import made_once
from tiny_study import TINY, snakemake, write_study


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny study ran to its end, to be copied."""

    def make(folder: Path) -> None:
        write_study(folder, TINY)
        snakemake(folder)

    return made_once(tmp_path_factory, "tiny", make)


@pytest.fixture(scope="session")
def finished(untouched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny study ran to its end, to be looked at."""
    return Path(shutil.copytree(untouched, tmp_path_factory.mktemp("finished") / "copy"))


@pytest.fixture
def copied(untouched: Path, tmp_path: Path) -> Path:
    """Another folder just like the finished one, timestamps and Snakemake's records included."""
    return Path(shutil.copytree(untouched, tmp_path / "copy"))
