"""Adapting networks to corruptions: statistics and alignment against their definitions, index sets, rows, refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from builders import grid, planned, planned_few

from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.base.statuses import DIVERGED
from deltaball.data.datasets import Dataset
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pack
from deltaball.plan.plan import Plan
from deltaball.store.store import Checkpoint, Store
from deltaball.study import architectures
from deltaball.study.corruptions import FIFTEEN
from deltaball.study.reading import load
from deltaball.training import adapting, sgd
from deltaball.training.adapting import with_aligned_inputs, with_statistics
from deltaball.training.index_sets import corrupted_images, index_sets
from deltaball.training.passes import TrainingPass

AXES = {"conv5": {"filters": 3, "fc_width": 6}, "resnet20": {"width": 2}, "fcn": {"depth": 1, "width": 6}}
AXES["fcn"] |= {"activation": "relu", "output": "clamp"}


def network(architecture: str) -> Pack:
    layers = architectures.layers(architecture, AXES[architecture], (14, 14, 1), 10)
    drawn = generator("weights", architecture)
    return Pack.of(layers, [[array + np.float32(0.1) for array in initial_weights(layers, drawn)]])


def images(shift: float = 0.0, count: int = 40) -> torch.Tensor:
    drawn = generator("images", shift).random((count, 14, 14, 1), np.float32)
    return torch.from_numpy(drawn * np.float32(1 - shift) + np.float32(shift) * drawn**2)


@pytest.mark.parametrize("architecture", ["conv5", "resnet20"])
def test_statistics_are_those_of_one_batch_of_all_images(architecture: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(adapting, "EVALUATION_BATCH", 16)
    pack, shown = network(architecture), images(0.5)
    found = with_statistics(pack, shown)
    way = TrainingPass()
    way.through(pack.layers, pack.weights, shown)
    buffers = [place for place, weight in enumerate(pack.layers.weights) if weight.role == "buffer"]
    assert len(buffers) == 2 * len(way.seen) > 2
    for seen, mean, variance in zip(way.seen, buffers[::2], buffers[1::2], strict=True):
        torch.testing.assert_close(found[mean], seen.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[variance], seen.variance, rtol=1e-4, atol=1e-5)
    for place, (before, after) in enumerate(zip(pack.weights, found, strict=True)):
        assert place in buffers or torch.equal(before, after)


@pytest.mark.parametrize("architecture", ["conv5", "fcn"])
def test_aligned_inputs_have_the_mean_and_covariance_of_clean_ones(architecture: str):
    pack, clean, shifted = network(architecture), images(), images(0.5)
    first = len(pack.weights) - 2
    found = with_aligned_inputs(pack, clean, shifted)
    assert all(torch.equal(*both) for both in zip(pack.weights[:first], found, strict=False))
    aligned = Pack(pack.layers, tuple(found))
    # Logits are affine in the inputs, so that their mean is moved to that of clean images.
    torch.testing.assert_close(aligned(shifted).mean(1), pack(clean).mean(1), rtol=1e-4, atol=1e-4)
    before = Layers(pack.layers.shape, pack.layers.sequence[: -1 if architecture == "conv5" else -2])
    covariances = []
    for shown in (clean, shifted):
        inputs = Pack(before, pack.weights[:first])(shown)[0].double().numpy()
        covariances.append(np.cov(inputs.T) + np.eye(inputs.shape[1]))
    kernel, own = (weights[first][0].double().numpy() for weights in (pack.weights, found))
    np.testing.assert_allclose(own.T @ covariances[1] @ own, kernel.T @ covariances[0] @ kernel, rtol=1e-4, atol=1e-5)
    # Of images that are not shifted nothing is left to do.
    for one, other in zip(with_aligned_inputs(pack, clean, clean), pack.weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_no_image_is_shown_clean_and_corrupted(few: Dataset, tmp_path: Path):
    small, large = (index_sets(few.facts, FIFTEEN, count, seed=3) for count in (2, 8))
    every = np.concatenate([large.clean, *large.corrupted.values()])
    assert sorted(every) == [*range(few.facts.train)]
    assert {len(one) for one in large.corrupted.values()} == {8}
    assert all((large.corrupted[name][:2] == small.corrupted[name]).all() for name in FIFTEEN)
    assert (index_sets(few.facts, ["fog"], 8, seed=4).clean != index_sets(few.facts, ["fog"], 8, seed=3).clean).any()
    shown = corrupted_images(few, small, Store(tmp_path))
    assert (shown.shape, shown.dtype) == ((30, 14, 14, 1), np.float32)
    stripe = few.x_train[small.corrupted["stripe"]]
    place = 2 * FIFTEEN.index("stripe")
    np.testing.assert_allclose(shown[place : place + 2, :, 4:10], stripe[:, :, 4:10], atol=1e-6)
    np.testing.assert_allclose(shown[place : place + 2, :, 0], 1 - stripe[:, :, 0], atol=1e-6)
    with pytest.raises(ValueError, match="9 images for each of 15 corruptions, of 130"):
        index_sets(few.facts, FIFTEEN, 9, seed=3)


def adapted_plan(folder: Path, **changed: object) -> Plan:
    own = {**AXES["conv5"], "learning_rate": 0.1, "epochs": 1, "batch_size": 32, "corrupted_images": 8, **changed}
    return planned_few(folder, grid("conv5", "adapt", **{"adaptation": ["batch_norm", "coral"], **own}))


def test_an_adapted_network_is_its_trunk_but_for_what_is_made_anew(data_folder: Path, few: Dataset, tmp_path: Path):
    plan, store = adapted_plan(data_folder, corruption=["fog", "mnist_c"]), Store(tmp_path)
    (trunk,) = (one for one in plan.trajectories.values() if one.method == "sgd")
    adapted = [one for one in plan.trajectories.values() if one.method == "adapt"]
    assert len(adapted) == 4
    assert {network.trunk for network in plan.networks} == {(trunk.id, 1)}
    with pytest.raises(InputError, match="which is not in the store"):
        adapting.train(adapted, plan.layers(trunk), few, store, "cpu")
    sgd.train([trunk], plan.layers(trunk), few, store, "cpu")
    assert adapting.train(adapted, plan.layers(trunk), few, store, "cpu") == 4
    assert adapting.train(adapted, plan.layers(trunk), few, store, "cpu") == 0
    before = store.weights(trunk.id, 1)
    for one in adapted:
        weights = store.weights(one.id, 0)
        changed = [i for i, both in enumerate(zip(before, weights, strict=True)) if not np.array_equal(*both)]
        roles = {plan.layers(trunk).weights[place].role for place in changed}
        assert roles == ({"buffer"} if one.axes["adaptation"] == "batch_norm" else {"kernel", "bias"})
        assert 0 <= store.facts(one.id, 0)["test_accuracy"] <= 1


def test_what_diverged_is_not_adapted(data_folder: Path, few: Dataset, tmp_path: Path):
    plan, store = adapted_plan(data_folder, adaptation="coral", corruption="fog"), Store(tmp_path)
    trunk, adapted = sorted(plan.trajectories.values(), key=lambda one: one.method == "adapt")
    store.save(trunk.id, 1, Checkpoint((), {}, {"status": DIVERGED, "reason": "it did"}))
    adapting.train([adapted], plan.layers(trunk), few, store, "cpu")
    assert store.facts(adapted.id, 0)["status"] == DIVERGED


def test_a_network_is_measured_under_what_it_is_adapted_to():
    asked = [
        {"notion": "classification", "perturbation": ["fog", "shear", "mnist_c"]},
        {"notion": "class_change", "perturbation": "shear", "only": {"corruption": "fog"}},
        {"notion": "class_change", "delta": 0.1},
    ]
    plan = planned(
        grid("fcn"),
        grid("fcn", "adapt", corruption=["fog", "shear", "mnist_c"], name="adapted"),
        measures=asked,
    )
    names = {
        network.axes.get("corruption", network.grid): [one.name for one in plan.measures_of(network)]
        for network in plan.networks
    }
    ball = "class_change_linf_0.1_fgsm"
    fog, shear, mean = (f"classification_{name}" for name in ("fog_mean-1", "shear_mean-1", "mnist_c_mean-15"))
    assert names == {
        "fcn-sgd": [fog, shear, mean, ball],
        "fog": [fog, "class_change_shear_mean-1", ball],
        "shear": [shear, ball],
        "mnist_c": [fog, shear, mean, ball],
    }
    assert plan.study.estimates() == sum(len(plan.measures_of(network)) for network in plan.networks)


@pytest.mark.parametrize(
    ("architecture", "changed", "message"),
    [
        ("fcn", {"adaptation": "batch_norm"}, "adaptation = batch_norm: architecture 'fcn' has no batch normalisation"),
        ("nin", {"adaptation": "coral"}, "adaptation = coral: architecture 'nin' has no dense layer before its logits"),
        ("fcn", {"corrupted_images": 4000}, "corrupted_images = 4000: corrupted images are more than mnist5k has"),
        ("fcn", {"corruption": "mnist_c", "corrupted_images": 267}, "never both; at most 266"),
        ("fcn", {"corruption": "fogg"}, "'fogg'"),
        ("fcn", {"corrupted_images": 0}, "corrupted_images"),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_a_line(
    architecture: str, changed: dict[str, object], message: str, tmp_path: Path
):
    content = {
        "study": "one",
        "guarantee": {"epsilon": 0.1, "confidence": 0.9},
        "measures": [{"notion": "class_change", "delta": 0.1}],
        "grids": [grid(architecture, "adapt", **changed)],
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as refused:
        load(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
