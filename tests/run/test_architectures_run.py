"""Every architecture, trained, attacked and certified on a few tiny colour images, exported, and brought back."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import grid, planned
from finished import done

from deltaball.networks.keras_models import keras_model, set_weights
from deltaball.store.store import Store
from deltaball.study.architectures import TRAINED

# Of LeNet both, as they are two networks.
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in TRAINED} | {
    "fcn": ("fcn", {"output": "clamp"}),
    "cnn": ("cnn", {"output": "clamp"}),
    "lenet with relu": ("lenet", {"conv_activation": "relu"}),
}
GUARANTEE = {"epsilon": 0.45, "confidence": 0.9}  # 8 points
# CROWN goes backward from every layer, which takes its time where these are wide or many.
JUDGED = ("attack", "certificate")
CERTIFICATES = dict.fromkeys(TRAINED, "ibp") | dict.fromkeys(("fcn", "cnn", "vgg", "conv5"), "crown")


@pytest.fixture(scope="module")
def colours() -> dict[str, np.ndarray]:
    """Images whose class is their brightest colour."""
    random = np.random.default_rng(0)
    labels = np.arange(96) % 3
    images = random.random((96, 16, 16, 3)) * 0.3 + 0.7 * (np.arange(3) == labels[:, None])[:, None, None]
    images = (images * 255).astype(np.uint8)
    return {"x_train": images[:64], "y_train": labels[:64], "x_test": images[64:], "y_test": labels[64:]}


@pytest.mark.parametrize("case", CASES)
def test_an_architecture_is_trained_and_measured_and_comes_back_from_its_file_as_it_was(
    case: str, colours: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "colours.npz", **colours)
    architecture, axes = CASES[case]
    how = {"optimizer": "adam", "learning_rate": 0.005, "batch_size": 16, "epochs": 3, **axes}
    proof, ball = CERTIFICATES[architecture], {"delta": 0.02, "attack": ["fgsm", "pgd"]}
    measures = [{"notion": "class_change", **ball, "certificate": proof}, {"notion": "softmax_variation", **ball}]
    asked = {"data": str(tmp_path), "guarantee": GUARANTEE, "measures": measures}
    plan = planned(grid(architecture, dataset="colours", **how), **asked, results=str(tmp_path / "ours"))
    networks, rows, values = done(plan)
    assert [*networks["status"]] == ["trained"]
    (network,) = plan.networks
    layers, weights = plan.layers(network), Store(plan.study.store).weights(network.trajectory_id, network.checkpoint)
    model = keras_model(layers)
    set_weights(model, layers, weights)
    model.save(tmp_path / "network.keras")
    brought = {"name": "mine", "dataset": "colours", "method": "given", "files": str(tmp_path / "network.keras")}
    given_networks, given_rows, given_values = done(planned(brought, **asked, results=str(tmp_path / "theirs")))
    for column in ("status", "parameters", "train_accuracy", "test_accuracy"):
        assert [*given_networks[column]] == [*networks[column]]
    pd.testing.assert_frame_equal(given_rows.drop(columns="network_id"), rows.drop(columns="network_id"), rtol=1e-5)
    for one, other in zip(given_values["values"], values["values"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    attacked, proven = (rows[rows[kind].notna() & (rows["notion"] == "class_change")] for kind in JUDGED)
    assert len(attacked) == 2
    assert proven["estimate"].item() <= attacked["estimate"].min()
