"""Which measures a study asks for, of which networks, on how many points."""

from collections import Counter

import pytest
from builders import grid, planned, study
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_cases import ACTIVATIONS

from deltaball.base.errors import InputError
from deltaball.base.guarantees import samples_needed
from deltaball.plan.measures import measures
from deltaball.plan.plan import Plan
from deltaball.study.study import Study


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
    with pytest.raises(InputError, match=r"measures\[0\] and measures\[1\] both ask for class_change .* 0\.1"):
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
        with pytest.raises(InputError, match="both ask for"):
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


@given(first=st.integers(1, 14), networks=st.integers(1, 30))
@settings(max_examples=20)
def test_what_only_draws_is_what_a_sample_of_the_grid_holds(first: int, networks: int):
    axes = {"width": [8, 16], "activation": ACTIVATIONS, "learning_rate": [0.1, 0.01]}
    drawn = {"notion": "class_change", "delta": 0.1, "only": {"drawn": first}}
    rest = {"notion": "class_change", "delta": 0.2}
    whole = planned(grid(**axes), grid(name="b", width=32), measures=[drawn, rest])
    sampled = planned(grid(**axes, sample={"trajectories": min(first, 12)}))
    asked = {one.id for one in whole.networks if whole.measures[0].applies_to(one) and one.grid != "b"}
    assert asked == {one.id for one in sampled.networks}
    # A grid that has fewer is asked whole.
    assert {one.id for one in whole.networks if one.grid == "b"} <= {
        one.id for one in whole.networks if whole.measures[0].applies_to(one)
    }
    assert whole.study.estimates() == len(whole.networks) + len(asked) + 2
    # So are a sitting's networks: two epochs on each trajectory.
    reached = whole.drawn(whole.networks[0].grid, networks)
    assert len(reached) == min(12, -(-networks // 2))
    ranks = {one.rank for one in whole.networks if one.trajectory_id in reached and one.grid != "b"}
    assert ranks == set(range(len(reached)))


def test_two_entries_that_draw_the_same_networks_are_refused_as_twins():
    twice = [{"notion": "class_change", "delta": 0.1, "only": {"drawn": n}} for n in (3, 1)]
    with pytest.raises(InputError, match="both ask for class_change"):
        measures(Study.model_validate(study(measures=twice)))
