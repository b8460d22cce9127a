"""Corruptions as kernels: the images that they draw, one each or fifteen in turn, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_cases import deep_pack, digits
from builders import planned

from deltaball.base.errors import InputError
from deltaball.local.corruptions import kept
from deltaball.local.corruptions.corrupted import as_bytes, corrupted
from deltaball.local.corruptions.kept import Kept
from deltaball.local.judges import judge
from deltaball.local.kernels.kernel import Kernel, kernel
from deltaball.local.kernels.known import Known
from deltaball.local.label_notions import Classification
from deltaball.local.notions import ClassChange
from deltaball.study import kernels
from deltaball.study.corruptions import CORRUPTIONS, FIFTEEN
from deltaball.study.kernels import ChosenKernel
from deltaball.study.reading import load


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    """Four images of 256 levels."""
    return torch.from_numpy(as_bytes(digits(4).numpy()).astype(np.float32) / np.float32(255))


def asked(name: str, **parameters: int) -> Kernel:
    return kernel(ChosenKernel(name, tuple(parameters.items())))


def as_image(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_first_draw_is_the_corrupted_image_of_the_point(name: str, x: torch.Tensor):
    images = as_bytes(x.numpy())
    drawn = asked(name).sample(x, range(4), 2)
    assert torch.equal(drawn[:, 0], as_image(corrupted(name, images, range(4))))
    assert torch.equal(asked(name).sample(x[2:3], [2], 1)[0], drawn[2, :1])
    fixed = name in ("identity", "scale", "brightness", "stripe", "canny_edges")
    assert torch.equal(drawn[:, 0], drawn[:, 1]) == fixed
    assert torch.equal(drawn[:, 0], x) == (name == "identity")


def test_a_severity_is_one(x: torch.Tensor):
    images = as_bytes(x.numpy())
    for severity in (1, 5):
        drawn = asked("shear", severity=severity).sample(x, range(4), 1)[:, 0]
        assert torch.equal(drawn, as_image(corrupted("shear", images, range(4), severity)))


def test_the_fifteen_come_in_turn_and_their_mean_is_one_outcome_of_a_point(x: torch.Tensor):
    assert len(FIFTEEN) == 15
    assert "identity" not in FIFTEEN
    drawn = asked("mnist_c").sample(x, range(4), 30)
    for place, name in enumerate(FIFTEEN):
        assert torch.equal(drawn[:, [place, 15 + place]], asked(name).sample(x, range(4), 2))
    pack, labels = deep_pack(2, "relu", "fcn", 2.0), torch.arange(4)
    notions = [ClassChange(), Classification()]
    found = {
        notion: verdict.outcome
        for _, notion, verdict in judge("mean", draws=15)(pack, x, {asked("mnist_c"): notions}, range(4), labels)
    }
    classes = torch.stack([pack(drawn[:, place]).argmax(2) for place in range(15)])
    kept = (classes == pack(x).argmax(2)).double().mean(0)
    right = (classes == labels).double().mean(0)
    torch.testing.assert_close(found[notions[0]].double(), kept)
    torch.testing.assert_close(found[notions[1]].double(), right)
    assert len(found[notions[0]].unique()) > 2


def test_one_image_of_a_corruption_is_drawn_and_fifteen_of_all_if_nothing_is_said():
    entries = [{"notion": "class_change", "perturbation": ["fog", "mnist_c", "gaussian_clipped"], "sigma": 0.1}]
    with pytest.raises(ValueError, match="'fog' takes no sigma; it takes severity"):
        planned(measures=entries)
    measures = planned(
        measures=[
            {"notion": "class_change", "perturbation": ["fog", "mnist_c"]},
            {"notion": "class_change", "perturbation": "fog", "severity": [1, 2]},
            {"notion": "class_change", "perturbation": "mnist_c", "draws": 30},
            {"notion": "class_change", "perturbation": "gaussian", "sigma": 0.1},
        ]
    ).measures
    assert [one.name for one in measures] == [
        "class_change_fog_mean-1",
        "class_change_mnist_c_mean-15",
        "class_change_fog_1_mean-1",
        "class_change_fog_2_mean-1",
        "class_change_mnist_c_mean-30",
        "class_change_gaussian_0.1_mean",
    ]


def test_a_changed_rule_is_asked_by_another_name(monkeypatch: pytest.MonkeyPatch):
    asked = [{"notion": "classification", "perturbation": ["fog", "shear", "mnist_c"]}]

    def names() -> list[str]:
        return [one.name for one in planned(measures=asked).measures]

    of_fog, of_shear, of_all = names()
    monkeypatch.setitem(CORRUPTIONS, "fog", replace(CORRUPTIONS["fog"], version=2))
    assert names() == ["classification_fog_version2_mean-1", of_shear, "classification_mnist_c_version2_mean-15"]
    monkeypatch.setitem(CORRUPTIONS, "zigzag", replace(CORRUPTIONS["zigzag"], version=2))
    assert names() == ["classification_fog_version2_mean-1", of_shear, "classification_mnist_c_version3_mean-15"]
    monkeypatch.setattr(kernels, "VERSION", 2)
    assert not {of_fog, of_shear, of_all} & {*names()}


def test_kept_images_are_those_that_are_drawn(x: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "BLOCK", 3)
    monkeypatch.setattr(kept, "IN_MEMORY", 2)
    known = Known(np.empty(0), np.empty(0), corrupted=Kept(as_bytes(x.numpy()), tmp_path))
    keys = [2, 0, 3, 3]
    for chosen in (ChosenKernel("mnist_c"), ChosenKernel("fog", (("severity", 2),))):
        count = 30 if chosen.name == "mnist_c" else 2
        drawn = kernel(chosen).sample(x[keys], keys, count)
        assert torch.equal(kernel(chosen, known).sample(x[keys], keys, count), drawn)
        assert torch.equal(kernel(chosen, known).sample(x[keys], keys, count), drawn)
    # Two blocks of each corruption and turn.
    assert len(list(tmp_path.iterdir())) == 2 * (30 + 2)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("perturbation: fogg", "'fogg'"),
        ("perturbation: fog, severity: 6", "severity: 6 is wrong"),
        ("perturbation: stripe, severity: 1", "perturbation 'stripe' takes no severity"),
        ("perturbation: mnist_c, draws: 20", "draws 20: perturbation 'mnist_c' takes 15 corruptions in turn"),
    ],
)
def test_what_there_is_not_is_refused_in_a_line(entry: str, message: str, tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text(
        f"study: one\nguarantee: {{epsilon: 0.1, confidence: 0.9}}\nmeasures: [{{notion: class_change, {entry}}}]\n"
        "grids: [{name: a, dataset: mnist5k, architecture: mnist_c_cnn, method: sgd, learning_rate: 0.1, epochs: 1}]\n"
    )
    with pytest.raises(InputError) as refused:
        load(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
