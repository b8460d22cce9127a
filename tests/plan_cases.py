"""Grids drawn at random, and what must hold of every plan."""

from collections import Counter
from typing import Any

from builders import grid, planned
from hypothesis import strategies as st

from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan


def trajectory_ids(*grids: dict, **changed: Any) -> set[str]:
    return set(planned(*grids, **changed).trajectories)


ACTIVATIONS = ["relu", "tanh", "sigmoid"]


@st.composite
def grids(draw: st.DrawFn, method: str | None = None) -> dict:
    """A grid of a few values per axis."""

    def some(values: list) -> list:
        return draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))

    architecture, method = draw(
        st.sampled_from([pair for pair in PAIRS if method in (None, pair[1])]), label="architecture and method"
    )
    if architecture == "fcn":
        axes = {"depth": some([1, 2, 3]), "width": some([1, 2, 3, 64])}
    else:
        axes = {"fc_depth": some([1, 2]), "fc_width": some([1, 16]), "filters": some([1, 4])}
        axes |= {"kernel": some([1, 3]), "conv_depth": some([1, 2])}
    axes |= {"activation": some(ACTIVATIONS), "seed": some([0, 1, 2])}
    if method == "hmc":
        axes |= {
            "step_size": some([0.1, 0.01]),
            "leapfrog_steps": some([1, 10]),
            "posterior_samples": some([1, 10, 100]),
        }
    else:
        axes |= {"learning_rate": some([0.1, 0.01, 1.0]), "epochs": some([1, 2, 3, 10]), "batch_size": some([1, 128])}
    if method == "sgd":
        axes["optimizer"] = some(["sgd", "adam"])
    if method == "imp":
        axes |= {"proportion": some([0.5, 0.75, 0.9]), "iterations": some([1, 2, 5])}
    return grid(architecture, method, **axes)


PAIRS = [("fcn", "sgd"), ("cnn", "sgd"), ("vgg", "sgd"), ("fcn", "imp"), ("fcn", "hmc")]


def shared_out(found: Plan) -> list[Trajectory]:
    return [trajectory for shard in found.shards.values() for pack in shard.packs for trajectory in pack]


def assert_every_trajectory_has_its_place(found: Plan) -> None:
    placed = Counter(trajectory.id for trajectory in shared_out(found))
    assert set(placed) == set(found.trajectories)
    assert set(placed.values()) == {1}
    for shard in found.shards.values():
        assert {(one.grid, one.dataset) for one in shard.trajectories} == {(shard.grid, shard.dataset)}
        for pack in shard.packs:
            assert len({found.layers(one) for one in pack}) == 1
            assert len({(one.dataset, one.method) for one in pack}) == 1
            for name in ("batch_size", "optimizer", "leapfrog_steps"):
                assert len({one.axes.get(name) for one in pack}) == 1


def assert_every_network_stands_on_a_checkpoint(found: Plan) -> None:
    for network in found.networks:
        trajectory = found.trajectories[network.trajectory_id]
        assert network.checkpoint in trajectory.checkpoints
        assert found.layers(network) == found.layers(trajectory)
    for trajectory in found.trajectories.values():
        for parent, checkpoint in trajectory.parents:
            assert checkpoint in found.trajectories[parent].checkpoints
