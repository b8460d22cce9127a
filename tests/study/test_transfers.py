"""Transfers of a study: the paper's sizes, what is for what, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import grid, planned, study

from deltaball.base.errors import InputError
from deltaball.data import catalogue
from deltaball.study.corruptions import FIFTEEN
from deltaball.study.reading import load
from deltaball.study.transfers import Split, Transfer

MNIST = (28, 28, 1)
ONE = {"name": "one", "dataset": "mnist5k", "corruptions": ["stripe", "fog"], "corrupted_images": 100}
ACCURACY = [{"notion": "classification", "perturbation": ["stripe", "fog"]}]


def transfer(**changed: Any) -> Transfer:
    return Transfer.model_validate({"name": "one", "dataset": "mnist", **changed})


def test_the_networks_are_those_of_the_paper():
    (pair,) = transfer().pairs()
    encoder, decoder = pair.encoder(MNIST), pair.decoder(MNIST)
    assert (4, 4, 128) in [shape for _, shape in encoder.walk()]
    convolutions = 10 * 32 + 289 * 64 + 577 * 128
    assert encoder.parameters == convolutions + 2049 * 128
    dense = 129 * 2048 + 2049 * 7 * 7 * 64
    assert decoder.parameters == dense + 577 * 64 - 64 * 1 + 64 * 1 + 32 * (9 * 64 + 1) + 9 * 32 + 1
    assert decoder.output == MNIST
    assert pair.layers(MNIST).parameters == encoder.parameters + decoder.parameters
    for shape in ((14, 14, 1), (32, 32, 3), (9, 11, 2)):
        assert pair.layers(shape).output == shape


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"corrupted_images": 0}, (60_000, 0)),
        ({"corrupted_images": 128}, (58_080, 1920)),
        ({"corrupted_images": 1024}, (44_640, 15_360)),  # the paper's 60,000 - 15 · 1024
        ({"corrupted_images": 30_000}, (30_000, 30_000)),  # where the paper's number is negative
        ({"corrupted_images": 30_000, "separate": True}, (30_000, 30_000)),
        ({"corrupted_images": 1024, "separate": True}, (58_976, 1024)),
        ({"corrupted_images": 1024, "separate": True, "clean_images": 44_640}, (44_640, 1024)),
        ({"corrupted_images": 100, "clean_images": 59_000}, (59_000, 1000)),
    ],
)
def test_how_many_images_are_for_what(changed: dict[str, Any], expected: tuple[int, int]):
    entry = transfer(**changed)
    entry.check(catalogue.facts("mnist", Path("no-such-folder")))
    assert {pair.split(60_000) for pair in entry.pairs()} == {Split(*expected)}
    assert len(entry.pairs()) == (15 if entry.separate else 1)


def test_without_corrupted_images_separate_and_joint_are_one():
    one, other = (transfer(corrupted_images=0, separate=separate) for separate in (False, True))
    facts = catalogue.facts("mnist", Path("no-such-folder"))
    assert [pair.content(facts) for pair in one.pairs()] == [pair.content(facts) for pair in other.pairs()]
    assert one.pairs()[0].corruptions == ()
    assert transfer().pairs()[0].corruptions == FIFTEEN


def test_a_pair_of_one_corruption_is_the_same_whatever_stands_beside_it():
    facts = catalogue.facts("mnist", Path("no-such-folder"))
    alone = transfer(corruptions=["fog"]).pairs()[0].content(facts)
    beside = transfer(name="other", corruptions=["stripe", "fog"], separate=True).pairs()
    assert alone == beside[1].content(facts) != beside[0].content(facts)


def test_networks_without_a_transfer_stay_what_they_are():
    before = planned(grid(), measures=ACCURACY)
    after = planned(grid(transfer=["none", "one"]), measures=ACCURACY, transfers=[ONE])
    renamed = planned(grid(transfer=["other"]), measures=ACCURACY, transfers=[{**ONE, "name": "other"}])
    longer = planned(grid(transfer=["one"]), measures=ACCURACY, transfers=[{**ONE, "epochs": 7}])
    ids = {one.id for one in before.networks}
    assert {one.id for one in after.networks if one.axes["transfer"] == "none"} == ids
    behind = {one.id for one in after.networks if one.axes["transfer"] == "one"}
    assert len(behind) == len(ids)
    assert {one.id for one in renamed.networks} == behind
    assert {one.id for one in longer.networks}.isdisjoint(behind | ids)
    # Both checkpoints of the classifier's trajectory, one pair, and what is made of them.
    methods = [one.method for one in after.trajectories.values()]
    assert sorted(methods) == ["pair", "sgd", "transfer", "transfer"]
    assert set(before.trajectories) < set(after.trajectories)


def test_a_transfer_is_trained_anew_with_every_seed_unless_it_has_its_own():
    each, shared = (
        planned(grid(transfer="one", epochs=1, seed=[0, 1]), measures=ACCURACY, transfers=[{**ONE, **own}])
        for own in ({}, {"seed": 0})
    )
    assert [one.axes["pairs"][0].name for one in each.pairs] == ["one-seed0", "one-seed1"]
    assert [one.axes["pairs"][0].name for one in shared.pairs] == ["one"]
    assert each.networks[0].id == shared.networks[0].id
    assert each.networks[1].id != shared.networks[1].id


@pytest.mark.parametrize(
    ("changed", "corruption"),
    [
        ({}, "several"),
        ({"separate": True}, "each"),
        ({"corruptions": "fog"}, "fog"),
        ({"corruptions": [*FIFTEEN]}, "mnist_c"),
        ({"corrupted_images": 0}, "mnist_c"),
    ],
)
def test_tables_name_it_among_other_adaptations(changed: dict[str, Any], corruption: str):
    plan = planned(grid(transfer="one"), measures=ACCURACY, transfers=[{**ONE, **changed}])
    told = {"adaptation": "transfer", "corruption": corruption}
    told["corrupted_images"] = changed.get("corrupted_images", 100)
    assert all(told.items() <= one.axes.items() for one in plan.networks)
    measured = [one.kernel.name for one in plan.measures_of(plan.networks[0])]
    assert measured == (["fog"] if corruption == "fog" else ["stripe", "fog"])


def test_what_something_starts_from_stands_before_it():
    entries = [ONE, {**ONE, "name": "each", "separate": True}]
    plan = planned(
        grid(transfer=["one", "each"]), grid("rbf_svm", "svm", transfer="each"), measures=ACCURACY, transfers=entries
    )
    seen: set[str] = set()
    for shard in plan.shards.values():
        for one in shard.trajectories:
            assert {parent for parent, _ in one.parents} <= seen | {two.id for two in shard.trajectories}
        seen |= {one.id for one in shard.trajectories}
    ranks = [one.shape[0] for shard in plan.shards.values() if shard.grid == "fcn-sgd" for one in shard.trajectories]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"transfers": [{**ONE, "corruptions": ["strip"]}]},
            r"transfers\[0\].corruptions.*'strip' is not known; .*stripe",
        ),
        (
            {"transfers": [{**ONE, "corrupted_images": 3000}]},
            r"corrupted_images = 3000: .* half of them .*; at most 2000$",
        ),
        (
            {"transfers": [{**ONE, "corrupted_images": 200, "clean_images": 3900}]},
            r"corrupted_images = 200: mnist5k has 4000 training images, and 3900 of them are to be clean; at most 100$",
        ),
        ({"transfers": [{**ONE, "clean_images": 5000}]}, r"clean_images = 5000: mnist5k has 4000 training images$"),
        ({"transfers": [{**ONE, "name": "none"}]}, r"'none' stands for no transfer; choose another name"),
        ({"transfers": [{**ONE, "epoch": 1}]}, r"unknown key 'epoch' .*epochs"),
        ({"transfers": [{**ONE, "name": "on"}]}, r"grids\[0\].transfer: there is no 'one'; .*on"),
        ({"transfers": []}, r"grids\[0\].transfer: there is no 'one'; the study has none; list it under transfers"),
        (
            {"transfers": [{**ONE, "dataset": "mnist"}]},
            r"grids\[0\].transfer: 'one' is of mnist, and the grid of mnist5k",
        ),
        (
            {"grids": [grid(method="adapt", transfer="one")]},
            r"\(fcn-adapt\).transfer: networks of method adapt are adapted otherwise already; possible: none$",
        ),
        (
            {"grids": [grid(method="hmc", transfer="one")]},
            r"grids\[0\] \(fcn-hmc\).transfer: networks of method hmc are means over a posterior",
        ),
        (
            {"measures": [{"notion": "class_change", "delta": 0.1, "certificate": "ibp"}]},
            r"certificate: 'ibp' cannot judge .* no bounds are known of a transfer's decoder; .*transfer: none",
        ),
        (
            {"transfers": [{**ONE, "separate": True}], "measures": [{"notion": "class_change", "delta": 0.1}]},
            r"measures\[0\]: transfer 'one' is another one for each corruption; leave out transfer 'one' .* by `only`$",
        ),
        (
            {
                "transfers": [{**ONE, "separate": True}],
                "measures": [{"notion": "classification", "perturbation": "mnist_c"}],
            },
            r"measures\[0\].perturbation: transfer 'one' has none for shot_noise; leave out",
        ),
        (
            {
                "transfers": [{**ONE, "separate": True}],
                "measures": [{"notion": "class_change", "perturbation": "gaussian", "sigma": 0.1}],
            },
            r"measures\[0\].perturbation: transfer 'one' has none for gaussian; leave out",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(changed: dict[str, Any], line: str, tmp_path: Path):
    whole = {"transfers": [ONE], "measures": ACCURACY, "grids": [grid(transfer=["none", "one"])], **changed}
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(study(**whole)))
    with pytest.raises(InputError, match=line) as refused:
        load(path)
    assert "\n" not in str(refused.value)


def test_of_an_unused_transfer_the_data_set_is_checked(tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(study(grid(), transfers=[{**ONE, "dataset": "mnist"}])))
    with pytest.raises(InputError, match=r"transfers\[0\] \(one\).dataset: no grid uses 'mnist'"):
        load(path)


def test_a_certificate_may_leave_transfers_out(tmp_path: Path):
    measures = [{"notion": "class_change", "delta": 0.1, "certificate": "ibp", "only": {"transfer": "none"}}]
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(study(grid(transfer=["none", "one"]), transfers=[ONE], measures=measures)))
    assert load(path).transfer_named["one"].corrupted_images == 100
