"""Iterative magnitude pruning: what stays is exact, what is removed stays removed, and rounds are shared."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import grid, planned_few
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deltaball.base.draws import generator
from deltaball.data.datasets import Dataset
from deltaball.networks.initial import initial_weights
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Checkpoint, Store
from deltaball.training import pruning, sgd
from deltaball.training.pruning import prunable, survivors

PROPORTIONS, ITERATIONS = [0.5, 0.75, 0.9, 0.99], [1, 2, 5]


def pruned_plan(folder: Path, **changed: object) -> Plan:
    axes = {"width": 16, "depth": 2, "learning_rate": 0.1, "epochs": 2, "batch_size": 32}
    whole = {**axes, "proportion": PROPORTIONS, "iterations": ITERATIONS, **changed}
    return planned_few(folder, grid("fcn", "imp", **whole))


def trained(plan: Plan, few: Dataset, store: Store) -> Plan:
    """Everything of a plan trained, trunks before what is pruned from them."""
    for shard in plan.shards.values():
        for pack in shard.packs:
            room = pruning if pack[0].method == "imp" else sgd
            room.train(pack, plan.layers(pack[0]), few, store, "cpu")
    return plan


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def plan(data_folder: Path, few: Dataset, store: Store) -> Plan:
    return trained(pruned_plan(data_folder), few, store)


def rounds(plan: Plan) -> list[Trajectory]:
    return [one for one in plan.trajectories.values() if one.method == "imp"]


def test_equal_rounds_are_trained_once(plan: Plan):
    # 4 proportions × (1 + 2 + 5) rounds; .5 is the first round of .75 in two, and .9 of .99.
    assert len(rounds(plan)) == 32 - 2
    assert len(plan.networks) == 12
    half = next(one for one in plan.networks if (one.axes["proportion"], one.axes["iterations"]) == (0.5, 1))
    three_quarters = next(one for one in plan.networks if (one.axes["proportion"], one.axes["iterations"]) == (0.75, 2))
    assert plan.trajectories[three_quarters.trajectory_id].parents == ((half.trajectory_id, half.checkpoint),)


@pytest.mark.parametrize("ranking", ["global", "layer"])
@given(data=st.data(), proportion=st.floats(0, 0.999), iterations=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_what_stays_is_exact_to_one_weight_in_every_round(
    data: st.DataObject, proportion: float, iterations: int, ranking: str
):
    shapes = data.draw(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=3))
    values = st.floats(-1, 1, width=32)
    alive = [np.ones(shape, bool) for shape in shapes]
    for turn in range(1, iterations + 1):
        kernels = [data.draw(arrays(np.float32, shape, elements=values)) for shape in shapes]
        share = (1 - proportion) ** (turn / iterations)
        after = survivors(kernels, alive, share, ranking)
        groups = (
            [(kernels, after)] if ranking == "global" else [([k], [a]) for k, a in zip(kernels, after, strict=True)]
        )
        for members, masks in groups:
            assert sum(mask.sum() for mask in masks) == round(share * sum(kernel.size for kernel in members))
        # Nothing comes back, and nothing that stays is smaller than what goes.
        for mask, before in zip(after, alive, strict=True):
            assert not (mask & ~before).any()
        if ranking == "global":
            stays = [abs(value) for k, a in zip(kernels, after, strict=True) for value in k[a]]
            goes = [abs(v) for k, a, b in zip(kernels, after, alive, strict=True) for v in k[b & ~a]]
            assert min(stays, default=1) >= max(goes, default=0)
        alive = after


def test_sparsity_is_what_the_weights_show(plan: Plan, store: Store):
    for network in plan.networks:
        weights = store.load(network.trajectory_id, network.checkpoint).weights
        hidden = [weights[place] for place in prunable(plan.layers(network))]
        zeros, total = sum((kernel == 0).sum() for kernel in hidden), sum(kernel.size for kernel in hidden)
        facts = store.facts(network.trajectory_id, network.checkpoint)
        assert abs(zeros - network.axes["proportion"] * total) <= 1
        assert facts["sparsity"] == zeros / total
        assert facts["sparsity_total"] == zeros / sum(array.size for array in weights)
        assert (weights[-2] != 0).all()  # the output layer is kept


def test_what_survives_was_rewound_and_trained_on_the_trunks_data(plan: Plan, few: Dataset, store: Store):
    one = next(one for one in rounds(plan) if one.axes["kept"] == (0.25,))
    ((trunk_id, step),), layers = one.parents, plan.layers(one)
    initial = initial_weights(layers, generator(trunk_id, "weights"))
    parent = store.load(trunk_id, step).weights
    places = prunable(layers)
    masks = survivors([parent[k] for k in places], [np.ones(parent[k].shape, bool) for k in places], 0.25, "global")
    # By hand: plain SGD from the rewound weights, pruned ones set back to zero after every step.
    weights = [array.astype(np.float64) for array in initial]
    images, labels = few.x_train.reshape(len(few.x_train), -1).astype(np.float64), few.y_train
    for place, mask in zip(places, masks, strict=True):
        weights[place] *= mask
    for epoch in range(2):
        order = generator(trunk_id, f"order of epoch {epoch}").permutation(len(labels))
        for start in range(0, len(labels), 32):
            chosen = order[start : start + 32]
            values, x = [], images[chosen]
            for layer in range(3):
                values.append(x)
                x = x @ weights[2 * layer] + weights[2 * layer + 1]
                x = np.maximum(x, 0) if layer < 2 else x
            back = np.exp(x - x.max(1, keepdims=True))
            back = (back / back.sum(1, keepdims=True) - np.eye(10)[labels[chosen]]) / len(chosen)
            for layer in (2, 1, 0):
                gradient, shift = values[layer].T @ back, back.sum(0)
                back = (back @ weights[2 * layer].T) * (values[layer] > 0)
                weights[2 * layer] -= 0.1 * gradient
                weights[2 * layer + 1] -= 0.1 * shift
            for place, mask in zip(places, masks, strict=True):
                weights[place] *= mask
    for found, expected in zip(store.load(one.id, 2).weights, weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_pruned_network_alone_equals_the_same_in_a_pack(plan: Plan, few: Dataset, store: Store, tmp_path: Path):
    alone = Store(tmp_path)
    chosen = plan.networks[7]
    lineage, one = [], plan.trajectories[chosen.trajectory_id]
    while one.parents:
        lineage.append(one)
        one = plan.trajectories[one.parents[0][0]]
    sgd.train([one], plan.layers(one), few, alone, "cpu")
    for one in reversed(lineage):
        pruning.train([one], plan.layers(one), few, alone, "cpu")
        together, apart = store.load(one.id, 2), alone.load(one.id, 2)
        for array, twin in zip(together.weights, apart.weights, strict=True):
            np.testing.assert_array_equal(array, twin)
        assert together.facts == apart.facts


def test_adams_moments_of_pruned_weights_stay_zero(data_folder: Path, few: Dataset, tmp_path: Path):
    store = Store(tmp_path)
    plan = trained(pruned_plan(data_folder, optimizer="adam", proportion=0.9, iterations=2), few, store)
    network = plan.networks[0]
    kept = store.load(network.trajectory_id, network.checkpoint)
    for place in prunable(plan.layers(network)):
        pruned = kept.weights[place] == 0
        assert pruned.any()
        for moment in (place, len(kept.weights) + place):
            assert (kept.state[f"moment.{moment}"][pruned] == 0).all()
            assert (kept.state[f"moment.{moment}"][~pruned] != 0).any()


def test_at_proportion_0_it_is_plain_sgd(data_folder: Path, few: Dataset, store: Store, plan: Plan):
    (network,) = pruned_plan(data_folder, proportion=0, iterations=1).networks
    assert (network.trajectory_id, network.checkpoint) == network.trunk == plan.networks[0].trunk
    # The same through pruning's own code, with nothing removed.
    one = next(one for one in rounds(plan) if len(one.axes["kept"]) == 1)
    whole = replace(one, id="whole", axes={**one.axes, "kept": (1.0,)})
    pruning.train([whole], plan.layers(whole), few, store, "cpu")
    dense, found = store.load(*one.parents[0]), store.load("whole", 2)
    for array, twin in zip(dense.weights, found.weights, strict=True):
        np.testing.assert_array_equal(array, twin)


def test_a_layer_pruned_to_nothing_is_reported(
    data_folder: Path, few: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plan, store = pruned_plan(data_folder, proportion=0.5, iterations=1), Store(tmp_path)
    (one,) = rounds(plan)
    layers = plan.layers(one)
    # A trunk whose second hidden kernel is smaller everywhere than half of the first.
    weights = initial_weights(layers, np.random.default_rng(0))
    weights[2] = np.full_like(weights[2], 1e-6)
    store.save(*one.parents[0], Checkpoint(tuple(weights), {}, {"status": "trained"}))
    assert pruning.train([one], layers, few, store, "cpu") == 1
    facts = store.facts(one.id, 2)
    assert (facts["status"], facts["empty_layers"]) == ("trained", 1)
    assert "1 of 2 prunable layers have no weight left" in capsys.readouterr().out
    assert (store.load(one.id, 2).weights[2] == 0).all()


def test_99_percent_at_once_of_one_hidden_layer_still_trains(data_folder: Path, few: Dataset, tmp_path: Path):
    store = Store(tmp_path)
    plan = trained(pruned_plan(data_folder, depth=1, width=128, proportion=0.99, iterations=1), few, store)
    facts = store.facts(plan.networks[0].trajectory_id, 2)
    assert facts["status"] == "trained"
    assert abs(facts["sparsity"] * 196 * 128 - 0.99 * 196 * 128) <= 1


def test_a_diverged_trunk_has_diverged_branches(data_folder: Path, few: Dataset, tmp_path: Path):
    store = Store(tmp_path)
    plan = trained(pruned_plan(data_folder, learning_rate=1e30, proportion=0.75, iterations=2), few, store)
    assert {store.facts(one.id, 2)["status"] for one in plan.trajectories.values()} == {"diverged"}


def test_a_proportion_added_trains_only_its_branches(data_folder: Path, few: Dataset, tmp_path: Path):
    store = Store(tmp_path)
    trained(pruned_plan(data_folder, proportion=[0.5, 0.9]), few, store)
    more = pruned_plan(data_folder, proportion=[0.5, 0.75, 0.9])
    lacking = [one for one in more.trajectories.values() if not store.steps(one.id)]
    # .75 in one round, the second of two (the first is .5's), five of five.
    assert sorted(len(one.axes["kept"]) for one in lacking) == [1, 1, 2, 2, 3, 4, 5]
