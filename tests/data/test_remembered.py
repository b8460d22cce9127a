"""What is kept of a large data file is used while the file is the same, and never after it changed."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from deltaball.data import catalogue, remembered


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read, from now on."""
    found: list[Path] = []
    whole = catalogue.read_facts
    monkeypatch.setattr(catalogue, "read_facts", lambda path: found.append(path) or whole(path))
    monkeypatch.setattr(remembered, "LARGE", 0)
    monkeypatch.setattr(remembered, "SETTLED_SECONDS", -1.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


def written(folder: Path, pixel: int = 0) -> Path:
    x, y = np.full((4, 3, 3), pixel, np.uint8), np.array([0, 1, 0, 1])
    np.savez(folder / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return folder / "own.npz"


def test_a_file_that_stays_is_read_once(tmp_path: Path, read: list[Path]) -> None:
    path = written(tmp_path)
    assert catalogue.facts("own", tmp_path) == catalogue.facts("own", tmp_path)
    assert read == [path]


def test_a_file_that_changes_in_place_is_read_again_whatever_its_date_says(tmp_path: Path, read: list[Path]) -> None:
    path = written(tmp_path)
    before, dates = catalogue.facts("own", tmp_path), path.stat()
    written(tmp_path, 1)
    os.utime(path, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    assert path.stat().st_size == dates.st_size
    after = catalogue.facts("own", tmp_path)
    assert after.fingerprint != before.fingerprint
    assert len(read) == 2


def test_what_was_changed_just_now_may_change_again_unseen_and_is_not_kept(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "SETTLED_SECONDS", 60.0)
    path = written(tmp_path)
    catalogue.facts("own", tmp_path)
    later = time.time() + 120
    monkeypatch.setattr(remembered.time, "time", lambda: later)
    catalogue.facts("own", tmp_path)
    catalogue.facts("own", tmp_path)
    assert read == [path, path]


@pytest.mark.parametrize(
    "damage", [lambda kept: kept[:50], lambda kept: kept.replace(b"own", b"owl"), lambda kept: b""]
)
def test_what_is_kept_and_damaged_is_not_used(tmp_path: Path, read: list[Path], damage: object) -> None:
    written(tmp_path)
    expected = catalogue.facts("own", tmp_path)
    (kept,) = (tmp_path / "cache/deltaball").iterdir()
    kept.write_bytes(damage(kept.read_bytes()))
    assert catalogue.facts("own", tmp_path) == expected
    assert len(read) == 2


def test_where_nothing_can_be_kept_files_are_read(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").touch()
    written(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    assert catalogue.facts("own", tmp_path) == catalogue.facts("own", tmp_path)
    assert len(read) == 2
