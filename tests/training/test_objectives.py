"""What training minimises: the same alone and in a pack, as written and replayed; its random numbers by trajectory."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from pydantic import Field, TypeAdapter, ValidationError
from step_cases import NETWORKS, coder, made, replayed, trained

from deltaball.networks.models import Layered
from deltaball.study.objectives import DEFAULT, OBJECTIVES
from deltaball.training import draws, graphs
from deltaball.training.objectives.cross_entropy import CrossEntropy, cross_entropy
from deltaball.training.objectives.objective import Batch, Objective, objective_of, varying_axes

PAGE = (Path(__file__).parents[2] / "docs/adding-an-objective.md").read_text(encoding="utf-8")
_, ATTACK = re.findall(r"```python\n(.*?)```", PAGE, re.S)
# Values of an axis, as many as there are networks, of which the first are tried that it may have.
VALUES = ([0.1, 0.3, 0.2], [1, 3, 2], ["standard_robustness", "classification", "f(x)[0] < 1"], ["one", "two", "three"])


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "BLOCK", 4)


def values_of(objective: str, axis: str) -> list[Any]:
    field = OBJECTIVES[objective].model_fields[axis]
    for values in VALUES:
        try:
            return TypeAdapter(Annotated[field.annotation, Field(), *field.metadata]).validate_python(values)
        except ValidationError:
            continue
    return field.default * NETWORKS


def entered(name: str) -> tuple[Objective, dict[str, list[Any]]]:
    """An objective that has an entry, and values of its axes on which the networks of a pack differ."""
    entry = OBJECTIVES[name]
    axes = {axis: values_of(name, axis) for axis in entry.axis_names()}
    varying = {axis: values for axis, values in axes.items() if axis in entry.within_pack()}
    return objective_of({"objective": name} | {axis: values[0] for axis, values in axes.items()}, coder()), varying


def attacked() -> tuple[Objective, dict[str, list[Any]]]:
    """The page's: it draws, and differentiates by images on the way."""
    names: dict[str, Any] = {}
    exec(ATTACK, names)
    return names["OneStepAttack"](), {"radius": [0.1, 0.3, 0.0]}


CASES = {name: entered(name) for name in OBJECTIVES} | {"one step attack": attacked()}


@pytest.mark.parametrize("kind", ["fcn", "cnn", "residual"])
@pytest.mark.parametrize(("objective", "axes"), CASES.values(), ids=CASES)
def test_a_network_alone_is_the_one_in_a_pack(objective: Objective, axes: dict[str, list[Any]], kind: str) -> None:
    together, rates = made(kind, objective=objective, axes=axes)
    losses = trained(together, rates)
    assert all(torch.isfinite(loss).all() and loss.shape == (NETWORKS,) for loss in losses)
    for order in ([0], [1], [2], [2, 0]):
        some, few_rates = made(kind, objective=objective, axes=axes, only=order)
        for mine, all_ in zip(trained(some, few_rates, only=order), losses, strict=True):
            assert torch.equal(mine, all_[order])
        for mine, all_ in zip(some.members.weights, together.members.weights, strict=True):
            assert torch.equal(mine, all_[order])


@pytest.mark.parametrize("kind", ["fcn", "cnn"])
@pytest.mark.parametrize(("objective", "axes"), CASES.values(), ids=CASES)
def test_a_step_replayed_is_the_step_as_written(objective: Objective, axes: dict[str, list[Any]], kind: str) -> None:
    """The recorder's tensors have no values: an objective that asked for one would raise."""
    written, rates = made(kind, objective=objective, axes=axes)
    again, _, _ = replayed(kind, objective=objective, axes=axes)
    for one, other in zip(trained(written, rates), trained(again, rates), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(written.members.weights, again.members.weights, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("objective", "axes"), CASES.values(), ids=CASES)
def test_what_was_stopped_goes_on_as_it_would_have(objective: Objective, axes: dict[str, list[Any]]) -> None:
    whole, rates = made(objective=objective, axes=axes)
    losses = trained(whole, rates)
    stopped, _ = made(objective=objective, axes=axes)
    trained(stopped, rates, 1)
    resumed, _ = made(objective=objective, axes=axes)
    for weight, reached in zip(resumed.members.weights, stopped.members.weights, strict=True):
        weight.copy_(reached)
    if resumed.members.generators:
        beside = resumed.members.generators.weights, stopped.members.generators.weights
        for weight, reached in zip(*beside, strict=True):
            weight.copy_(reached)
    for one, other in zip(trained(resumed, rates, 2, first=1), losses[1:], strict=True):
        assert torch.equal(one, other)


def test_an_attack_in_a_step_makes_the_loss_larger_and_a_radius_of_zero_none() -> None:
    objective, axes = attacked()
    steps, rates = made(objective=objective, axes=axes)
    plain, _ = made()
    attacked_loss, loss = trained(steps, rates * 0, 1)[0], trained(plain, rates * 0, 1)[0]
    assert attacked_loss[2] == loss[2]
    assert (attacked_loss[:2] > loss[:2] + 0.01).all()


def words(*values: int) -> list[torch.Tensor]:
    return [torch.tensor([value]) for value in values]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(counter: Sequence[int], key: Sequence[int], expected: Sequence[int]) -> None:
    """Those published with Random123 (Salmon et al. 2011), file kat_vectors."""
    assert [word.item() for word in draws.philox(words(*counter), words(*key))] == list(expected)


def drawn(origins: Sequence[str], step: int, calls: int = 1, shape: Sequence[int] = (50, 3)) -> torch.Tensor:
    before, taken = torch.tensor([step - step % 10]), torch.tensor([step % 10])
    one = draws.Draws(draws.keys(origins, "cpu"), before, taken)
    return [one.uniform(shape) for _ in range(calls)][-1]


def test_draws_depend_on_trajectory_step_and_call_alone() -> None:
    both = drawn(["a", "b"], 3)
    assert both.shape == (2, 50, 3)
    assert torch.equal(drawn(["b"], 3)[0], both[1])
    # The rest of an epoch is a shorter minibatch.
    assert torch.equal(drawn(["a"], 3, shape=(20, 3))[0], both[0, :20])
    far = 2**32 + 3  # more steps than a word counts
    others = [both[0], both[1], drawn(["a"], 4)[0], drawn(["a"], 3, calls=2)[0], drawn(["a"], far)[0]]
    assert len({tuple(one.flatten().tolist()) for one in others}) == 5


def test_draws_are_uniform_and_unrelated() -> None:
    numbers = torch.stack([drawn(["a", "b"], step, shape=(10_000,)) for step in range(4)]).double().flatten(0, 1)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    # Of 80,000: within five standard errors.
    assert numbers.mean().item() == pytest.approx(0.5, abs=5 * 12**-0.5 / 80_000**0.5)
    counts = np.histogram(numbers.flatten().numpy(), 20, (0, 1))[0]
    assert ((counts - 4000) ** 2 / 4000).sum() < 50  # chi-squared with 19 degrees of freedom: 1 in 10,000
    correlations = np.corrcoef(numbers.numpy()) - np.eye(8)
    assert abs(correlations).max() < 5 / 10_000**0.5


def test_cross_entropy_is_what_is_minimised_where_nothing_is_said() -> None:
    assert isinstance(objective_of({}), CrossEntropy)
    assert isinstance(objective_of({"objective": DEFAULT, "learning_rate": 0.1}), CrossEntropy)
    assert varying_axes([{}, {}], "cpu") == {}


class Fixed(Layered):
    """Logits that are given."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def __len__(self) -> int:
        return len(self.logits)

    def part(self, networks: slice) -> "Fixed":
        return Fixed(self.logits[networks])

    def fixed(self) -> "Fixed":
        return Fixed(self.logits.detach())

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_cross_entropy_is_one_mean_per_network() -> None:
    random = np.random.default_rng(0)
    logits = torch.from_numpy(random.normal(size=(3, 5, 4)).astype(np.float32))
    labels = torch.from_numpy(random.integers(0, 4, (3, 5)))
    own, shared = cross_entropy(logits, labels), cross_entropy(logits, labels[0])
    assert own.shape == (3,)
    for k in range(3):
        torch.testing.assert_close(own[k], torch.nn.functional.cross_entropy(logits[k], labels[k]))
        torch.testing.assert_close(shared[k], torch.nn.functional.cross_entropy(logits[k], labels[0]))
    images = torch.zeros(3, 5, 1, 1, 1)
    assert torch.equal(CrossEntropy()(Fixed(logits), Batch(images, labels)), own)
