import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deltaball.base.errors import InputError
from deltaball.data.catalogue import CATALOGUE
from deltaball.data.datasets import Dataset, from_arrays, load


def test_mnist5k_is_what_the_catalogue_says(mnist5k: Dataset):
    assert mnist5k.facts == CATALOGUE["mnist5k"]
    assert mnist5k.facts.is_catalogued


@pytest.mark.parametrize(("split", "each"), [("train", 400), ("test", 100)])
def test_mnist5k_holds_as_many_digits_of_every_class(mnist5k: Dataset, split: str, each: int):
    images, labels = getattr(mnist5k, f"x_{split}"), getattr(mnist5k, f"y_{split}")
    assert images.shape == (10 * each, 28, 28, 1)
    assert labels.shape == (10 * each,)
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [each] * 10


def test_pixels_are_float32_and_span_the_unit_interval(mnist5k: Dataset):
    for images in (mnist5k.x_train, mnist5k.x_test):
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (0, 1)
        assert images.flags.c_contiguous


def test_no_test_digit_was_trained_on(mnist5k: Dataset):
    trained = {image.tobytes() for image in mnist5k.x_train}
    assert not any(image.tobytes() in trained for image in mnist5k.x_test)


def test_an_image_is_upright(mnist5k: Dataset):
    # A one is a vertical stroke: its rows have one narrow bar, in a transposed image its columns would.
    one = mnist5k.x_train[mnist5k.y_train == 1].mean(0)[:, :, 0]
    assert (one.sum(1) > 1).sum() > 1.5 * (one.sum(0) > 1).sum()


def test_bytes_become_255ths():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    arrays = {"x_train": images, "y_train": np.array([0]), "x_test": images, "y_test": np.array([0])}
    found = from_arrays("own", arrays, "test").x_train
    assert found.shape == (1, 16, 16, 1)
    np.testing.assert_array_equal(found.ravel(), (np.arange(256) / 255).astype(np.float32))


def test_floats_stay_as_they_are():
    images = np.random.default_rng(0).random((4, 3, 2, 3), dtype=np.float32)
    labels = np.array([[0], [1], [2], [0]], np.uint8)
    found = from_arrays("own", {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}, "test")
    np.testing.assert_array_equal(found.x_train, images)
    assert found.y_test.tolist() == [0, 1, 2, 0]
    assert found.facts.classes == 3


def test_arrays_of_any_memory_layout_are_read_in_their_order():
    images = np.random.default_rng(0).random((4, 3, 2), dtype=np.float32)
    labels = np.array([0, 1, 2, 0])
    straight = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    strided = {**straight, "x_train": np.asfortranarray(images), "y_train": np.repeat(labels, 2)[::2]}
    one, other = from_arrays("own", straight, "test"), from_arrays("own", strided, "test")
    assert one.facts == other.facts
    np.testing.assert_array_equal(one.x_train, other.x_train)


def test_other_arrays_than_planned_are_refused(mnist5k: Dataset):
    images = (mnist5k.x_test * 255).astype(np.uint8)
    arrays = {"x_train": images, "y_train": mnist5k.y_test, "x_test": images, "y_test": mnist5k.y_test}
    with pytest.raises(InputError, match=r"^my\.npz: not the data set 'mnist5k' that was planned.*another name"):
        from_arrays("mnist5k", arrays, "my.npz", CATALOGUE["mnist5k"])


def test_an_unknown_name_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="did you mean 'fashion_mnist'"):
        load("fashion-mnist", tmp_path)


def test_a_failed_download_says_what_to_do_and_leaves_nothing(tmp_path: Path):
    data, names = tmp_path / "data", ["mnist", "fashion_mnist", "cifar10"]
    data.mkdir()
    script = (
        "import sys; from pathlib import Path; from deltaball.data.datasets import load; "
        "from deltaball.base.errors import InputError\n"
        "for name in sys.argv[2:]:\n"
        "    try:\n        load(name, Path(sys.argv[1]))\n"
        "    except InputError as problem:\n        print(problem)"
    )
    # A proxy on a port where nobody listens: every download fails at once, whatever this machine can reach.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = {**os.environ, **nowhere, "no_proxy": "", "NO_PROXY": "", "KERAS_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(data), *names], env=environment, capture_output=True, text=True, check=True
    )
    messages = [line for line in done.stdout.splitlines() if line.startswith("data set")]
    assert len(messages) == 3
    for name, message in zip(names, messages, strict=True):
        assert message.startswith(f"data set '{name}' could not be downloaded (")
        assert f"put {data / name}.npz" in message
        assert "x_train, y_train, x_test, y_test" in message
    assert list(data.iterdir()) == []
