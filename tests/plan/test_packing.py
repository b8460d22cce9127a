"""Every trajectory has its place in one pack of one shard."""

import pytest
from builders import grid, planned
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_cases import (
    ACTIVATIONS,
    assert_every_network_stands_on_a_checkpoint,
    assert_every_trajectory_has_its_place,
    grids,
    shared_out,
)

from deltaball.base.errors import InputError


@given(grids("sgd"), grids(), st.floats(0.001, 1), st.sampled_from(["cpu", "cuda"]))
@settings(max_examples=40)
def test_every_trajectory_is_in_one_pack_of_one_shard(one: dict, other: dict, minutes: float, device: str):
    one, other = {**one, "name": "one", "dataset": "mnist"}, {**other, "name": "other"}
    found = planned(one, other, compute={"device": device, "shard_minutes": minutes})
    assert_every_trajectory_has_its_place(found)
    assert_every_network_stands_on_a_checkpoint(found)


def test_learning_rate_and_seed_share_a_pack_but_nothing_else_does():
    axes = {"learning_rate": [0.1, 0.01], "seed": [0, 1], "optimizer": ["sgd", "adam"], "batch_size": [32, 64]}
    packs = [pack for shard in planned(grid(**axes)).shards.values() for pack in shard.packs]
    assert sorted(len(pack) for pack in packs) == [4, 4, 4, 4]


def test_shards_are_cut_to_the_minutes_asked():
    axes = {"width": [16, 32, 64], "depth": [1, 2, 3], "activation": ACTIVATIONS, "epochs": 200}
    whole = planned(grid(**axes), compute={"shard_minutes": 1e6})
    assert len(whole.shards) == 1
    minutes = next(iter(whole.shards.values())).minutes
    cut = planned(grid(**axes), compute={"shard_minutes": minutes / 4})
    assert len(cut.shards) >= 4
    assert sum(shard.minutes for shard in cut.shards.values()) == pytest.approx(minutes)
    for shard in cut.shards.values():
        assert shard.minutes <= minutes / 4 or len(shard.packs) == 1


def test_a_pack_longer_than_the_minutes_is_a_shard_of_its_own():
    axes = {"width": [16, 32], "activation": ACTIVATIONS, "seed": [0, 1]}
    found = planned(grid(**axes), compute={"shard_minutes": 1e-9})
    assert [[len(pack) for pack in shard.packs] for shard in found.shards.values()] == [[2]] * 6
    assert_every_trajectory_has_its_place(found)


def test_a_shard_is_found_by_its_id_and_an_unknown_one_refused():
    found = planned(grid(seed=[0, 1]))
    (identity,) = found.shards
    assert found.shard(identity).trajectories == shared_out(found)
    with pytest.raises(InputError, match="plans no shard 'fcn-0123456789'"):
        found.shard("fcn-0123456789")


def test_a_shards_id_is_its_trajectories_and_checkpoints():
    before = planned(grid()).shards
    assert planned(grid()).shards == before
    assert not planned(grid(epochs=[5, 10, 15])).shards.keys() & before.keys()


def test_networks_of_a_shard_keep_the_plans_order():
    found = planned(grid(seed=[3, 1, 2]), compute={"shard_minutes": 1e-6})
    assert found.networks_of(found.trajectories.values()) == found.networks
    chosen = [found.trajectories[found.networks[2].trajectory_id]]
    assert found.networks_of(chosen) == [one for one in found.networks if one.trajectory_id == chosen[0].id]
