"""Ids: of different networks different, and the same whatever does not make a network."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from builders import grid, network_ids, planned, planned_few
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_cases import grids, trajectory_ids


@given(grids())
@settings(max_examples=60)
def test_distinct_networks_have_distinct_ids(drawn: dict):
    found = planned(drawn)
    count = np.prod([len(values) for values in drawn.values() if isinstance(values, list)])
    assert len(found.networks) == count
    assert len({network.id for network in found.networks}) == count
    stands = {(network.trajectory_id, network.checkpoint) for network in found.networks}
    # Only pruning lets two networks be one: they are equal rounds of different schedules.
    assert len(stands) == count or drawn["method"] == "imp"
    assert not {network.id for network in found.networks} & set(found.trajectories)


@given(grids(), st.data())
@settings(max_examples=60)
def test_a_value_added_to_an_axis_changes_no_id(drawn: dict, data: st.DataObject):
    axes = sorted(name for name, values in drawn.items() if isinstance(values, list) and len(values) > 1)
    if not axes:
        return
    name = data.draw(st.sampled_from(axes))
    fewer = {**drawn, name: drawn[name][:-1]}
    assert set(network_ids(fewer)) < set(network_ids(drawn))
    assert trajectory_ids(fewer) <= trajectory_ids(drawn)


@given(grids(), st.integers(0, 2**32))
@settings(max_examples=40)
def test_the_order_of_keys_and_values_changes_no_id(drawn: dict, seed: int):
    random = Random(seed)
    keys = random.sample(sorted(drawn), len(drawn))
    shuffled = {
        key: random.sample(drawn[key], len(drawn[key])) if isinstance(drawn[key], list) else drawn[key] for key in keys
    }
    assert set(network_ids(shuffled)) == set(network_ids(drawn))
    assert trajectory_ids(shuffled) == trajectory_ids(drawn)


def test_the_order_and_the_names_of_grids_change_no_id():
    one, other = grid("fcn", seed=[0, 1]), grid("cnn")
    assert set(network_ids(one, other)) == set(network_ids({**other, "name": "a"}, {**one, "name": "b"}))


@pytest.mark.parametrize(
    ("architecture", "method", "name", "default"),
    [
        ("fcn", "sgd", "seed", 0),
        ("cnn", "sgd", "batch_size", 128),
        ("vgg", "sgd", "optimizer", "sgd"),
        ("fcn", "imp", "seed", 0),
        ("fcn", "imp", "batch_size", 128),
        ("fcn", "hmc", "seed", 0),
        ("cnn", "sgd", "objective", "cross_entropy"),
        ("fcn", "imp", "objective", "cross_entropy"),
        ("fcn", "hmc", "objective", "cross_entropy"),
    ],
)
def test_a_default_written_out_changes_no_id(architecture: str, method: str, name: str, default: Any):
    silent, spoken = grid(architecture, method), grid(architecture, method, **{name: default})
    assert network_ids(silent) == network_ids(spoken)
    assert trajectory_ids(silent) == trajectory_ids(spoken)


@pytest.mark.parametrize(
    "changed",
    [
        {"depth": 2},
        {"width": 65},
        {"activation": "tanh"},
        {"learning_rate": 0.02},
        {"optimizer": "adam"},
        {"batch_size": 64},
        {"seed": 1},
        {"dataset": "mnist"},
    ],
)
def test_every_axis_is_part_of_the_id(changed: dict):
    assert not set(network_ids(grid())) & set(network_ids(grid(**changed)))
    assert not trajectory_ids(grid()) & trajectory_ids(grid(**changed))


def test_cnn_and_vgg_of_equal_axes_are_different_networks():
    assert not set(network_ids(grid("cnn"))) & set(network_ids(grid("vgg")))


def test_neither_device_nor_measures_nor_guarantee_change_an_id():
    changed = {
        "compute": {"device": "cuda", "shard_minutes": 1},
        "measures": [{"notion": "softmax_variation", "delta": 0.2}],
        "guarantee": {"epsilon": 0.1, "confidence": 0.9},
        "study": "another",
    }
    assert network_ids(grid(), **changed) == network_ids(grid())


def test_ids_are_these():
    """Golden: stored weights are found by these ids. Change one knowingly (an architecture's VERSION) or not at all."""
    one = {"depth": 1, "width": 64, "activation": "relu", "learning_rate": 0.01, "epochs": 5}
    (network,) = planned(grid("fcn", "sgd", **one)).networks
    assert (network.id, network.trajectory_id) == GOLDEN["fcn-sgd"]
    (network,) = planned(grid("cnn", "sgd", epochs=5, optimizer="adam", seed=3, batch_size=32)).networks
    assert (network.id, network.trajectory_id) == GOLDEN["cnn-sgd"]
    (network,) = planned(grid("fcn", "imp", proportion=0.9, iterations=2)).networks
    assert (network.id, network.trajectory_id) == GOLDEN["fcn-imp"]
    (network,) = planned(grid("fcn", "hmc", posterior_samples=100)).networks
    assert (network.id, network.trajectory_id) == GOLDEN["fcn-hmc"]
    (network,) = planned(grid("fcn", "finetune")).networks
    assert (network.id, network.trajectory_id) == GOLDEN["fcn-finetune"]


GOLDEN = {
    "fcn-sgd": ("a55d769dd2add564", "682b0d902a2c2048"),
    "cnn-sgd": ("172f192c0bd7c4c6", "b6e2c3010bf0d69a"),
    "fcn-imp": ("4915701b2eec8880", "cd4bc9b5afa263b9"),
    "fcn-hmc": ("c928ec9e085ac695", "929ec6f033ea13e3"),
    "fcn-finetune": ("9d0c5221b9fbae24", "2578f26df046f099"),
}


def test_ids_change_with_the_content_of_the_data(tmp_path: Path, few_arrays: dict[str, np.ndarray]):
    def ids(**changed: np.ndarray) -> tuple[set[str], set[str]]:
        np.savez(tmp_path / "few.npz", **{**few_arrays, **changed})
        found = planned_few(tmp_path, grid(seed=[0, 1]))
        return {network.id for network in found.networks}, set(found.trajectories)

    before = ids()
    assert ids() == before
    pixel = few_arrays["x_test"].copy()
    pixel[-1, -1, -1] ^= 1
    label = few_arrays["y_train"].copy()
    label[0] = (label[0] + 1) % 10
    for after in (ids(x_test=pixel), ids(y_train=label)):
        assert not before[0] & after[0]
        assert not before[1] & after[1]


def test_another_data_set_under_a_catalogued_name_has_its_own_ids(tmp_path: Path, few_arrays: dict[str, np.ndarray]):
    np.savez(tmp_path / "mnist5k.npz", **few_arrays)
    changed = {"guarantee": {"epsilon": 0.25, "confidence": 0.95}}
    assert not set(network_ids(grid(), data=str(tmp_path), **changed)) & set(network_ids(grid(), **changed))
