"""Networks that users bring: in a study, and measured at once, they are what they were where they were trained."""

import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from builders import grid, planned_few
from finished import done
from keras import layers
from safetensors.numpy import save_file

from deltaball.base.errors import InputError
from deltaball.cli.main import main
from deltaball.networks.keras_models import keras_model, set_weights
from deltaball.store.store import Store

MEASURES = [
    {"notion": "class_change", "delta": [0.02, 0.1], "attack": ["fgsm", "pgd"], "certificate": "crown"},
    {"notion": "softmax_variation", "delta": 0.1, "attack": "pgd", "certificate": "ibp"},
]
TRAINED = [
    grid(width=16, learning_rate=0.1, batch_size=32, epochs=[2]),
    grid("cnn", learning_rate=0.1, batch_size=32, epochs=[2]),
]


def given(*files: str, name: str = "mine") -> dict[str, Any]:
    return {"name": name, "dataset": "few", "method": "given", "files": list(files)}


@pytest.fixture(scope="module")
def zoo(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with trained networks as .keras files, and what a study that trained them says of them."""
    folder = tmp_path_factory.mktemp("zoo")
    plan = planned_few(data_folder, *TRAINED, measures=MEASURES, results=str(folder / "results"))
    tables = done(plan)
    for place, network in enumerate(plan.networks):
        weights = Store(plan.study.store).weights(network.trajectory_id, network.checkpoint)
        model = keras_model(plan.layers(network))
        set_weights(model, plan.layers(network), weights)
        model.save(folder / f"{place}.keras")
    return folder, tables


def test_a_trained_network_that_comes_back_has_the_same_outcomes(
    zoo: tuple[Path, Any], data_folder: Path, tmp_path: Path
) -> None:
    folder, (trained, rows, values) = zoo
    plan = planned_few(data_folder, given(f"{folder}/*.keras"), measures=MEASURES, results=str(tmp_path))
    networks, own_rows, own_values = done(plan)
    assert [*networks["file"]] == [f"{folder}/0.keras", f"{folder}/1.keras"]
    assert {*networks["architecture"]} == {"file"}
    for column in ("status", "parameters", "train_accuracy", "test_accuracy"):
        assert [*networks[column]] == [*trained[column]]
    pd.testing.assert_frame_equal(own_rows.drop(columns="network_id"), rows.drop(columns="network_id"))
    for one, other in zip(own_values["values"], values["values"], strict=True):
        np.testing.assert_array_equal(one, other)


def measure_file(*arguments: object) -> int:
    return main(["measure-file", *map(str, arguments)])


def test_measured_at_once_it_has_the_numbers_of_a_study(
    zoo: tuple[Path, Any], data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, (trained, rows, _) = zoo
    asked = ["--attack", "fgsm", "pgd", "--certificate", "crown", "--delta", 0.02, 0.1]
    place = ["--dataset", "few", "--data", data_folder, "--epsilon", 0.25]
    assert measure_file(folder / "0.keras", *asked, *place, "--json", tmp_path / "found.json") == 0
    found = json.loads((tmp_path / "found.json").read_text())
    own = rows[(rows["network_id"] == trained["network_id"][0]) & (rows["notion"] == "class_change")]
    expected = own.set_index("measure")
    assert {one["measure"] for one in found["estimates"]} == {*expected.index}
    for one in found["estimates"]:
        row = expected.loc[one["measure"]]
        for column in ("estimate", "lower", "upper", "side", "tight_lower", "tight_upper", "samples", "confidence"):
            assert one[column] == row[column], (one["measure"], column)
    assert found["test_accuracy"] == trained["test_accuracy"][0]
    said = capsys.readouterr().out
    for one in found["estimates"]:
        assert re.search(rf"{one['estimate']:.4f} +\[{one['lower']:.4f}, {one['upper']:.4f}\]", said)
    (enclosure, _) = found["enclosures"]
    assert enclosure["lower"] <= enclosure["upper"]
    assert f"lies in [{enclosure['lower']:.4f}, {enclosure['upper']:.4f}]" in said
    assert "accuracy" in said


def test_so_many_points_as_are_asked_for(zoo: tuple[Path, Any], data_folder: Path, tmp_path: Path) -> None:
    folder, _ = zoo
    place = ["--dataset", "few", "--data", data_folder, "--delta", "8/255"]
    assert measure_file(folder / "0.keras", *place, "--points", 5, "--seed", 3, "--json", tmp_path / "a.json") == 0
    (one,) = json.loads((tmp_path / "a.json").read_text())["estimates"]
    assert one["samples"] == 5
    assert one["delta"] == 8 / 255
    assert one["attack"] == "fgsm"


@pytest.fixture
def curved(tmp_path: Path) -> Path:
    """A network with an activation that is no layer of ours."""
    keras.utils.set_random_seed(0)
    model = [keras.Input((14, 14, 1)), layers.Flatten(), layers.Dense(8, activation="gelu"), layers.Dense(10)]
    keras.Sequential(model).save(tmp_path / "curved.keras")
    return tmp_path / "curved.keras"


def test_what_has_no_layer_is_attacked_and_certificates_say_why_not(
    curved: Path, data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--dataset", "few", "--data", data_folder, "--epsilon", 0.25, "--delta", 0.1]
    assert measure_file(curved, *place, "--attack", "pgd", "fgsm", "--steps", 3) == 0
    assert "there is no layer for layer Dense (activation gelu)" in capsys.readouterr().out
    assert measure_file(curved, *place, "--attack", "pgd", "--certificate", "crown") == 2
    said = capsys.readouterr().err
    assert "CROWN needs to know what every layer computes, and of layer Dense (activation gelu) it does not" in said
    assert said.count("\n") == 1


def test_a_study_of_such_a_network_is_refused_when_it_is_planned(curved: Path, data_folder: Path) -> None:
    with pytest.raises(InputError, match=r"no layer for layer Dense \(activation gelu\), .*`deltaball measure-file`"):
        planned_few(data_folder, given(str(curved)))


RESIDUAL = """
input: {range: 0..255, mean: 33.3, std: 78.6}
layers:
  - {layer: conv, name: first, stride: 2, padding: same}
  - {layer: batch_norm, name: norm}
  - relu
  - layer: residual
    body: [{layer: conv, name: inner, stride: 2, padding: [1, 1, 1, 1]}, {layer: leaky_relu, slope: 0.1}]
    shortcut: [{layer: subsample, stride: 2, channels: 6}]
  - {layer: max_pool, size: 3, stride: 2, padding: same}
  - flatten
  - {layer: dense, name: last}
"""


def test_what_is_proven_of_a_file_with_normalisation_strides_and_a_residual_no_attack_refutes(
    data_folder: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    shapes = {"first.kernel": (3, 3, 1, 4), "inner.kernel": (3, 3, 4, 6), "last.kernel": (24, 10), "last.bias": (10,)}
    arrays = {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        arrays[f"norm.{name}"] = random.uniform(0.5, 1.5, 4).astype(np.float32)
    save_file(arrays, tmp_path / "a.safetensors")
    (tmp_path / "a.yaml").write_text(RESIDUAL)
    deltas = [0.001, 0.003, 0.01, 0.03]
    judges = {"attack": ["fgsm", "pgd"], "certificate": ["ibp", "crown"]}
    plan = planned_few(
        data_folder,
        given(str(tmp_path / "a.safetensors")),
        measures=[{"notion": "class_change", "delta": deltas, **judges}],
        results=str(tmp_path / "results"),
    )
    _, rows, values = done(plan)
    outcomes = values.set_index("measure")["values"].map(np.asarray)
    judge = rows["attack"].fillna(rows["certificate"])
    found = {(*each,): outcomes[measure] for *each, measure in zip(rows["delta"], judge, rows["measure"], strict=True)}
    for delta in deltas:
        for certificate in judges["certificate"]:
            for attack in judges["attack"]:
                assert (found[delta, certificate] <= found[delta, attack]).all()
    # Neither side is trivial somewhere.
    assert any(0 < found[delta, "crown"].mean() for delta in deltas)
    assert any(found[delta, "pgd"].mean() < 1 for delta in deltas)


REFUSED = {
    "--delta 2.0 in norm linf: pixels lie in [0, 1]; at most 1": ["--delta", 2],
    "--certificate 'exact' cannot judge norm l2": ["--norm", "l2", "--certificate", "exact"],
    "--epsilon 0.001: needs 1,844,440 test points and few has 40": ["--epsilon", 0.001],
    "--points 41: few has 40 test points; give 1 to 40": ["--points", 41],
    "--confidence 1.0: should lie strictly between 0 and 1": ["--confidence", 1],
    "--input-range: range '3': should be as 0..1, 0..255 or -1..1": ["--input-range", "3"],
    "std 0.1, 0.2: images have 1 channels; give 1 number or 1": ["--std", 0.1, 0.2],
    "no data set 'fwe'": ["--dataset", "fwe"],
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_asked_gets_one_line(
    line: str, zoo: tuple[Path, Any], data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = zoo
    place = ["--dataset", "few", "--data", data_folder, "--epsilon", 0.25, "--delta", 0.1]
    assert measure_file(folder / "0.keras", *place, *REFUSED[line]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_pixels_that_it_was_not_trained_on_are_asked_for(
    data_folder: Path, few: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((14, 14, 1)), layers.Flatten(), layers.Dense(30, "tanh"), layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    first = model.layers[1]
    kernel, bias = first.get_weights()
    first.set_weights([kernel / 25, bias])
    model.fit(255 * few.x_train, few.y_train, epochs=20, batch_size=16, verbose=0)
    model.save(tmp_path / "a.keras")
    place = ["--dataset", "few", "--data", data_folder, "--epsilon", 0.25, "--delta", 0.02]
    assert measure_file(tmp_path / "a.keras", *place) == 2
    assert "say which it takes: --input-range 0..255" in capsys.readouterr().err
    assert measure_file(tmp_path / "a.keras", *place, "--input-range", "0..255") == 0
    assert "pixels from 0 to 255" in capsys.readouterr().out
