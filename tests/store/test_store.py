"""A file of the store is what was written there, or it counts as missing."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deltaball.base.errors import InputError
from deltaball.base.files import written_whole
from deltaball.data.datasets import Dataset
from deltaball.store.store import Checkpoint, Store
from deltaball.store.tensors import DamagedFileError

IDENTITY = "0123456789abcdef"


def checkpoint(seed: int = 0) -> Checkpoint:
    random = np.random.default_rng(seed)
    weights = tuple(random.normal(size=shape).astype(np.float32) for shape in ((3, 4), (4,), (4, 2), (2,)))
    moments = {f"moment.{index}": random.normal(size=(2, 2)).astype(np.float32) for index in range(12)}
    return Checkpoint(weights, moments, {"status": "trained", "test_accuracy": 0.1 + 0.2, "device": "cpu (ε, δ)"})


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    assert one.facts == other.facts
    assert one.state.keys() == other.state.keys()
    pairs = [*zip(one.weights, other.weights, strict=True)]
    for array, twin in pairs + [(one.state[name], other.state[name]) for name in one.state]:
        assert array.dtype == twin.dtype
        np.testing.assert_array_equal(array, twin)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def kept(store: Store) -> Path:
    """The file of one checkpoint."""
    store.save(IDENTITY, 5, checkpoint())
    (path,) = [path for path in store.folder.rglob("*") if path.is_file()]
    return path


def files(store: Store) -> list[Path]:
    return [path for path in store.folder.rglob("*") if path.is_file()]


def test_a_checkpoint_comes_back_as_it_was(store: Store):
    for step in (5, 10, 100):
        store.save(IDENTITY, step, checkpoint(step))
    for step in (5, 10, 100):
        for found in (store.load(IDENTITY, step), store.find(IDENTITY, step)):
            assert_same(found, checkpoint(step))
        assert store.facts(IDENTITY, step) == checkpoint(step).facts
    assert store.steps(IDENTITY) == [5, 10, 100]
    assert store.steps("fedcba9876543210") == []


ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.float16, np.uint8, np.int64]),
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4),
)


@given(st.lists(ARRAYS, min_size=1, max_size=12), st.booleans())
@settings(max_examples=50)
def test_any_arrays_come_back_as_they_were(store: Store, arrays: list[np.ndarray], transposed: bool):
    weights = tuple(array.T if transposed else array for array in arrays)
    store.save(IDENTITY, 1, Checkpoint(weights, {}, {}))
    found = store.load(IDENTITY, 1).weights
    assert len(found) == len(weights)
    for array, twin in zip(found, weights, strict=True):
        assert array.dtype == twin.dtype
        np.testing.assert_array_equal(array, twin)


def test_a_diverged_network_has_facts_alone(store: Store):
    store.save(IDENTITY, 5, Checkpoint((), {}, {"status": "diverged"}))
    found = store.load(IDENTITY, 5)
    assert (found.weights, dict(found.state), found.facts) == ((), {}, {"status": "diverged"})


def test_outcomes_come_back_as_they_were_and_nothing_added_loses_them(store: Store):
    assert store.find_outcomes(IDENTITY) == {}
    store.save_outcomes(IDENTITY, {"5/b/0": np.array([0, 1, 1], np.float32)})
    store.save_outcomes(IDENTITY, {"5/a/0": np.array([0.5], np.float32), "10/a/0": np.zeros(0, np.float32)})
    store.save_outcomes(IDENTITY, {"5/a/0": np.array([0.5, 0.25], np.float32)})  # a larger N
    found = store.find_outcomes(IDENTITY)
    assert {key: values.tolist() for key, values in found.items()} == {"5/a/0": [0.5, 0.25], "5/b/0": [0, 1, 1]}


def test_outcomes_are_no_step(store: Store):
    store.save_outcomes(IDENTITY, {"5/a/0": np.zeros(3, np.float32)})
    assert store.steps(IDENTITY) == []


def test_a_data_set_comes_back_as_it_was(store: Store, few: Dataset):
    store.save_dataset(few)
    found = store.load_dataset(few.facts)
    assert found.facts == few.facts
    for name in ("x_train", "y_train", "x_test", "y_test"):
        array, twin = getattr(found, name), getattr(few, name)
        assert array.dtype == twin.dtype
        np.testing.assert_array_equal(array, twin)


def test_a_data_set_that_is_missing_says_what_to_run_and_a_damaged_one_is_missing(
    store: Store, few: Dataset, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(InputError, match="data set 'few' is not prepared; run `deltaball data few`"):
        store.load_dataset(few.facts)
    store.save_dataset(few)
    (path,) = files(store)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="not prepared"):
        store.load_dataset(few.facts)
    assert f"store: {path} is damaged" in capsys.readouterr().out
    assert not path.exists()
    store.save_dataset(few)
    assert store.load_dataset(few.facts).facts == few.facts


def test_a_folder_in_the_place_of_a_checkpoint_is_named_and_removed(store: Store, capsys: pytest.CaptureFixture[str]):
    store.save(IDENTITY, 5, checkpoint())
    (path,) = files(store)
    path.unlink()
    (path / "inside").mkdir(parents=True)
    assert store.find(IDENTITY, 5) is None
    assert f"{path} is a folder; it is made again" in capsys.readouterr().out
    store.save(IDENTITY, 5, checkpoint())
    assert store.find(IDENTITY, 5) is not None


def test_what_is_missing_is_none(store: Store):
    assert store.find(IDENTITY, 5) is None
    with pytest.raises(FileNotFoundError):
        store.load(IDENTITY, 5)
    with pytest.raises(FileNotFoundError):
        store.facts(IDENTITY, 5)


def assert_counts_as_missing(store: Store, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DamagedFileError) as found:
        store.load(IDENTITY, 5)
    assert str(path) in str(found.value)
    assert store.find(IDENTITY, 5) is None
    printed = capsys.readouterr().out
    assert str(path) in printed
    assert printed.count("\n") == 1
    assert not path.exists()


def test_a_truncated_file_counts_as_missing(store: Store, kept: Path, capsys: pytest.CaptureFixture[str]):
    content = kept.read_bytes()
    for length in [*range(0, 16), *range(16, len(content), 97), len(content) - 1]:
        kept.write_bytes(content[:length])
        assert_counts_as_missing(store, kept, capsys)


def test_a_file_with_a_tail_counts_as_missing(store: Store, kept: Path, capsys: pytest.CaptureFixture[str]):
    kept.write_bytes(kept.read_bytes() + b"\0")
    assert_counts_as_missing(store, kept, capsys)


def test_any_flipped_bit_counts_as_missing(store: Store, kept: Path, capsys: pytest.CaptureFixture[str]):
    # Every byte once: the header's length, its JSON with the facts and the checksum, the tensors.
    content = kept.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place * 5 % 8
        kept.write_bytes(damaged)
        assert_counts_as_missing(store, kept, capsys)


def test_facts_are_right_or_damaged(store: Store, kept: Path):
    # The rows of the tables are read from the facts alone: a flipped bit must not become an accuracy.
    content, expected = kept.read_bytes(), store.facts(IDENTITY, 5)
    wrong = []
    for place in range(len(content)):
        for bit in (0, 4):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            kept.write_bytes(damaged)
            with contextlib.suppress(DamagedFileError):
                try:
                    found = store.facts(IDENTITY, 5)
                except json.JSONDecodeError as problem:
                    found = problem
                if found != expected:
                    wrong.append((place, bit, found))
    assert wrong == []


@pytest.mark.parametrize(("identity", "step"), [("fedcba9876543210", 5), (IDENTITY, 10)])
def test_anothers_file_counts_as_missing(
    store: Store, kept: Path, identity: str, step: int, capsys: pytest.CaptureFixture[str]
):
    store.save(identity, step, checkpoint(1))
    (other,) = set(files(store)) - {kept}
    shutil.copy(other, kept)
    with pytest.raises(DamagedFileError, match="instead of"):
        store.facts(IDENTITY, 5)
    assert_counts_as_missing(store, kept, capsys)
    assert_same(store.load(identity, step), checkpoint(1))


def test_anothers_outcomes_count_as_missing(store: Store, capsys: pytest.CaptureFixture[str]):
    store.save_outcomes("fedcba9876543210", {"5/a/0": np.zeros(3, np.float32)})
    (other,) = files(store)
    path = other.parents[2] / IDENTITY[:2] / IDENTITY / other.name
    path.parent.mkdir(parents=True)
    shutil.copy(other, path)
    assert store.find_outcomes(IDENTITY) == {}
    assert str(path) in capsys.readouterr().out
    assert not path.exists()


def test_damaged_outcomes_count_as_missing(store: Store, capsys: pytest.CaptureFixture[str]):
    store.save_outcomes(IDENTITY, {"5/a/0": np.array([0, 1, 1], np.float32)})
    (path,) = files(store)
    content = path.read_bytes()
    missing = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        found = store.find_outcomes(IDENTITY)
        if found:
            # Outcomes have no facts to lose: a key that nobody reads may have changed, the outcomes may not.
            assert {name: values.tolist() for name, values in found.items()} == {"5/a/0": [0, 1, 1]}
        else:
            assert str(path) in capsys.readouterr().out
            assert not path.exists()
            missing += 1
    assert missing > 0.9 * len(content)


def test_a_full_disk_leaves_what_was_there(store: Store, kept: Path):
    before = kept.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        for step in (5, 10):
            with pytest.raises(OSError, match="File too large"):
                store.save(IDENTITY, step, checkpoint(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(store) == [kept]
    assert kept.read_bytes() == before


@pytest.mark.parametrize("call", ["replace", "fsync", "chmod"])
def test_an_interrupted_write_leaves_no_file(store: Store, call: str, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(KeyboardInterrupt):
        store.save(IDENTITY, 5, checkpoint())
    assert files(store) == []


def test_a_table_that_fails_half_way_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def interrupted() -> None:
        with written_whole(path) as temporary:
            assert temporary.suffix == ".csv"
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert [one.name for one in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "old"


WRITER = """
import sys
import numpy as np
from pathlib import Path
from deltaball.store.store import Checkpoint, Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
for turn in range(int(sys.argv[3])):
    store.save(sys.argv[2], 5, Checkpoint((np.full(20000, turn, np.float32),), {}, {"turn": turn}))
"""


def writer(store: Store, turns: int) -> subprocess.Popen:
    arguments = [sys.executable, "-c", WRITER, str(store.folder), IDENTITY, str(turns)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE)


def test_two_writers_of_one_checkpoint_leave_it_whole(store: Store):
    writers = [writer(store, 60) for _ in range(2)]
    for process in writers:
        process.stdout.readline()
    read = 0
    # A reader beside them always finds one of the whole files, never the beginning of one and the end of the next.
    while any(process.poll() is None for process in writers):
        try:
            found = store.load(IDENTITY, 5)
        except FileNotFoundError:
            continue
        assert (found.weights[0] == found.facts["turn"]).all()
        read += 1
    assert [process.wait() for process in writers] == [0, 0]
    assert read > 0
    assert store.load(IDENTITY, 5).facts == {"turn": 59}
    assert len(files(store)) == 1


def test_a_killed_writer_leaves_the_last_whole_checkpoint(store: Store):
    process = writer(store, 10**6)
    process.stdout.readline()
    while not store.steps(IDENTITY):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.2)
    process.kill()
    process.wait()
    found = store.load(IDENTITY, 5)
    assert (found.weights[0] == found.facts["turn"]).all()
    assert store.steps(IDENTITY) == [5]
