"""Networks, the trajectories that they lie on, and what those cost."""

from collections import Counter

import pytest
from builders import grid, planned, study

from deltaball.base.errors import InputError
from deltaball.plan.plan import plan
from deltaball.study.study import Study


def test_epochs_are_checkpoints_of_one_trajectory():
    found = planned(grid(epochs=[15, 5, 10]))
    (trajectory,) = found.trajectories.values()
    assert trajectory.checkpoints == (5, 10, 15)
    assert [network.checkpoint for network in found.networks] == [15, 5, 10]
    assert {network.trajectory_id for network in found.networks} == {trajectory.id}


def test_a_network_in_two_grids_is_refused():
    with pytest.raises(InputError, match=r"grids 'one' and 'two' both contain the network depth 2, width 64.*epochs 5"):
        planned(grid(name="one", depth=[1, 2]), grid(name="two", depth=[2, 3], epochs=[5, 20]))


def test_grids_may_share_a_trajectory():
    found = planned(grid(name="one", epochs=[5, 10]), grid(name="two", epochs=[15]))
    (trajectory,) = found.trajectories.values()
    assert trajectory.checkpoints == (5, 10, 15)
    assert trajectory.grid == "one"


def test_pruning_starts_from_the_dense_network_of_the_same_training():
    found = planned(
        grid("fcn", "sgd", epochs=[5, 20]), grid("fcn", "imp", proportion=0.75, iterations=2, epochs=[5, 10])
    )
    trunk = next(one for one in found.trajectories.values() if one.method == "sgd")
    assert trunk.checkpoints == (5, 10, 20)
    for epochs in (5, 10):
        network = next(one for one in found.networks if one.method == "imp" and one.checkpoint == epochs)
        last = found.trajectories[network.trajectory_id]
        first = found.trajectories[last.parents[0][0]]
        assert (first.axes["kept"], last.axes["kept"]) == ((0.5,), (0.5, 0.25))
        assert (first.parents, last.parents) == (((trunk.id, epochs),), ((first.id, epochs),))


def test_a_dense_trunk_can_be_trained_like_any_network():
    (plain,) = planned(grid("fcn", "sgd", epochs=5)).trajectories.values()
    trunk = next(one for one in planned(grid("fcn", "imp")).trajectories.values() if one.method == "sgd")
    assert (trunk.id, trunk.axes, trunk.checkpoints) == (plain.id, plain.axes, plain.checkpoints)


def test_pruning_half_once_is_the_first_round_of_three_quarters_in_two():
    once = planned(grid("fcn", "imp", proportion=0.5, iterations=1)).networks[0]
    twice = planned(grid("fcn", "imp", proportion=0.75, iterations=2))
    assert once.trajectory_id == twice.trajectories[twice.networks[0].trajectory_id].parents[0][0]
    assert once.id != twice.networks[0].id


def test_rounds_of_the_papers_schedules():
    # p = .5, .75, .9, .99 in 1, 2 or 5 rounds: 4 × (1 + 2 + 5) = 32 rounds, of which .5 in one is the first of .75
    # in two, and .9 in one the first of .99 in two.
    found = planned(grid("fcn", "imp", proportion=[0.5, 0.75, 0.9, 0.99], iterations=[1, 2, 5]))
    assert Counter(one.method for one in found.trajectories.values()) == {"sgd": 1, "imp": 30}
    assert len(found.networks) == 12
    assert len({network.trajectory_id for network in found.networks}) == 12


def test_a_trajectory_costs_what_its_longest_checkpoint_costs():
    (short,) = planned(grid(epochs=[5])).trajectories.values()
    (long,) = planned(grid(epochs=[5, 10])).trajectories.values()
    # Per image and epoch: forward 2 × (784·64 + 64·10) = 101,632 FLOP, backward twice that; 4,000 images.
    assert short.flop == 3 * 101_632 * 4000 * 5
    assert long.flop == 2 * short.flop
    assert short.parameters == 784 * 64 + 64 + 64 * 10 + 10


def test_a_chain_costs_its_leapfrog_steps():
    (chain,) = planned(grid("fcn", "hmc", leapfrog_steps=20, posterior_samples=[100, 600])).trajectories.values()
    assert chain.flop == 3 * 101_632 * 4000 * 600 * 20


def test_the_same_study_gives_the_same_plan():
    content = Study.model_validate(study(grid(seed=[0, 1]), grid("fcn", "imp")))
    assert plan(content) == plan(content)
    assert list(plan(content).shards) == list(plan(content).shards)
