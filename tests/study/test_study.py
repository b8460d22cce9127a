from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from builders import grid, study

from deltaball.base.errors import InputError
from deltaball.study.judges import JUDGES
from deltaball.study.reading import load
from deltaball.study.study import Study


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, content: Any) -> Study:
    return load(written(folder, yaml.safe_dump(content, sort_keys=False)))


def refusal(path: Path) -> str:
    """What the user reads about a study that cannot be used: one line that begins with the file."""
    with pytest.raises(InputError) as refused:
        load(path)
    text = str(refused.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(str(path))


def without(key: str) -> dict:
    return {name: value for name, value in study().items() if name != key}


def measured(**changed: Any) -> dict:
    return study(measures=[{"notion": "class_change", "delta": 0.1, **changed}])


def guaranteed(**changed: Any) -> dict:
    return study(guarantee={"epsilon": 0.05, "confidence": 0.95, **changed})


BROKEN = {
    "unknown key": (study(colour="red"), ["colour", "'red'", "possible: analysis, autoencoders, compute"]),
    "penalty of a plain auto-encoder": (
        study(autoencoders=[{"name": "one", "dataset": "mnist5k", "kind": "plain", "penalty": 3}]),
        ["autoencoders[0]", "penalty 3 is for kind wasserstein"],
    ),
    "auto-encoder of other data": (
        study(autoencoders=[{"name": "one", "dataset": "cifar10"}]),
        ["autoencoders[0] (one).dataset", "no grid uses 'cifar10'", "mnist5k"],
    ),
    "auto-encoder that is not there": (
        study(measures=[{"notion": "class_change", "perturbation": "on_manifold", "sigma": 0.1, "autoencoder": "one"}]),
        ["measures[0].autoencoder: there is no 'one'", "list it under autoencoders"],
    ),
    "auto-encoder of another grid": (
        study(
            grid(),
            grid(name="other", dataset="cifar10"),
            autoencoders=[{"name": "one", "dataset": "mnist5k"}],
            measures=[{"notion": "class_change", "perturbation": "on_manifold", "sigma": 0.1, "autoencoder": "one"}],
        ),
        ["measures[0].autoencoder: 'one' is of mnist5k, and grid 'other' of cifar10", "only"],
    ),
    "two auto-encoders of a name": (
        study(autoencoders=[{"name": "one", "dataset": "mnist5k", "seed": seed} for seed in (0, 1)]),
        ["autoencoders", "'one' is listed twice"],
    ),
    "minibatch of an auto-encoder": (
        study(autoencoders=[{"name": "one", "dataset": "mnist5k", "batch_size": 5000}]),
        ["autoencoders[0] (one).batch_size = 5000", "mnist5k has 4000 training images"],
    ),
    "misspelt optional key": (study(descripton="x"), ["descripton", "did you mean 'description'?"]),
    "misspelt section": ({**without("guarantee"), "garantee": {}}, ["'garantee'", "did you mean 'guarantee'?"]),
    "misspelt axis": (
        study(grid(without=("width",), widht=64)),
        ["grids[0]", "'widht'", "did you mean 'width'"],
    ),
    "misspelt key of the guarantee": (
        study(guarantee={"epsilom": 0.05, "confidence": 0.95}),
        ["guarantee", "'epsilom'", "did you mean 'epsilon'?"],
    ),
    "key of another architecture": (study(grid(kernel=3)), ["grids[0].kernel", "unknown key 'kernel'", "value 3"]),
    "key that is no string": ({**study(), 1: 2}, ["1", "keys should be strings"]),
    "empty axis": (study(grid(depth=[])), ["grids[0].depth", "empty", "at least one value"]),
    "axis without a value": (study(grid(depth=None)), ["grids[0].depth", "None", "valid integer"]),
    "word for a number": (study(grid(width=[64, "wide"])), ["grids[0].width[1]", "'wide'", "valid integer"]),
    "number in quotes": (study(grid(depth="2")), ["grids[0].depth", "'2'", "valid integer"]),
    "fraction for a count": (study(grid(depth=1.5)), ["grids[0].depth", "1.5", "valid integer"]),
    "truth for a count": (study(grid(depth=True)), ["grids[0].depth", "True", "valid integer"]),
    "no layers": (study(grid(depth=[1, 0])), ["grids[0].depth[1]", "0", "greater than or equal to 1"]),
    "infinite learning rate": (study(grid(learning_rate=float("inf"))), ["grids[0].learning_rate", "inf", "finite"]),
    "negative seed": (study(grid(seed=-1)), ["grids[0].seed", "-1"]),
    "repeated value": (study(grid(depth=[1, 2, 1])), ["grids[0].depth", "1 is listed twice"]),
    "repeated delta": (measured(delta=[0.1, 0.2, 0.1]), ["measures[0].delta", "0.1 is listed twice"]),
    "delta above 1": (measured(delta=[0.1, 8]), ["measures[0]", "delta 8", "norm linf", "at most 1"]),
    "alpha below 0": (
        measured(notion="margin", attack="linear_region", delta=0.1, alpha=-1),
        ["measures[0].alpha", "-1", "greater than or equal to 0"],
    ),
    "delta below 0": (measured(delta=-0.1), ["measures[0].delta", "-0.1", "greater than or equal to 0"]),
    "delta not a number": (measured(delta=float("nan")), ["measures[0].delta", "nan"]),
    "gamma of 1": (measured(notion="variation_above", gamma=1), ["measures[0].gamma", "1", "less than 1"]),
    "epsilon too small": (
        guaranteed(epsilon=0.01),
        ["guarantee.epsilon = 0.01", "18445 test points", "mnist5k has 1000", "epsilon = 0.043 can be had"],
    ),
    "epsilon too small for all at once": (
        {**guaranteed(simultaneous=True), "grids": [grid(epochs=[1, 2, 3, 4, 5])]},
        ["guarantee.epsilon = 0.05", "mnist5k has 1000", "can be had"],
    ),
    "epsilon tiny": (guaranteed(epsilon=1e-200), ["guarantee.epsilon", "1e-200"]),
    "epsilon tiny but not underflowing": (guaranteed(epsilon=1e-155), ["guarantee.epsilon", "1e-155"]),
    "epsilon 0": (guaranteed(epsilon=0), ["guarantee.epsilon", "0", "greater than 0"]),
    "confidence in percent": (guaranteed(confidence=95), ["guarantee.confidence", "95", "less than 1"]),
    "confidence that leaves no room": (
        guaranteed(confidence=0.9999999999999999, simultaneous=True),
        ["guarantee"],
    ),
    "unknown data set": (
        study(grid(dataset="mnist_5k")),
        ["grids[0]", "dataset", "'mnist_5k'", "did you mean 'mnist5k'", "mnist_5k.npz"],
    ),
    "measure of a data set no grid has": (
        measured(only={"dataset": "mnist5"}),
        ["measures[0].only", "'mnist5'", "did you mean 'mnist5k'?"],
    ),
    "measure of no data set": (measured(only={"dataset": []}), ["measures[0].only.dataset", "empty"]),
    "measure of a width no grid has": (measured(only={"width": [64, 63]}), ["measures[0].only", "width 63", "64"]),
    "measure of networks that no grid has at once": (
        {**study(grid(), grid("cnn")), "measures": measured(only={"depth": 1, "filters": 4})["measures"]},
        ["measures[0].only", "no network has all of", "filters"],
    ),
    "measure of a seed no grid has": (measured(only={"seed": [0, 1]}), ["measures[0].only", "seed 1", "possible: 0"]),
    "measure of an unknown axis": (measured(only={"widht": 64}), ["measures[0].only", "did you mean 'width'"]),
    "unknown attack": (measured(attack=["fgsm", "pdg"]), ["measures[0].attack[1]", "'pdg'", "did you mean 'pgd'?"]),
    "unknown norm": (measured(norm="l3"), ["measures[0].norm", "'l3'", "l1, l2, linf"]),
    "exact softmax variation": (
        measured(notion="softmax_variation", certificate="exact"),
        ["measures[0]", "'exact' cannot judge softmax_variation", "not piecewise linear", "crown"],
    ),
    "closest softmax variation": (measured(notion="softmax_variation", attack="fmn"), ["measures[0]", "'fmn'"]),
    "margin by an attack in a ball": (measured(notion="margin", attack="pgd"), ["'pgd' cannot judge margin", "fmn"]),
    "frequency within no distance": (
        {**measured(notion="margin", delta=0.1), "analysis": {"within": [0.05, 0]}},
        ["analysis.within[1]", "0", "greater than 0"],
    ),
    "frequency of distances that nothing seeks": (
        {**measured(notion="margin", certificate="crown", delta=0.1), "analysis": {"within": 0.05}},
        ["analysis.within", "no distance is sought", "ask margin with an attack"],
    ),
    "frequency beyond the distances": (
        {**measured(notion="margin", delta=[0.05, 0.1]), "analysis": {"within": ["8/255", "51/255"]}},
        ["analysis.within = 0.2", "within 0.1 at most", "larger delta of margin"],
    ),
    "margin in no ball": (measured(notion="margin", delta=0), ["measures[0].delta", "0", "greater than 0"]),
    "exact in l2": (measured(norm="l2", certificate="exact"), ["'exact' cannot judge norm l2", "linear"]),
    "linear programs of regions for a tanh network": (
        {**study(grid(activation=["relu", "tanh"])), "measures": measured(attack="linear_region")["measures"]},
        ["measures[0].attack", "fcn-sgd", "tanh", "only: {activation: relu}"],
    ),
    "certificate of a posterior mean": (
        {**study(grid("fcn", "hmc")), "measures": measured(certificate="crown")["measures"]},
        ["measures[0].certificate", "fcn-hmc", "posterior"],
    ),
    "steps of fgsm": (measured(steps=10), ["measures[0]", "steps 10 is for one of", "fmn", "pgd", "['fgsm']"]),
    "steps of two attacks": (
        measured(attack=["pgd", "fmn"], steps=10),
        ["measures[0]", "steps 10 is for one of", "fmn", "pgd"],
    ),
    "restarts of none": (measured(attack="fmn", restarts=2), ["measures[0]", "restarts 2", "pgd"]),
    "exact for networks that are too large": (
        {
            **study(grid("cnn", filters=[2, 16], conv_depth=[1, 2])),
            "measures": measured(certificate="exact")["measures"],
        },
        ["measures[0].certificate", "'exact'", "filters 16", "conv_depth 1", "'cnn-sgd'", "crown", "only"],
    ),
    "batches larger than the data": (
        study(grid(batch_size=[32, 1000000])),
        ["grids[0]", "batch_size = 1000000", "mnist5k has 4000 training images"],
    ),
    "seconds of an attack": (measured(attack="pgd", seconds=2.0), ["measures[0]", "seconds 2.0", "exact"]),
    "epsilon of one measure": (
        measured(guarantee={"epsilon": 0.01}),
        ["measures[0].guarantee.epsilon = 0.01", "18445 test points", "epsilon = 0.043 can be had"],
    ),
    "convergence to too small an epsilon": (
        study(convergence=[{"measure": {"notion": "class_change", "delta": 0.1}, "epsilon": [0.1, 0.01]}]),
        ["convergence[0].epsilon = 0.01", "18445 test points"],
    ),
    "convergence of many networks": (
        study(
            grid(seed=[0, 1, 2, 3]),
            convergence=[{"measure": {"notion": "class_change", "delta": 0.1}, "epsilon": 0.1}],
        ),
        ["convergence[0].measure.only", "chooses 8 networks", "at most 6"],
    ),
    "convergence of an unknown notion": (
        study(convergence=[{"measure": {"notion": "class_chnage", "delta": 0.1}, "epsilon": 0.1}]),
        ["convergence[0].measure", "did you mean 'class_change'?"],
    ),
    "convergence with two guarantees": (
        study(
            convergence=[
                {"measure": {"notion": "class_change", "delta": 0.1, "guarantee": {"epsilon": 0.2}}, "epsilon": 0.1}
            ]
        ),
        ["convergence[0]", "measure.guarantee", "take it out"],
    ),
    "unknown activation": (
        study(grid(activation=["relu", "tahn"])),
        ["grids[0].activation[1]", "'tahn'", "did you mean 'tanh'?"],
    ),
    "unknown device": (study(compute={"device": "gpu"}), ["compute.device", "'gpu'", "'cpu'"]),
    "unknown notion": (
        measured(notion="class_chnage"),
        ["measures[0]", "notion 'class_chnage'", "did you mean 'class_change'?"],
    ),
    "list of notions": (measured(notion=["class_change"]), ["measures[0]", "notion", "['class_change']"]),
    "measure without a notion": (
        study(measures=[{"delta": 0.1}]),
        ["measures[0]", "missing key 'notion'", "class_change"],
    ),
    "missing axis": (study(grid(without=("depth",))), ["grids[0]", "missing key 'depth'", "hidden layers"]),
    "missing gamma": (measured(notion="variation_above"), ["measures[0]", "missing key 'gamma'", "threshold"]),
    "missing epsilon": (study(guarantee={"confidence": 0.95}), ["guarantee", "missing key 'epsilon'"]),
    "missing study": (without("study"), ["missing key 'study'"]),
    "missing guarantee": (without("guarantee"), ["missing key 'guarantee'"]),
    "missing measures": (without("measures"), ["missing key 'measures'"]),
    "missing grids": (without("grids"), ["missing key 'grids'"]),
    "no grids": ({**study(), "grids": []}, ["grids", "empty"]),
    "no measures": (study(measures=[]), ["measures", "empty"]),
    "missing method": (study(grid(without=("method",))), ["grids[0]", "missing key 'method'", "hmc, imp, sgd"]),
    "missing architecture": (study(grid(without=("architecture",))), ["grids[0]", "missing key 'architecture'"]),
    "unknown architecture": (study({**grid(), "architecture": "fnc"}), ["grids[0]", "'fnc'", "did you mean 'fcn'?"]),
    "list of architectures": (study({**grid(), "architecture": ["fcn", "cnn"]}), ["grids[0]", "architecture", "'cnn'"]),
    "unknown method": (study({**grid(), "method": "sdg"}), ["grids[0]", "'sdg'", "did you mean 'sgd'?"]),
    "unknown objective": (
        study(grid(objective="cross_entorpy")),
        ["grids[0]", "objective 'cross_entorpy' is not known", "did you mean 'cross_entropy'?"],
    ),
    "misplaced section": (
        study(grid(guarantee={"epsilon": 0.05})),
        ["grids[0].guarantee", "unknown key 'guarantee'", "it is a key of measures and of the study itself"],
    ),
    "method that does not go with the architecture": (
        study({**grid("cnn"), "method": "hmc"}),
        ["grids[0]", "method 'hmc' does not go with architecture 'cnn'", "hmc with fcn"],
    ),
    "too many pools": (
        study(grid("cnn", conv_depth=[1, 5])),
        ["grids[0]", "conv_depth = 5", "28×28", "at most 4 fits"],
    ),
    "grid that is a word": (study(grids=["fcn"]), ["grids[0]", "'fcn'", "mapping"]),
    "grids that are a word": (study(grids="fcn"), ["grids", "'fcn'", "list"]),
    "two grids of one name": (study(grid(), grid(seed=1)), ["grids", "'fcn-sgd' is listed twice"]),
    "name of the store": (study(study="store"), ["study", "'store'", "choose another name"]),
    "name that is a path": (study(study="../elsewhere"), ["study", "'../elsewhere'", "letters, digits"]),
    "name that is a number": (study(study=12), ["study", "12", "valid string"]),
}


@pytest.mark.parametrize(("content", "parts"), BROKEN.values(), ids=BROKEN)
def test_a_broken_study_is_explained(tmp_path: Path, content: dict, parts: list[str]):
    text = refusal(written(tmp_path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True)))
    for part in parts:
        assert part in text


NO_STUDY = {
    "YAML that does not end": ("study: [a,\n  b: {", ["line 2", "not valid YAML"]),
    "tab": ("study: a\n\tb: c", ["line 2", "not valid YAML", "\\t"]),
    "repeated key": ("study: a\ndata: b\nstudy: c", ["line 3", "key 'study' twice"]),
    "repeated key inside": ("grids:\n  - name: a\n    name: b", ["line 3", "key 'name' twice"]),
    "undefined alias": ("study: *a", ["line 1", "undefined alias 'a'"]),
    "two documents": ("study: a\n---\nstudy: b", ["line 2", "another document"]),
    "code": ("study: !!python/object/apply:os.system [ls]", ["line 1", "not valid YAML"]),
    "control character": ("study: a\x07b", ["not valid YAML", "special characters are not allowed"]),
    "key that is a list": ("? [a, b]\n: c", ["line 1"]),
    "key that is a mapping": ("study: a\n{a: b}: c", ["line 2"]),
    "list": ("- a\n- b", ["should hold the keys of a study", "measures, convergence, grids"]),
    "word": ("study", ["should hold the keys of a study"]),
    "nothing": ("", ["should hold the keys of a study"]),
}


@pytest.mark.parametrize(("content", "parts"), NO_STUDY.values(), ids=NO_STUDY)
def test_a_file_that_holds_no_study_is_explained(tmp_path: Path, content: str, parts: list[str]):
    text = refusal(written(tmp_path, content))
    for part in parts:
        assert part in text


def test_a_file_that_cannot_be_read_is_explained(tmp_path: Path):
    assert "cannot be read (No such file" in refusal(tmp_path / "config.yaml")
    assert "cannot be read" in refusal(tmp_path)
    (tmp_path / "config.yaml").write_bytes(b"study: \xff\xfe")
    assert "UTF-8" in refusal(tmp_path / "config.yaml")


def test_a_damaged_data_file_is_named_with_its_grid(tmp_path: Path):
    (tmp_path / "own.npz").write_bytes(b"PK")
    content = study(grid(dataset="own"), data=str(tmp_path))
    text = refusal(written(tmp_path, yaml.safe_dump(content)))
    assert "grids[0]" in text
    assert f"{tmp_path / 'own.npz'}: not a readable .npz file" in text


def test_only_the_first_error_is_spelt_out_and_the_others_counted(tmp_path: Path):
    text = refusal(written(tmp_path, yaml.safe_dump(study(grid(depth=0, width=0, activation="step")))))
    assert text.endswith("(and 2 more)")


@pytest.mark.parametrize("points", [3, 7, 40, 1000])
@pytest.mark.parametrize("confidence", [0.6, 0.95])
def test_the_epsilon_that_can_be_had_can_be_had(tmp_path: Path, points: int, confidence: float):
    images, labels = np.zeros((points, 2, 2), np.uint8), np.arange(points, dtype=np.uint8) % 2
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)

    def asked(epsilon: float) -> Path:
        content = guaranteed(epsilon=epsilon, confidence=confidence)
        content |= {"data": str(tmp_path), "grids": [grid(dataset="own")]}
        return written(tmp_path, yaml.safe_dump(content))

    offered = float(refusal(asked(1e-3)).split("; epsilon = ")[1].split()[0])
    assert load(asked(offered)).guarantee.epsilon == offered
    # Not much more is asked than needed: the next smaller ε of four digits is refused.
    refusal(asked(round(offered - 0.0002, 4)))


def test_the_smallest_test_split_decides(tmp_path: Path):
    images, labels = np.zeros((50, 28, 28), np.uint8), np.arange(50, dtype=np.uint8) % 2
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    content = study(grid(), grid(name="own", dataset="own"), data=str(tmp_path))
    assert "own has 50" in refusal(written(tmp_path, yaml.safe_dump(content)))


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1E-4", 1e-4), ("+2e-2", 2e-2), ("5.e-1", 0.5), ("1", 1.0), ("0.05", 0.05)]
)
def test_numbers_are_read_as_people_write_them(tmp_path: Path, text: str, value: float):
    content = yaml.safe_dump(study(grid(learning_rate="PLACE"))).replace("PLACE", text)
    rates = load(written(tmp_path, content)).grids[0].learning_rate
    assert rates == [value]
    assert isinstance(rates[0], float)


def test_1e3_epochs_is_no_count(tmp_path: Path):
    content = yaml.safe_dump(study(grid(epochs="PLACE"))).replace("PLACE", "1e3")
    assert "grids[0].epochs: 1000.0" in refusal(written(tmp_path, content))


@pytest.mark.parametrize("architecture", ["fcn", "cnn", "vgg"])
def test_one_value_is_a_list_of_one_value(tmp_path: Path, architecture: str):
    lists = {name: [value] if not isinstance(value, list) else value for name, value in grid(architecture).items()}
    lists |= {name: grid(architecture)[name] for name in ("name", "dataset", "method", "architecture")}
    assert loaded(tmp_path, study(lists)) == loaded(tmp_path, study(grid(architecture)))


def test_what_may_be_left_out(tmp_path: Path):
    found = loaded(tmp_path, study(grid(without=("seed", "batch_size", "optimizer"))))
    assert (found.grids[0].seed, found.grids[0].batch_size, found.grids[0].optimizer) == ([0], [128], ["sgd"])
    assert found.compute.device == "cpu"
    assert not found.guarantee.simultaneous
    assert (found.folder, found.store) == (Path("results/test"), Path("results/store"))


@pytest.mark.parametrize(
    ("sample", "parts"),
    [
        ({"trajectories": 2}, ["grids[0]", "sample.trajectories 2: there are 1; leave it out for all"]),
        ({"trajectories": 0}, ["grids[0].sample.trajectories", "0 is wrong"]),
        ({"trajectores": 1}, ["grids[0].sample", "unknown key 'trajectores'", "did you mean 'trajectories'?"]),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_explained(tmp_path: Path, sample: dict, parts: list[str]):
    line = refusal(written(tmp_path, yaml.safe_dump(study(grid(sample=sample)))))
    assert all(part in line for part in parts), line


def test_estimates_are_networks_times_measures(tmp_path: Path):
    measures = [
        {"notion": "class_change", "delta": [0.1, 0.2]},
        {"notion": "variation_above", "gamma": [0.2, 0.5], "delta": [0.1, 0.2, 0.3], "only": {"dataset": "mnist5k"}},
    ]
    # 2 × 3 networks on mnist5k with 2 + 6 numbers each; 2 on mnist with 2 each.
    grids = grid(depth=[1, 2], epochs=[1, 2, 3]), grid(name="other", dataset="mnist")
    assert loaded(tmp_path, study(*grids, measures=measures)).estimates() == 6 * 8 + 2 * 2


def test_all_estimates_at_once_share_alpha(tmp_path: Path):
    content = guaranteed(epsilon=0.1, simultaneous=True)
    found = loaded(tmp_path, {**content, "grids": [grid(epochs=[1, 2, 3, 4, 5])]})
    assert found.estimates_at_once() == 5
    assert loaded(tmp_path, guaranteed()).estimates_at_once() == 1


def test_what_the_tables_name_and_the_code_lacks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lost = replace(JUDGES["fgsm"], implementation="deltaball.local.attacks.fgsm.Fgms")
    monkeypatch.setitem(JUDGES, "fgsm", lost)
    text = refusal(written(tmp_path, yaml.safe_dump(measured(attack=["pgd", "fgsm"]))))
    assert "measures[0].attack: 'fgsm' is not implemented: there is no deltaball.local.attacks.fgsm.Fgms" in text
    loaded(tmp_path, measured(attack="pgd"))
