"""A grid is three parts that fit: all that do are planned, and all that do not are refused by code and schema alike."""

import ast
import importlib.util
import itertools
import json
from pathlib import Path

import jsonschema
import pytest
from builders import grid, planned, study

from deltaball.base.errors import InputError
from deltaball.base.implementations import is_implemented
from deltaball.study.architectures import TRAINED
from deltaball.study.axes import Strict
from deltaball.study.grids import AFTERWARDS, PARTS, all_axes, combinations, fits, grid_model, model_of
from deltaball.study.method import Training
from deltaball.study.methods import METHODS, TRAININGS
from deltaball.study.objectives import OBJECTIVES
from deltaball.study.reading import load
from deltaball.study.schema import schema

EVERY = list(itertools.product(*PARTS.values()))
# The fit of the seven methods that there are; a new one adds its own.
PAIRS = {(architecture, method) for architecture in TRAINED for method in ("sgd", "finetune", "adapt")}
PAIRS |= {("fcn", "imp"), ("fcn", "hmc"), ("file", "given"), ("rbf_svm", "svm")}
# The objectives that a method takes, if not all.
TAKEN = {method: {"cross_entropy"} for method in ("hmc", "svm", "given")}
BESIDE = {"cotraining", "on_manifold", "on_manifold_adversarial"}  # which need another network beside
TAKEN |= {"finetune": {*OBJECTIVES} - {"ibp", "crown_ibp"} - BESIDE, "imp": {*OBJECTIVES} - BESIDE}


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema())


@pytest.mark.parametrize(("architecture", "method", "objective"), EVERY)
def test_what_fits_is_planned_and_what_does_not_is_refused(
    architecture: str, method: str, objective: str, validator: jsonschema.Draft202012Validator
) -> None:
    content = grid(architecture, method, objective=objective)
    pairs, takes = (architecture, method) in PAIRS, objective in TAKEN.get(method, OBJECTIVES)
    assert fits(architecture, method, objective) == (pairs and takes)
    assert validator.is_valid(study(content)) == fits(architecture, method, objective)
    if fits(architecture, method, objective):
        assert {one.method for one in planned(content).networks} == {method}
    else:
        misfit = f"objective '{objective}'" if pairs else f"architecture '{architecture}'"
        with pytest.raises(ValueError, match=f"method '{method}' does not go with {misfit}"):
            model_of(content)


def test_a_grid_has_the_axes_of_its_parts_and_no_other(validator: jsonschema.Draft202012Validator) -> None:
    for architecture, method, objective in combinations():
        whole = grid(architecture, method, objective=objective)
        names = grid_model(architecture, method, objective).axis_names()
        parts = [PARTS["architecture"][architecture], METHODS[method], OBJECTIVES[objective]]
        own = [name for part in parts for name in part.model_fields if name not in ("architecture", "method")]
        assert names == [*own, *AFTERWARDS]
        for name in {*all_axes()} - {*names}:
            assert not validator.is_valid(study({**whole, name: 1}))


def test_the_schema_says_each_part_once() -> None:
    text = json.dumps(schema())
    for tag, members in PARTS.items():
        for name, part in members.items():
            assert text.count(json.dumps({"const": name})[1:-1]) <= 2, f"{tag} {name}"
            assert text.count(json.dumps(part.__doc__.split("\n")[0])[1:-1]) == 1, f"{tag} {name}"


def test_parts_share_no_axis() -> None:
    """Axes stand beside each other without the name of their part."""
    for architecture, method, objective in combinations():
        parts = [PARTS["architecture"][architecture], METHODS[method], OBJECTIVES[objective]]
        names = [name for part in parts for name in part.model_fields]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("name", TRAININGS)
def test_a_method_has_a_room_that_trains(name: str) -> None:
    found = importlib.util.find_spec(TRAININGS[name].room)
    assert found
    functions = [one.name for one in ast.parse(Path(found.origin).read_text()).body if isinstance(one, ast.FunctionDef)]
    assert "train" in functions


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_has_a_class(name: str) -> None:
    assert is_implemented(OBJECTIVES[name].implementation)


def test_an_objective_without_a_class_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OBJECTIVES["cross_entropy"], "implementation", "deltaball.training.objectives.none.Nothing")
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(study(grid())))
    with pytest.raises(InputError, match=r"grids\[0\].*objective: 'cross_entropy' is not implemented"):
        load(path)


@pytest.mark.parametrize("name", METHODS)
def test_parents_come_before_their_children(name: str) -> None:
    (architecture, *_) = METHODS[name].architectures or ("fcn",)
    for network in planned(grid(architecture, name)).networks:
        chain = METHODS[name].chain(network.axes)
        known: list[Training] = []
        for training in chain:
            assert all(any(parent is one for one in known) for parent in training.parents)
            assert training.origin is None or any(training.origin is one for one in known)
            known.append(training)


def test_rounds_of_pruning_worked_out_by_hand() -> None:
    axes = {"proportion": 0.75, "iterations": 2, "ranking": "layer", "epochs": 5, "learning_rate": 0.1, "seed": 3}
    dense, first, second = METHODS["imp"].chain(axes)
    plain = {**METHODS["sgd"].plain(), "learning_rate": 0.1, "seed": 3}
    assert (dense.method, dense.checkpoint, dense.axes) == ("sgd", 5, plain)
    assert (first.parents, second.parents) == ((dense,), (first,))
    assert first.origin is second.origin is dense
    assert (first.axes["kept"], second.axes["kept"]) == ((0.5,), (0.5, 0.25))
    assert METHODS["imp"].trainings_alone(axes) == 3
    (alone,) = METHODS["imp"].chain({**axes, "proportion": 0.0})
    assert alone == dense
    # 80 weights in float32, and a mask of a bit each.
    assert METHODS["imp"].stored_bytes(second.axes, 80, (5,)) == 4 * 80 + 10
    assert METHODS["sgd"].stored_bytes({"optimizer": "adam"}, 80, (1, 5)) == 2 * 3 * 4 * 80


def test_rounds_of_fine_tuning_worked_out_by_hand() -> None:
    own = {"rounds": 2, "adversary": "pgd", "cap": 0.1, "lead": 3.0, "examples": 30, "examples_kept": "all"}
    tuned = METHODS["finetune"]
    axes = {**METHODS["sgd"].plain(), "epochs": 5, "learning_rate": 0.1, "rate_factor": 0.5, "tuning_epochs": 2, **own}
    trunk, first, second = tuned.chain(axes)
    plain = {**METHODS["sgd"].plain(), "learning_rate": 0.1}
    assert (trunk.method, trunk.checkpoint, trunk.axes) == ("sgd", 5, plain)
    # A first round is the same, however many follow.
    assert tuned.chain({**axes, "rounds": 1}) == [trunk, first]
    assert tuned.chain({**axes, "rounds": 0}) == [trunk]
    assert (first.parents, second.parents) == ((trunk,), (trunk, first))
    assert tuned.chain({**axes, "examples_kept": "latest"})[2].parents[1:] == ()
    assert (first.checkpoint, second.checkpoint, first.origin, tuned.trainings_alone(axes)) == (2, 2, None, 3)
    assert [tuned.images(one.axes, 100, 2) for one in (first, second)] == [2 * 130, 2 * 160]
    assert tuned.images({**second.axes, "examples_kept": "latest", "validation": 80}, 100, 2) == 2 * 40
    assert tuned.rate({**first.axes, "schedule": "step(1; 0.1)"}, 1) == 0.05
    # 40 steps and 2 restarts of PGD, a gradient worth three passes, and 40 passes beside.
    (own_passes, _), (all_passes, _) = (
        tuned.searching({**first.axes, "examples": count}, 100, None) for count in (30, None)
    )
    assert (own_passes, all_passes) == (30 * (3 * 80 + 40), 100 * (3 * 80 + 40))
    assert METHODS["sgd"].searching(trunk.axes, 100, None) == (0, 0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rounds": -1}, r"grids\[0\]\.rounds: -1 is wrong"),
        ({"lead": -0.5}, r"grids\[0\]\.lead: -0.5 is wrong"),
        ({"epochs": 0}, r"grids\[0\]\.epochs: 0 is wrong"),
        ({"method": "sgd"}, r"grids\[0\]\.rounds: unknown key 'rounds' .*it is a key of grids of method finetune"),
        ({"examples": 5000}, r"examples = 5000: of mnist5k networks see 4000 training images; null takes all"),
        ({"train_points": 90, "examples": 91}, r"examples = 91: of mnist5k networks see 90 training images"),
        (
            {"adversary": "linear_region", "activation": "tanh"},
            r"grids\[0\] .*adversary: 'linear_region' cannot attack .*: it needs relu, and not tanh or sigmoid$",
        ),
    ],
)
def test_fine_tuning_that_cannot_be_is_refused_in_a_line(changed: dict, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(study({**grid("fcn", "finetune"), **changed})))
    with pytest.raises(InputError, match=said):
        load(path)


def test_what_a_chain_passes_and_keeps_worked_out_by_hand() -> None:
    axes = {"train_points": 50, "leapfrog_steps": 10, "burn_in": 4, "warm_epochs": 3, "thinning": 2}
    assert METHODS["hmc"].images(axes, 1000, 20) == 50 * (3 + 10 * (4 + 20))
    assert METHODS["hmc"].images({**axes, "train_points": None}, 1000, 20) == 1000 * (3 + 10 * (4 + 20))
    assert METHODS["hmc"].averaged(axes, 21) == 10
    assert METHODS["hmc"].stored_bytes(axes, 80, (10, 21)) == 4 * 80 * 10
    assert METHODS["sgd"].images({}, 1000, 20) == 20_000


def test_axes_that_may_differ_in_a_pack_are_marked() -> None:
    assert METHODS["sgd"].within_pack() == {"learning_rate", "seed", "schedule"}
    assert METHODS["imp"].within_pack() == {"learning_rate", "seed", "ranking", "kept", "epochs"}
    # The axes in which a round is not its trunk: each is a pack of its own.
    assert METHODS["finetune"].within_pack() > {"learning_rate", "seed", "schedule", "round", "adversary", "epochs"}
    scales = {"step_size", "prior_scale", "likelihood_scale"}
    assert METHODS["hmc"].within_pack() == {*scales, "thinning", "seed"}
    assert Strict.within_pack() == frozenset()
