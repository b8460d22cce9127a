"""Every architecture, trained and exported on a few tiny colour images."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from builders import grid, planned

from deltaball.data.datasets import from_arrays
from deltaball.networks.keras_models import keras_model, set_weights
from deltaball.networks.packs import Pack
from deltaball.store.store import Store
from deltaball.study.architectures import TRAINED
from deltaball.training import sgd

AXES: dict[str, dict[str, Any]] = {"fcn": {"output": "clamp"}, "cnn": {"output": "clamp"}}


@pytest.fixture(scope="module")
def colours() -> dict[str, np.ndarray]:
    """Images whose class is their brightest colour."""
    random = np.random.default_rng(0)
    labels = np.arange(96) % 3
    images = random.random((96, 16, 16, 3)) * 0.3 + 0.7 * (np.arange(3) == labels[:, None])[:, None, None]
    images = (images * 255).astype(np.uint8)
    return {"x_train": images[:64], "y_train": labels[:64], "x_test": images[64:], "y_test": labels[64:]}


@pytest.mark.parametrize("architecture", TRAINED)
def test_an_architecture_is_trained_and_exported(
    architecture: str, colours: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "colours.npz", **colours)
    how = {
        "optimizer": "adam",
        "learning_rate": 0.005,
        "batch_size": 16,
        "epochs": [1, 3],
        **AXES.get(architecture, {}),
    }
    plan = planned(
        grid(architecture, dataset="colours", **how), data=str(tmp_path), guarantee={"epsilon": 0.3, "confidence": 0.9}
    )
    (one,) = plan.trajectories.values()
    data, store = from_arrays("colours", colours, "a test"), Store(tmp_path / "store")
    layers = plan.layers(one)
    assert sgd.train([one], layers, data, store, "cpu") == 2
    assert store.facts(one.id, 3)["status"] == "trained"
    weights = store.weights(one.id, 3)
    model = keras_model(layers)
    set_weights(model, layers, weights)
    model.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras")
    found = Pack.of(layers, [weights])(torch.from_numpy(data.x_test))[0]
    np.testing.assert_allclose(again(data.x_test).detach().numpy(), found, rtol=1e-3, atol=1e-3)
    assert found.argmax(1).numpy().tolist() == again(data.x_test).detach().numpy().argmax(1).tolist()
