"""Facts are read with the standard library alone; numpy is the judge of whether they are right."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.base.errors import InputError
from deltaball.data.catalogue import CATALOGUE, facts, read_facts
from deltaball.data.datasets import Dataset, from_arrays, load

LABEL_DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]
Arrays = dict[str, np.ndarray]


@st.composite
def data_sets(draw: st.DrawFn) -> Arrays:
    """Small data sets in every storage that is allowed: uint8 or float32, with channels or without, any label dtype."""
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    channels = draw(st.sampled_from([(), (1,), (3,)]))
    arrays = {}
    for split in ("train", "test"):
        count = draw(st.integers(2, 7))
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        images = random.integers(0, 256, (count, *size, *channels), dtype=np.uint8)
        if draw(st.booleans()):
            images = images.astype(np.float32) / np.float32(255)
        arrays |= {f"x_{split}": images, f"y_{split}": np.array([0, 1, *random.integers(0, 128, count - 2)])}
    # From 0 without a gap, over both splits.
    _, ranks = np.unique(np.concatenate([arrays["y_train"], arrays["y_test"]]), return_inverse=True)
    for split, labels in zip(("train", "test"), np.split(ranks, [len(arrays["y_train"])]), strict=True):
        labels = labels.astype(draw(st.sampled_from(LABEL_DTYPES)))
        arrays[f"y_{split}"] = labels.reshape(draw(st.sampled_from([(-1,), (-1, 1)])))
    return arrays


def written(folder: Path, arrays: Arrays, save: Callable = np.savez, name: str = "own") -> Path:
    path = folder / f"{name}.npz"
    save(path, **arrays)
    return path


def own(**changed: np.ndarray) -> Arrays:
    """A small valid data set of three classes, with what a test changes about it."""
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (6, 3, 2), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": random.integers(0, 256, (3, 3, 2), dtype=np.uint8),
        "y_test": np.array([0, 1, 2]),
    }
    return {**arrays, **changed}


@given(data_sets(), st.sampled_from([np.savez, np.savez_compressed]))
@settings(max_examples=60)
def test_facts_of_a_file_are_those_of_its_arrays(tmp_path: Path, arrays: Arrays, save: Callable):
    found = read_facts(written(tmp_path, arrays, save))
    x, y = arrays["x_train"], np.concatenate([arrays["y_train"].ravel(), arrays["y_test"].ravel()])
    assert found.name == "own"
    assert found.shape == (*x.shape[1:3], x.shape[3] if x.ndim == 4 else 1)
    assert found.classes == int(y.max()) + 1
    assert (found.train, found.test) == (len(x), len(arrays["x_test"]))
    assert from_arrays("own", arrays, "the same arrays").facts == found
    assert load("own", tmp_path).facts == found


@given(data_sets())
@settings(max_examples=60)
def test_fingerprint_does_not_depend_on_storage(tmp_path: Path, arrays: Arrays):
    expected = read_facts(written(tmp_path, arrays))
    for dtype in LABEL_DTYPES:
        stored = {name: array.astype(dtype) if name[0] == "y" else array for name, array in arrays.items()}
        assert read_facts(written(tmp_path, stored)) == expected, dtype
    column = {name: array.reshape(-1, 1) if name[0] == "y" else array for name, array in arrays.items()}
    assert read_facts(written(tmp_path, column, np.savez_compressed)) == expected
    if expected.shape[2] == 1:
        with_channel = {
            name: array.reshape(-1, *expected.shape) if name[0] == "x" else array for name, array in arrays.items()
        }
        assert read_facts(written(tmp_path, with_channel)) == expected


@given(data_sets(), st.data())
@settings(max_examples=60)
def test_fingerprint_changes_with_any_pixel_or_label(arrays: Arrays, data: st.DataObject):
    before = from_arrays("own", arrays, "before").facts.fingerprint
    name = data.draw(st.sampled_from(sorted(arrays)))
    changed = {key: array.copy() for key, array in arrays.items()}
    flat = changed[name].reshape(-1)
    place = data.draw(st.integers(0, len(flat) - 1))
    if flat.dtype == np.float32:
        flat[place] = np.nextafter(flat[place], np.float32(0.5))
    else:
        flat[place] = flat[place] ^ 1
    assert from_arrays("own", changed, "after").facts.fingerprint != before


def test_fingerprint_changes_with_order_and_split():
    arrays = own(x_test=own()["x_train"], y_test=own()["y_train"])
    turned = {**arrays, "x_train": arrays["x_train"][::-1].copy(), "y_train": arrays["y_train"][::-1].copy()}
    swapped = {**turned, **{name: arrays[name] for name in ("x_train", "y_train")}, "x_test": turned["x_train"]}
    swapped["y_test"] = turned["y_train"]
    fingerprints = {from_arrays("own", one, "test").facts.fingerprint for one in (arrays, turned, swapped)}
    assert len(fingerprints) == 3


def test_height_and_width_are_told_apart():
    tall = own()
    wide = {name: array.reshape(-1, 2, 3) if name[0] == "x" else array for name, array in tall.items()}
    facts_tall, facts_wide = (from_arrays("own", one, "test").facts for one in (tall, wide))
    assert facts_tall.shape == (3, 2, 1)
    assert facts_wide.shape == (2, 3, 1)
    assert facts_tall.fingerprint != facts_wide.fingerprint


def test_a_file_wins_over_the_catalogue(tmp_path: Path):
    written(tmp_path, own(), name="mnist")
    found = facts("mnist", tmp_path)
    assert (found.train, found.shape) == (6, (3, 2, 1))
    assert not found.is_catalogued
    assert facts("mnist", tmp_path / "elsewhere") == CATALOGUE["mnist"]


def test_the_catalogued_arrays_in_a_file_are_the_catalogued_data_set(tmp_path: Path, mnist5k: Dataset):
    arrays = {name: (getattr(mnist5k, name) * 255).round().astype(np.uint8) for name in ("x_train", "x_test")}
    arrays |= {"y_train": mnist5k.y_train.astype(np.int16), "y_test": mnist5k.y_test[:, None]}
    found = read_facts(written(tmp_path, arrays, np.savez_compressed, "mnist5k"))
    assert found == CATALOGUE["mnist5k"]
    assert found.is_catalogued


def test_an_unknown_name_is_answered_with_the_close_ones_and_the_file_to_put(tmp_path: Path):
    with pytest.raises(InputError, match=r"did you mean 'mnist5k' or 'mnist'\?.*mnist_5k\.npz"):
        facts("mnist_5k", tmp_path)


def refusal(path: Path) -> str:
    """What the user reads about a data set that cannot be used: one line that begins with the file."""
    with pytest.raises(InputError) as refused:
        load(path.stem, path.parent)
    text = str(refused.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


FLOATS = {name: array.astype(np.float32) / 255 for name, array in own().items() if name[0] == "x"}


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        pytest.param({"x_train": np.zeros((6, 3), np.uint8)}, "x_train", id="images without a width"),
        pytest.param({"x_train": np.zeros((6, 3, 2, 1, 1), np.uint8)}, "x_train", id="images of five axes"),
        pytest.param({"x_test": np.zeros((3, 3, 2))}, "x_test", id="float64 images"),
        pytest.param({"x_test": np.zeros((3, 3, 2), np.int32)}, "x_test", id="int32 images"),
        pytest.param({"x_train": np.zeros((0, 3, 2), np.uint8), "y_train": np.zeros(0, int)}, "x_train", id="empty"),
        pytest.param({"x_train": np.zeros((6, 0, 2), np.uint8)}, "x_train", id="images without a row"),
        pytest.param({"x_test": np.zeros((3, 2, 3), np.uint8)}, "different shapes", id="splits of different shapes"),
        pytest.param({"x_train": np.asfortranarray(own()["x_train"])}, "x_train", id="Fortran order"),
        pytest.param({"y_train": np.zeros(5, int)}, "y_train", id="fewer labels than images"),
        pytest.param({"y_train": np.zeros((6, 2), int)}, "y_train", id="one-hot labels"),
        pytest.param({"y_train": np.array(3)}, "y_train", id="one label for all"),
        pytest.param({"y_test": np.zeros(3)}, "y_test", id="float labels"),
        pytest.param({"y_test": np.array([True, False, True])}, "y_test", id="boolean labels"),
        pytest.param({"y_test": np.array([0, 1, 2], ">i4")}, "y_test", id="big-endian labels"),
        pytest.param({"y_test": np.array([0, None, 2])}, "y_test", id="pickled labels"),
        pytest.param({"y_test": np.array([0, -1, 2])}, "y_test holds a class below 0", id="class -1"),
        pytest.param({"y_test": np.array([0, -1, 2], np.int8)}, "y_test holds a class below 0", id="class -1 in int8"),
        pytest.param({"y_train": np.array([0, 256, 2, 0, 1, 2])}, "y_train holds a class", id="class 256"),
        pytest.param({"y_train": np.array([0, 300, 2, 0, 1, 2], np.uint16)}, "y_train holds a class", id="class 300"),
        pytest.param({**FLOATS, "x_train": FLOATS["x_train"] * 255}, "x_train has pixels", id="floats up to 255"),
        pytest.param({**FLOATS, "x_test": FLOATS["x_test"] - 0.5}, "x_test has pixels", id="floats below 0"),
        pytest.param({**FLOATS, "x_test": FLOATS["x_test"] * np.float32("nan")}, "x_test has pixels", id="NaN"),
        pytest.param({**FLOATS, "x_test": FLOATS["x_test"] * np.float32("inf")}, "x_test has pixels", id="infinity"),
    ],
)
def test_wrong_arrays_are_refused_by_name(tmp_path: Path, changed: Arrays, names: str):
    assert names in refusal(written(tmp_path, own(**changed)))


def test_one_nan_pixel_is_refused(tmp_path: Path):
    images = FLOATS["x_train"].copy()
    images[5, 2, 1] = np.nan
    assert "x_train" in refusal(written(tmp_path, own(**{**FLOATS, "x_train": images})))


@pytest.mark.parametrize("missing", ["x_train", "y_train", "x_test", "y_test"])
def test_a_missing_array_is_named(tmp_path: Path, missing: str):
    arrays = {name: array for name, array in own().items() if name != missing}
    assert f"no array {missing};" in refusal(written(tmp_path, arrays))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_truncation_is_refused(tmp_path: Path, save: Callable):
    path = written(tmp_path, own(), save)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path, save: Callable):
    # Some bytes of a zip file mean nothing (dates, attributes): there the data must come out as they were.
    path = written(tmp_path, own(), save)
    whole, expected = path.read_bytes(), read_facts(path)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = load("own", tmp_path).facts
        except InputError:
            assert refusal(path)
        else:
            assert found == expected, f"byte {place}"


@pytest.mark.parametrize("cut", [1, 8, 17, 60])
@pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
def test_an_array_that_was_cut_before_it_was_zipped_is_refused(tmp_path: Path, name: str, cut: int):
    # Such a file comes from a full disk or a wrong writer: every checksum of the zip fits.
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in own().items():
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(f"{key}.npy", content.getvalue()[: -cut if key == name else None])
    assert name in refusal(path)


@pytest.mark.parametrize("name", ["x_train", "y_test"])
def test_a_damaged_header_of_an_array_is_refused_or_changes_nothing(tmp_path: Path, name: str):
    # As above every checksum of the zip fits; the header is the first 128 bytes.
    path = tmp_path / "own.npz"
    expected = read_facts(written(tmp_path, own()))
    members = {}
    for key, array in own().items():
        content = io.BytesIO()
        np.save(content, array)
        members[key] = content.getvalue()
    for place in range(128):
        for bit in (0, 1, 5):
            damaged = bytearray(members[name])
            damaged[place] ^= 1 << bit
            with zipfile.ZipFile(path, "w") as archive:
                for key, content in {**members, name: bytes(damaged)}.items():
                    archive.writestr(f"{key}.npy", content)
            try:
                found = load("own", tmp_path).facts
            except InputError:
                assert refusal(path)
            else:
                assert found == expected, f"bit {bit} of byte {place}"


def test_what_is_no_npz_file_is_refused(tmp_path: Path):
    path = tmp_path / "own.npz"
    path.write_text("x_train,y_train\n1,2\n")
    assert "not a readable .npz file" in refusal(path)
    path.unlink()
    path.mkdir()
    assert "not a readable .npz file" in refusal(path)
