import math

import pytest
from builders import grid, network_ids, planned
from pydantic import ValidationError

from deltaball.base.errors import InputError
from deltaball.study.grids import grid_model
from deltaball.study.schedules import schedule, spelled


def factors(text: str, epochs: int) -> list[float]:
    return [schedule(text).factor(epoch) for epoch in range(epochs)]


def test_factors_by_hand():
    assert factors("constant", 3) == [1, 1, 1]
    assert factors("step(1, 3; 0.5)", 5) == [1, 0.5, 0.5, 0.25, 0.25]
    assert factors("step(2)", 3) == [1, 1, 0.1]
    assert factors("cosine(4)", 6) == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0, 0])


@pytest.mark.parametrize("text", ["step( 1,3 ; .5 )", "step(1, 3; 0.5)", "step(1,3;5e-1)"])
def test_a_schedule_has_one_spelling(text: str):
    assert spelled(text) == "step(1, 3; 0.5)"
    assert spelled(spelled(text)) == spelled(text)
    assert network_ids(grid(schedule=text)) == network_ids(grid(schedule="step(1, 3; 0.5)"))


@pytest.mark.parametrize(
    "text",
    ["", "linear", "step()", "step(3, 1)", "step(1, 1)", "step(0)", "step(1; 2)", "step(1; 0)", "cosine", "cosine(0)"],
)
def test_what_is_no_schedule_is_refused(text: str):
    with pytest.raises(ValidationError, match="possible: constant, step"):
        planned(grid(schedule=text))


def test_a_schedule_that_is_named_twice_is_refused():
    with pytest.raises(ValidationError, match="listed twice"):
        planned(grid(schedule=["step(1)", "step(1; 0.1)"]))


def test_epochs_stay_checkpoints_of_one_trajectory():
    """What a schedule does in an epoch does not depend on how many there will be."""
    found = planned(grid(schedule=["constant", "cosine(20)"], epochs=[5, 10]))
    assert sorted(one.checkpoints for one in found.trajectories.values()) == [(5, 10), (5, 10)]
    assert len({one.shape for one in found.trajectories.values()}) == 1  # they train as one pack
    longer = planned(grid(schedule="cosine(20)", epochs=[5, 10, 20]))
    assert set(longer.trajectories) < set(found.trajectories)


def test_defaults_enter_no_id():
    assert network_ids(grid()) == network_ids(grid(schedule="constant", momentum=0.0, weight_decay=0.0))
    others = [network_ids(grid(**{name: value})) for name, value in (("momentum", 0.9), ("weight_decay", 1e-4))]
    assert len({tuple(one) for one in (*others, network_ids(grid()))}) == 3


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"schedule": "cosine(5)", "epochs": [5, 6]}, r"schedule = cosine\(5\): .* 0 from then on, and epochs = 6"),
        ({"momentum": 0.9, "optimizer": ["sgd", "adam"]}, "momentum = 0.9: adam has its own"),
    ],
)
def test_what_makes_no_sense_together_is_refused(axes: dict, message: str):
    model = grid_model("fcn", "sgd").model_validate(grid(**axes))
    with pytest.raises(InputError, match=message):
        model.check_points(next(iter(planned(grid()).facts.values())))
