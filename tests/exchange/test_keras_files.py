"""Networks in .keras files: made by Keras, read without running anything that the file brings."""

import json
import pickle
import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from exchange_cases import CLASSES, COLOURED, SHAPE, altered, images, logits, opened, save_keras
from keras import layers

from deltaball.base.errors import InputError
from deltaball.exchange import checking
from deltaball.exchange.conventions import Convention
from deltaball.networks.initial import initial_weights
from deltaball.networks.keras_models import keras_model, set_weights
from deltaball.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Clamp,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    Layers,
    LeakyReLU,
    MaxPool,
    Normalise,
    Residual,
    Subsample,
)


def by_keras(path: Path, shape: tuple[int, int, int], scale: float = 1.0) -> np.ndarray:
    """What Keras computes of `images` with pixels up to `scale`."""
    with torch.no_grad():
        return keras.models.load_model(path)(scale * images(shape)).numpy()


def test_layers_of_a_sequential_model(tmp_path: Path):
    path = save_keras(
        tmp_path / "a.keras",
        layers.ZeroPadding2D(1),
        layers.Conv2D(4, 3, strides=2, activation="relu"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(2, padding="same"),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(6, activation=keras.activations.tanh),
        layers.LeakyReLU(0.1),
        layers.Dense(6, use_bias=False),
        layers.ReLU(6),
        layers.Dense(CLASSES),
        shape=COLOURED,
    )
    file = opened(path, COLOURED)
    kinds = [Conv, Activation, BatchNorm, MaxPool, Flatten, Dense, Activation, LeakyReLU, Dense, Clamp, Dense]
    assert [type(layer) for layer in file.layers] == kinds
    np.testing.assert_allclose(logits(file), by_keras(path, COLOURED), rtol=1e-4, atol=1e-5)


def test_a_functional_model_with_residuals_and_a_model_within(tmp_path: Path):
    keras.utils.set_random_seed(1)
    entering = keras.Input(COLOURED)
    first = layers.Conv2D(3, 3, padding="same")(entering)
    body = layers.Conv2D(3, 3, padding="same", activation="relu")(first)
    summed = layers.Add()([body, layers.Conv2D(3, 1)(first)]) + first
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(5, activation="sigmoid"), layers.Dense(CLASSES)])
    keras.Model(entering, inner(layers.GlobalAveragePooling2D()(summed))).save(tmp_path / "a.keras")
    file = opened(tmp_path / "a.keras", COLOURED)
    assert [type(layer) for layer in file.layers] == [Conv, Residual, GlobalAveragePool, Dense, Activation, Dense]
    np.testing.assert_allclose(logits(file), by_keras(tmp_path / "a.keras", COLOURED), rtol=1e-4, atol=1e-5)


EVERY = (
    Normalise((0.1, 0.2, 0.3), (0.5, 0.25, 1.0)),
    Conv(4, 3, 2, (1, 0, 0, 1)),
    Residual((Conv(8, 3, 1), BatchNorm(), Activation("relu")), (Subsample(1, 8),)),
    MaxPool(3, 2, (1, 1, 1, 1)),
    AveragePool(3, 2, "same"),
    Clamp(-1.0, 1.0),
    Flatten(),
    Dense(CLASSES),
)


def test_what_we_export_comes_back(tmp_path: Path):
    ours = Layers(COLOURED, EVERY)
    model, drawn = keras_model(ours), np.random.default_rng(0)
    weights = [one + drawn.random(one.shape, np.float32) for one in initial_weights(ours, drawn)]
    set_weights(model, ours, weights)
    model.save(tmp_path / "a.keras")
    file = opened(tmp_path / "a.keras", COLOURED)
    assert [type(layer) for layer in file.layers] == [type(layer) for layer in EVERY]
    for found, wanted in zip(checking.weights(file), weights, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "last", [[layers.Dense(CLASSES, activation="softmax")], [layers.Dense(CLASSES), layers.Softmax()]]
)
def test_a_softmax_at_the_end_is_taken_off_and_said(last: list[keras.Layer], tmp_path: Path):
    file = opened(save_keras(tmp_path / "a.keras", layers.Flatten(), *last))
    assert [type(layer) for layer in file.layers] == [Flatten, Dense]
    assert "softmax is taken off" in file.remarks[0]
    probabilities = torch.from_numpy(logits(file)).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, by_keras(tmp_path / "a.keras", SHAPE), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("first", "kinds"),
    [
        (layers.Rescaling(1 / 255), [Flatten, Dense]),
        (layers.Rescaling(1 / 127.5, offset=-1), [Normalise, Flatten, Dense]),
        (layers.Normalization(mean=[33.0], variance=[70.0**2]), [Normalise, Flatten, Dense]),
    ],
)
def test_a_network_that_scales_pixels_gets_those_that_it_takes(first: keras.Layer, kinds: list, tmp_path: Path):
    path = save_keras(tmp_path / "a.keras", first, layers.Flatten(), layers.Dense(CLASSES))
    file = opened(path)
    assert file.convention.pixels == (0, 255)
    assert [type(layer) for layer in file.layers] == kinds
    np.testing.assert_allclose(logits(file), by_keras(path, SHAPE, 255.0), rtol=1e-4, atol=1e-4)


def test_what_is_given_is_done_before_the_network(tmp_path: Path):
    path = save_keras(tmp_path / "a.keras", layers.Flatten(), layers.Dense(CLASSES), shape=(30,))
    file = opened(path, convention=Convention(pixels=(-1, 1), mean=(0.5,), deviation=(0.25,)))
    with torch.no_grad():
        shown = (2 * images(SHAPE).flatten(1) - 1 - 0.5) / 0.25
        expected = keras.models.load_model(path)(shown).numpy()
    np.testing.assert_allclose(logits(file), expected, rtol=1e-4, atol=1e-5)


def test_an_activation_without_a_layer_is_run_by_keras_with_gradients(tmp_path: Path):
    path = save_keras(
        tmp_path / "a.keras", layers.Flatten(), layers.Dense(5, activation="gelu"), layers.Dense(CLASSES, "softmax")
    )
    file = opened(path)
    assert file.layers is None
    assert file.lacking == "layer Dense (activation gelu)"
    assert file.remarks
    x = images(SHAPE).requires_grad_()
    checking.model(file, "cpu")(x)[0].sum().backward()
    assert x.grad.abs().max() > 0


@keras.saving.register_keras_serializable("mine")
class Doubled(keras.Layer):
    def call(self, x):
        return 2 * x


def whole(path: Path) -> Path:
    return save_keras(path, layers.Flatten(), layers.Dense(CLASSES))


def with_lambda(path: Path) -> Path:
    return save_keras(path, layers.Lambda(lambda x: x * 2), layers.Flatten(), layers.Dense(CLASSES))


def with_custom_object(path: Path) -> Path:
    return save_keras(path, Doubled(), layers.Flatten(), layers.Dense(CLASSES))


def truncated(path: Path) -> Path:
    return altered(whole(path), lambda content: content[: len(content) // 2])


def with_nan(path: Path) -> Path:
    model = keras.models.load_model(whole(path))
    kernel, bias = model.get_weights()
    kernel[3, 1] = np.nan
    model.set_weights([kernel, bias])
    model.save(path)
    return path


def rewritten(path: Path, change) -> Path:
    """A file whose JSON is changed."""
    whole(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = json.dumps(change(json.loads(parts["config.json"]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def with_code(path: Path) -> Path:
    """An activation that names a function of another module."""

    def change(config: dict) -> dict:
        config["config"]["layers"][-1]["config"]["activation"] = {
            "module": "os",
            "class_name": "function",
            "config": "system",
            "registered_name": "system",
        }
        return config

    return rewritten(path, change)


def of_keras_2(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("saved_model.pb", b"")
    return path


def a_pickle(path: Path) -> Path:
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    return path


def without_images(path: Path) -> Path:
    return save_keras(path, layers.Dense(CLASSES), shape=(31,))


def of_other_classes(path: Path) -> Path:
    return save_keras(path, layers.Flatten(), layers.Dense(CLASSES + 1))


REFUSED = {
    with_lambda: "has a Lambda layer, which is code; it is not run",
    with_custom_object: "custom objects are code, and are not run",
    with_code: "custom objects are code, and are not run",
    truncated: "not a readable .keras file",
    a_pickle: "not a readable .keras file",
    of_keras_2: "not a .keras file of Keras 3: it has no config.json",
    with_nan: "has a kernel with weights that are no finite numbers",
    without_images: "takes images of shape [31], and those of the data set are [6, 5, 1]",
    of_other_classes: "has 5 classes, and the data set has 4",
}


@pytest.mark.parametrize("write", REFUSED)
def test_what_cannot_be_used_gets_one_line(write, tmp_path: Path):
    path = write(tmp_path / "a.keras")
    with pytest.raises(InputError, match=re.escape(REFUSED[write])) as problem:
        checking.weights(opened(path))
    assert str(problem.value).startswith(f"{tmp_path}")
    assert "\n" not in str(problem.value)


def test_formats_and_files_that_are_not_there(tmp_path: Path):
    whole(tmp_path / "mine.keras")
    with pytest.raises(InputError, match=r"mein\.keras: there is no such file; did you mean 'mine\.keras'"):
        opened(tmp_path / "mein.keras")
    with pytest.raises(InputError, match=r"no network is read from '\.pt' files; possible: \.keras, \.onnx, \.saf"):
        opened(tmp_path / "mine.pt")
