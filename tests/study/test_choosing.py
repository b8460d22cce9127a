"""Which value of an axis counts in comparisons: what a study may ask, and that it changes no network."""

import pytest
from builders import grid, network_ids, study

from deltaball.base.errors import InputError
from deltaball.study.checking import check
from deltaball.study.study import Study

PLAIN = {"name": "plain", "validation": 500, "epochs": 5, "seed": [0, 1]}
CHOOSING = PLAIN | {"name": "hein", "objective": "cross_lipschitz", "beta": [0.1, 1.0]}
TO_PLAIN = {"axis": "beta", "to": "plain"}


def hein(choose: dict | None = None, **changed: object) -> dict:
    return grid(**CHOOSING | {"choose": TO_PLAIN | (choose or {})} | changed)


def refused(*grids: dict) -> str:
    with pytest.raises(InputError) as problem:
        check(Study.model_validate(study(*grids)), "study.yaml")
    text = str(problem.value)
    assert "\n" not in text
    return text


def test_a_choice_changes_no_network() -> None:
    check(Study.model_validate(study(grid(**PLAIN), hein())), "study.yaml")
    assert network_ids(grid(**PLAIN), hein()) == network_ids(grid(**PLAIN), grid(**CHOOSING))


@pytest.mark.parametrize(
    ("grids", "told"),
    {
        "of another axis": ([grid(**PLAIN), hein({"axis": "bet"})], "choose.axis: the grid has no axis 'bet'; did you"),
        "of the seed": ([grid(**PLAIN), hein({"axis": "seed"})], "choose.axis: 'seed' says which images are seen"),
        "of one value": ([grid(**PLAIN), hein(beta=0.1)], "choose.axis: 'beta' has one value, 0.1; list several"),
        "beside nothing": ([grid(**PLAIN), hein({"to": "plan"})], "choose.to: no other grid 'plan'; did you mean"),
        "beside itself": ([grid(**PLAIN), hein({"to": "hein"})], "choose.to: no other grid 'hein'"),
        "beside other data": (
            [grid(**PLAIN | {"dataset": "cifar10"}), hein()],
            "choose.to: grid 'plain' has dataset cifar10, and this one mnist5k",
        ),
        "by nothing held out": (
            [grid(**PLAIN | {"validation": 0}), hein()],
            "choose: accuracies are compared on training images that are held out, and grid 'plain' holds out none",
        ),
        "beside one that chooses": (
            [grid(**PLAIN), hein({"to": "other"}), hein(name="other")],
            "choose.to: grid 'other' chooses among its networks itself",
        ),
        "of a setting that is not there": (
            [grid(**PLAIN), hein(seed=[0, 1, 2])],
            "choose.to: grid 'plain' has no network with seed 2, as this one has",
        ),
        "beside several": (
            [grid(**PLAIN | {"objective": "augmented", "radius": [0.1, 0.2]}), hein()],
            "choose.to: grid 'plain' has several values of radius",
        ),
        "among a sample": (
            [grid(**PLAIN), hein(sample={"trajectories": 2})],
            "choose: grid 'hein' is a sample",
        ),
    }.values(),
)
def test_what_cannot_be_chosen_is_refused(grids: list[dict], told: str) -> None:
    assert told in refused(*grids)
