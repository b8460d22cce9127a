"""DEMOGEN's checkpoints, as TensorFlow wrote them (benchmarks/demogen.py), without TensorFlow."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from builders import FILES, study
from exchange_cases import opened, random

from deltaball.base.errors import InputError
from deltaball.cli.main import main
from deltaball.data.catalogue import CATALOGUE
from deltaball.exchange import checking, checkpoint_files, demogen
from deltaball.networks.layers import Standardise
from deltaball.study import checking as studies
from deltaball.study.study import Study

ARCHIVE = FILES / "demogen"
IMAGE = CATALOGUE["cifar10"].shape
NETWORKS = {
    "nin": "NIN_CIFAR10/nin_wide_1.0x_bn_dropout_0.0_aug_decay_0.0_1",
    "resnet": "RESNET_CIFAR10/resnet_wide_1.0x_batchnorm_aug_decay_0.0_1",
    "grouped": "RESNET_CIFAR10/resnet_wide_1.0x_groupnorm_aug_decay_0.0_1",
}


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    assert main(["demogen", str(ARCHIVE), str(tmp_path / "zoo")]) == 0
    return tmp_path / "zoo"


def file(zoo: Path, scope: str) -> Path:
    return zoo / f"{NETWORKS[scope]}.safetensors"


@pytest.mark.parametrize("scope", NETWORKS)
def test_a_checkpoint_becomes_a_file_with_the_logits_that_tensorflow_has(scope: str, zoo: Path):
    with np.load(ARCHIVE / "logits.npz") as known:
        images, expected = torch.from_numpy(known["images"] / np.float32(255)), known[scope]
    network = checking.model(opened(file(zoo, scope), IMAGE, classes=10), "cpu")
    with torch.no_grad():
        found = network(images)[0].numpy()
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_it_is_measured_and_exact_answers_say_why_not(zoo: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (20, *IMAGE), np.uint8), np.arange(20) % 10
    np.savez(tmp_path / "few.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    asked = [str(file(zoo, "nin")), "--dataset", "few", "--data", str(tmp_path), "--delta", "0.1", "--points", "5"]
    assert main(["measure-file", *asked, "--attack", "pgd"]) == 0
    assert main(["measure-file", *asked, "--certificate", "ibp"]) == 0
    assert main(["measure-file", *asked, "--certificate", "exact"]) == 2
    reason = "it divides by a deviation of the image's own numbers, which is not piecewise linear"
    assert reason in capsys.readouterr().err
    grid = {"name": "demogen", "dataset": "cifar10", "method": "given", "files": f"{zoo}/*/*.safetensors"}
    measure = {"notion": "class_change", "delta": 0.1, "certificate": "exact"}
    with pytest.raises(InputError, match=reason):
        studies.check(Study.model_validate(study(grid, measures=[measure])), "a study")
    studies.check(Study.model_validate(study(grid)), "a study")


@pytest.mark.parametrize("place", [10, 1000, -3])
@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_a_byte_that_is_another_is_noticed(part: str, place: int, tmp_path: Path):
    folder = tmp_path / "damaged"
    shutil.copytree(ARCHIVE / NETWORKS["nin"], folder)
    path = folder / f"model.ckpt-150000.{part}"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable checkpoint of TensorFlow"):
        checkpoint_files.arrays(folder / "model.ckpt-150000", "nin/")


def test_what_is_cut_off_or_missing_gets_one_line(tmp_path: Path):
    shutil.copytree(ARCHIVE / NETWORKS["nin"], tmp_path / "nin_1")
    data = tmp_path / "nin_1/model.ckpt-150000.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(InputError, match="checksum"):
        demogen.convert(tmp_path, tmp_path / "zoo")
    data.unlink()
    with pytest.raises(InputError, match="data-00000-of-00001 cannot be read"):
        demogen.convert(tmp_path, tmp_path / "zoo")
    with pytest.raises(InputError, match=r"no checkpoint in it \(\*.index\); unpack demogen_models.tar.gz"):
        demogen.convert(tmp_path / "zoo", tmp_path)


def test_of_a_network_without_batch_normalisation_there_is_none():
    names = ["conv2d", *(f"conv2d_{number}" for number in range(1, 10))]
    arrays = {f"nin/{name}/kernel": random(1, 1, 2, 2) for name in names}
    arrays |= {f"nin/{name}/bias": random(2) for name in names}
    layers, tensors = demogen.described("nin", arrays)
    kinds = [entry if isinstance(entry, str) else entry["layer"] for entry in layers]
    assert kinds == ["standardise", *["conv", "relu"] * 9, "conv", "flatten"]
    assert len(tensors) == 20
    del arrays["nin/conv2d_4/bias"]
    with pytest.raises(InputError, match="a checkpoint of nin has no array 'nin/conv2d_4/bias'"):
        demogen.described("nin", arrays)


def test_layers_are_told_in_the_file(zoo: Path):
    path = file(zoo, "resnet")
    content = yaml.safe_load(path.with_suffix(".yaml").read_text())
    assert content["input"] == {"layout": "channels_last", "range": "0..255"}
    assert sum(isinstance(one, dict) and one["layer"] == "residual" for one in content["layers"]) == 15
    assert any(isinstance(layer, Standardise) for layer in opened(path, IMAGE, classes=10).layers)


def test_the_checksum_is_castagnolis():
    known = {b"": 0, b"a": 0xC1D04330, b"123456789": 0xE3069283, bytes(32): 0x8A9136AA}
    assert {content: checkpoint_files.crc32c(content) for content in known} == known


def test_group_normalisation_has_so_many_groups_at_most():
    """DEMOGEN's wider ResNets have groups of several channels."""
    arrays = {"resnet/group_norm/gamma": random(1, 64, 1, 1), "resnet/group_norm/beta": random(1, 64, 1, 1)}
    network = demogen.Network("resnet", arrays)
    entry = network.normalisation()
    assert entry == {"layer": "group_norm", "name": "group_norm", "groups": 32, "epsilon": 1e-6}
    np.testing.assert_array_equal(network.tensors["group_norm.gamma"], arrays["resnet/group_norm/gamma"].ravel())
