from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from builders import grid, network_ids, planned, planned_few, study
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.base.errors import InputError
from deltaball.base.guarantees import samples_needed
from deltaball.plan.measures import measures
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan, plan
from deltaball.study.study import Study


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


def test_epochs_are_checkpoints_of_one_trajectory():
    found = planned(grid(epochs=[15, 5, 10]))
    (trajectory,) = found.trajectories.values()
    assert trajectory.checkpoints == (5, 10, 15)
    assert [network.checkpoint for network in found.networks] == [15, 5, 10]
    assert {network.trajectory_id for network in found.networks} == {trajectory.id}


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


GOLDEN = {
    "fcn-sgd": ("a55d769dd2add564", "682b0d902a2c2048"),
    "cnn-sgd": ("172f192c0bd7c4c6", "b6e2c3010bf0d69a"),
    "fcn-imp": ("4915701b2eec8880", "cd4bc9b5afa263b9"),
    "fcn-hmc": ("c928ec9e085ac695", "929ec6f033ea13e3"),
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
        first = found.trajectories[last.parent[0]]
        assert (first.axes["kept"], last.axes["kept"]) == ((0.5,), (0.5, 0.25))
        assert (first.parent, last.parent) == ((trunk.id, epochs), (first.id, epochs))


def test_a_dense_trunk_can_be_trained_like_any_network():
    (plain,) = planned(grid("fcn", "sgd", epochs=5)).trajectories.values()
    trunk = next(one for one in planned(grid("fcn", "imp")).trajectories.values() if one.method == "sgd")
    assert (trunk.id, trunk.axes, trunk.checkpoints) == (plain.id, plain.axes, plain.checkpoints)


def test_pruning_half_once_is_the_first_round_of_three_quarters_in_two():
    once = planned(grid("fcn", "imp", proportion=0.5, iterations=1)).networks[0]
    twice = planned(grid("fcn", "imp", proportion=0.75, iterations=2))
    assert once.trajectory_id == twice.trajectories[twice.networks[0].trajectory_id].parent[0]
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
        if trajectory.parent:
            assert trajectory.parent[1] in found.trajectories[trajectory.parent[0]].checkpoints


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


def test_one_measure_per_notion_gamma_and_delta():
    asked = [
        {"notion": "class_change", "delta": [0.1, 0.2], "only": {"dataset": "mnist5k"}},
        {"notion": "variation_above", "gamma": [0.2, 0.5], "delta": 0.1},
    ]
    plan = planned(grid(), grid(name="b", dataset="mnist"), measures=asked)
    found, (first, *_, last) = plan.measures, plan.networks
    assert [one.name for one in found] == [
        "class_change_linf_0.1_fgsm",
        "class_change_linf_0.2_fgsm",
        "variation_above_0.2_linf_0.1_fgsm",
        "variation_above_0.5_linf_0.1_fgsm",
    ]
    assert (first.dataset, last.dataset) == ("mnist5k", "mnist")
    assert plan.measures_of(last) == found[2:]
    assert plan.measures_of(first) == found


def test_a_number_asked_for_twice_is_refused():
    twice = [{"notion": "class_change", "delta": 0.1}, {"notion": "class_change", "delta": [0.2, 0.1]}]
    with pytest.raises(InputError, match=r"measures: class_change_linf_0\.1_fgsm is asked for twice"):
        measures(Study.model_validate(study(measures=twice)))


def test_different_data_sets_may_ask_for_the_same_number():
    asked = [{"notion": "class_change", "delta": 0.1, "only": {"dataset": name}} for name in ("mnist5k", "mnist")]
    found = measures(Study.model_validate(study(grid(), grid(name="b", dataset="mnist"), measures=asked)))
    assert [one.wanted for one in found] == [{"dataset": ["mnist5k"]}, {"dataset": ["mnist"]}]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True))
@settings(max_examples=200)
def test_measures_of_different_delta_have_different_names(deltas: list[float]):
    # Outcomes are kept by this name: two δ of one name would pass for each other.
    one, other = planned(measures=[{"notion": "class_change", "delta": deltas}]).measures
    assert one.name != other.name


def test_measures_of_nearly_equal_radii_have_different_names():
    asked = [
        {"notion": "variation_above", "gamma": [0.5, 0.5000001], "delta": [8 / 255, 0.0313725]},
        {"notion": "class_change", "delta": [8 / 255, 0.0313725]},
    ]
    names = [one.name for one in planned(measures=asked).measures]
    assert len(set(names)) == 6


def test_simultaneous_guarantees_need_more_points():
    guarantee = {"epsilon": 0.05, "confidence": 0.95}
    (alone,) = planned(grid(epochs=[5, 10]), guarantee=guarantee).measures
    (together,) = planned(grid(epochs=[5, 10]), guarantee={**guarantee, "simultaneous": True}).measures
    assert alone.samples == 738
    assert together.confidence == pytest.approx(0.975)
    assert together.samples == samples_needed(0.05, together.confidence) == 877


def test_a_measure_may_have_a_guarantee_of_its_own():
    asked = [
        {"notion": "class_change", "delta": 0.1},
        {"notion": "class_change", "delta": 0.1, "certificate": "crown", "guarantee": {"epsilon": 0.1}},
        {"notion": "margin", "delta": 0.3, "guarantee": {"confidence": 0.99}},
    ]
    one, two, three = planned(measures=asked).measures
    assert [(each.samples, each.confidence) for each in (one, two, three)] == [(738, 0.95), (185, 0.95), (1060, 0.99)]
    # The range of a distance cut at δ is [0, δ], and so its error is a share of δ (Equation 5).
    assert [each.epsilon for each in (one, two, three)] == [0.05, 0.1, pytest.approx(0.05 * 0.3)]
    assert three.samples == samples_needed(0.05 * 0.3, 0.99, 0, 0.3)


def test_settings_are_part_of_a_name_where_they_are_not_the_defaults():
    asked = [
        {"notion": "class_change", "delta": 0.1, "attack": ["fgsm", "pgd", "fmn"], "certificate": ["crown", "exact"]},
        {"notion": "class_change", "delta": 0.1, "attack": "pgd", "steps": 10, "restarts": 1},
        {"notion": "class_change", "delta": 0.2, "attack": "pgd", "steps": 40, "restarts": 2},
        {"notion": "class_change", "delta": 0.1, "certificate": "exact", "seconds": 2.5},
    ]
    found = planned(measures=asked).measures
    ends = [one.name.removeprefix("class_change_linf_") for one in found]
    assert ends == [
        "0.1_fgsm",
        "0.1_pgd",
        "0.1_fmn",
        "0.1_crown",
        "0.1_exact",
        "0.1_pgd-10x1",
        "0.2_pgd",
        "0.1_exact-2.5",
    ]
    assert [one.attack for one in found][2:6] == ["fmn", None, None, "pgd-10x1"]
    assert [one.certificate for one in found][2:6] == [None, "crown", "exact", None]


def test_only_chooses_the_networks_of_a_measure_and_estimates_count_them():
    asked = [
        {"notion": "class_change", "delta": [0.1, 0.2], "norm": ["linf", "l2"], "attack": ["fgsm", "pgd"]},
        {"notion": "class_change", "delta": 0.1, "certificate": "crown", "only": {"width": 64, "epochs": [10, 15]}},
        {"notion": "variation_above", "gamma": [0.1, 0.5], "delta": 0.1, "only": {"grid": "b"}},
        {"notion": "class_change", "delta": 0.3, "only": {"kernel": 3}},
    ]
    plan = planned(grid(width=[64, 128]), grid(name="b", seed=[1, 2]), grid("cnn"), measures=asked)
    counts = [len(plan.measures_of(network)) for network in plan.networks]
    assert counts == [8, 9, 8, 8, 10, 10, 11, 11, 9, 9]
    assert plan.study.estimates() == sum(counts)


def test_a_measure_asked_of_different_networks_is_no_twin():
    def asked(*only: dict) -> list[dict]:
        return [{"notion": "class_change", "delta": 0.1, "only": one} for one in only]

    grids = grid(width=[64, 128]), grid("cnn")
    assert len(planned(*grids, measures=asked({"width": 64}, {"width": 128}, {"architecture": "cnn"})).measures) == 3
    for twins in (({"width": 64}, {"depth": 1}), ({"grid": "cnn-sgd"}, {"filters": 4}), ({}, {"epochs": 5})):
        with pytest.raises(InputError, match="asked for twice"):
            _ = planned(*grids, measures=asked(*twins)).measures


def test_a_convergence_experiment_asks_for_all_test_points_of_its_networks():
    experiment = {
        "measure": {"notion": "class_change", "delta": [0.05, 0.1], "attack": "pgd", "only": {"epochs": 10}},
        "epsilon": [0.05, 0.2, 0.1],
        "draws": 7,
    }
    plan = planned(
        grid(), convergence=[experiment], measures=[{"notion": "class_change", "delta": 0.1, "attack": "pgd"}]
    )
    (found,) = plan.experiments
    assert (found.networks, found.epsilons, found.draws) == ((plan.networks[1],), (0.2, 0.1, 0.05), 7)
    asked = [{one.name: samples for one, samples in plan.asked_of(network).items()} for network in plan.networks]
    assert asked == [
        {"class_change_linf_0.1_pgd": 738},
        {"class_change_linf_0.1_pgd": 1000, "class_change_linf_0.05_pgd": 1000},
    ]


@given(seed=st.integers(0, 5), fewer=st.integers(1, 11), more=st.integers(1, 12))
@settings(max_examples=20)
def test_a_sample_is_whole_trajectories_of_its_grid_and_a_larger_one_holds_it(seed: int, fewer: int, more: int):
    axes = {"width": [8, 16], "activation": ACTIVATIONS, "learning_rate": [0.1, 0.01]}

    def drawn(trajectories: int) -> Plan:
        return planned(grid(**axes, sample={"trajectories": trajectories, "seed": seed}))

    whole, part = planned(grid(**axes)), drawn(fewer)
    assert len(part.trajectories) == fewer
    assert len(part.networks) == 2 * fewer  # 5 and 10 epochs
    order = [one.id for one in whole.networks]
    places = [order.index(one.id) for one in part.networks]
    assert places == sorted(places)
    assert part.study.estimates() == len(part.networks)
    both = set(part.trajectories), set(drawn(more).trajectories)
    assert min(both, key=len) <= max(both, key=len)


def test_another_seed_draws_others_and_each_as_often():
    axes = {"width": [8, 16], "activation": ACTIVATIONS}
    samples = [planned(grid(**axes, sample={"trajectories": 2, "seed": seed})) for seed in range(60)]
    counts = Counter(identity for one in samples for identity in one.trajectories)
    # Binomial(60, 1/3): outside with probability below 1 % for all six together.
    assert len(counts) == 6
    assert all(8 <= count <= 33 for count in counts.values())


def test_measures_of_a_sample_are_counted_as_they_are_planned():
    one = {"notion": "class_change", "delta": 0.1, "only": {"width": 8}}
    for seed in range(5):
        sample = {"trajectories": 4, "seed": seed}
        plan = planned(grid(width=[8, 16], activation=ACTIVATIONS, sample=sample), measures=[one])
        asked = sum(len(plan.measures_of(network)) for network in plan.networks)
        assert plan.study.estimates() == asked > 0


def test_the_same_study_gives_the_same_plan():
    content = Study.model_validate(study(grid(seed=[0, 1]), grid("fcn", "imp")))
    assert plan(content) == plan(content)
    assert list(plan(content).shards) == list(plan(content).shards)
