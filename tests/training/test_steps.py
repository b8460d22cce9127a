"""Steps replayed are the steps as written; every way of computing one agrees; a broken network stays alone."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from step_cases import BATCH, CNN, NETWORKS, SHAPE, SHAPES, made, replayed, trained

from deltaball.networks.arithmetic import CONVOLUTIONS
from deltaball.networks.initial import initial_weights
from deltaball.networks.packs import logits
from deltaball.study.architectures import layers
from deltaball.training import executions, graphs
from deltaball.training.graphs import WARM_UP
from deltaball.training.steps import Execution, Recipe, TrainedPack


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "BLOCK", 4)


ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
CASES = [("fcn", "sgd", False), ("fcn", "adam", False), ("fcn", "adam", True), ("cnn", "sgd", True)]
CASES += [("residual", "adam", False)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "optimizer", "pruned"), CASES)
def test_steps_replayed_are_the_steps_as_written(kind: str, optimizer: str, pruned: bool, precision: str) -> None:
    written, rates = made(kind, optimizer, pruned, precision=precision)
    again, _, recorder = replayed(kind, optimizer, pruned, precision=precision)
    before = [one.data_ptr() for one in recorder.tensors]
    start = [one.clone() for one in again.members.weights]
    for one, other in zip(trained(written, rates), trained(again, rates), strict=True):
        assert torch.equal(one, other)
    # A block, a single step and the last minibatch: each was recorded once and replayed since.
    assert len(recorder.graphs) == 3
    assert [one.data_ptr() for one in recorder.tensors] == before
    for one, other, old in zip(written.members.weights, again.members.weights, start, strict=True):
        assert torch.equal(one, other)
        assert not torch.equal(one, old)
    for one, other in zip(written.members.moments, again.members.moments, strict=True):
        assert torch.equal(one, other)


@pytest.mark.gpu
@ON_A_GPU
@pytest.mark.parametrize(
    "execution",
    [Execution(), Execution(lanes=2), Execution("grouped"), Execution("unfolded")],
    ids=str,
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "optimizer", "pruned"), CASES)
def test_a_gpu_replays_the_steps_as_written(
    kind: str,
    optimizer: str,
    pruned: bool,
    precision: str,
    execution: Execution,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_cpu, rates = made(kind, optimizer, pruned, precision=precision)
    written, _ = made(
        kind, optimizer, pruned, "cuda", precision=precision, execution=execution, record=lambda work: work
    )
    again, _ = made(kind, optimizer, pruned, "cuda", precision=precision, execution=execution)
    losses = [trained(one, rates) for one in (on_cpu, written, again)]
    assert "not captured" not in capsys.readouterr().out
    near = {"rtol": 1e-4, "atol": 1e-5} if precision == "float32" else {"rtol": 0.05, "atol": 0.02}
    for on_a_cpu, as_written, from_a_graph in zip(*losses, strict=True):
        torch.testing.assert_close(from_a_graph, as_written, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(from_a_graph.cpu(), on_a_cpu, **near)


@given(st.integers(0, 70), st.integers(0, 3), st.integers(1, 4))
@settings(deadline=None)
def test_no_step_is_left_out_or_taken_twice(whole: int, left: int, epochs: int) -> None:
    taken: list[int] = []
    recorded: list[list[int]] = []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        before = len(taken)
        work()
        recorded.append(taken[before:])
        del taken[before:]
        mine = recorded[-1]
        return lambda: taken.extend(mine)

    take = graphs.Replayed(record)
    for _ in range(epochs):
        take(taken.append, BATCH, whole)
        if left:
            take(taken.append, left, 1)
    assert taken == ([BATCH] * whole + ([left] if left else [])) * epochs
    assert Counter(map(len, recorded)).keys() <= {1, graphs.BLOCK}
    assert all(take.warm[size] <= WARM_UP for size in (BATCH, left))


@pytest.mark.parametrize("record", [False, True], ids=["as written", "replayed"])
@pytest.mark.parametrize(("kind", "optimizer"), [("fcn", "sgd"), ("fcn", "adam"), ("cnn", "sgd"), ("residual", "sgd")])
@pytest.mark.parametrize("place", range(NETWORKS))
def test_a_nan_in_one_network_changes_no_bit_of_the_others(place: int, kind: str, optimizer: str, record: bool) -> None:
    reference, rates = made(kind, optimizer)
    ill = replayed(kind, optimizer)[0] if record else made(kind, optimizer)[0]
    for one in (reference, ill):
        trained(one, rates, 1)
        if one is ill:
            one.members.weights[0][place, ..., 0] = float("nan")
        losses = trained(one, rates, 2)[-1]
    assert losses[place].isnan()
    others = [k for k in range(NETWORKS) if k != place]
    for one, other in zip(ill.members.weights, reference.members.weights, strict=True):
        assert torch.equal(one[others], other[others])
        assert not torch.equal(one[place], other[place])


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_pruned_weight_stays_zero(optimizer: str, pruned: bool) -> None:
    steps, rates = made("fcn", optimizer, pruned)
    trained(steps, rates)
    zeros = sum(int((weight == 0).sum()) for weight in steps.members.weights)
    assert zeros == sum(int((mask == 0).sum()) for mask in steps.members.masks)


def test_lower_precision_is_mixed_precision() -> None:
    full, rates = made("cnn")
    mixed, _ = made("cnn", precision="bfloat16")
    losses = [[one.mean().item() for one in trained(steps, rates, 6)] for steps in (full, mixed)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]
    for other in mixed.members.weights:
        assert other.dtype == torch.float32
        # The master weights have more digits than bfloat16 holds, so small updates are not lost.
        assert (other != other.bfloat16().float()).float().mean() > 0.5
    # Three layers, each of which rounds to 8 binary digits.
    images = full.images[:20]
    one, other = (
        TrainedPack(Recipe(SHAPES["cnn"], BATCH, "sgd", precision), full.members.weights)(images)
        for precision in ("float32", "bfloat16")
    )
    assert other.dtype == torch.float32
    assert 0 < (one - other).abs().max() < 3 * 2**-7 * one.abs().max()


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("convolution", sorted(CONVOLUTIONS))
def test_every_way_of_convolving_gives_the_same_logits_and_gradients(convolution: str, kernel: int) -> None:
    network = layers("cnn", {**CNN, "kernel": kernel, "activation": "tanh"}, SHAPE, 3)
    random = np.random.default_rng(1)
    drawn = [initial_weights(network, random) for _ in range(NETWORKS)]
    weights = [torch.from_numpy(np.stack(one)).double().requires_grad_() for one in zip(*drawn, strict=True)]
    for images in (random.random((4, *SHAPE)), random.random((NETWORKS, 4, *SHAPE))):
        x = torch.from_numpy(images).requires_grad_()
        found = [logits(network, weights, x, way) for way in ("looped", convolution)]
        torch.testing.assert_close(found[1], found[0], atol=1e-12, rtol=1e-10)
        slopes = [torch.autograd.grad(one.square().sum(), [x, *weights]) for one in found]
        for one, other in zip(*slopes, strict=True):
            torch.testing.assert_close(other, one, atol=1e-12, rtol=1e-10)


LOOPED, GROUPED, UNFOLDED = Execution(), Execution("grouped"), Execution("unfolded")


def decided(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: dict[Execution, float],
    tried: list[Execution],
) -> Execution:
    """What `fastest` says where executions take so many seconds; those that are not named fail."""
    steps, _ = made("cnn")

    def trial(*arguments: Any) -> float:
        tried.append(arguments[-1])
        if arguments[-1] not in seconds:
            raise torch.OutOfMemoryError("more than there is")
        return seconds[arguments[-1]]

    monkeypatch.setattr(executions, "candidates", lambda *_: [LOOPED, GROUPED, UNFOLDED])
    monkeypatch.setattr(executions, "seconds_per_step", trial)
    return executions.fastest(steps.recipe, steps.members, steps.images, steps.labels, folder)


def test_the_fastest_implementation_that_works_is_taken_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Execution] = []
    assert decided(tmp_path, monkeypatch, {LOOPED: 2.0, GROUPED: 1.0}, tried) == GROUPED
    assert tried == [LOOPED, GROUPED, UNFOLDED]
    assert decided(tmp_path, monkeypatch, {LOOPED: 0.1}, tried) == GROUPED
    assert len(tried) == 3
    (file,) = tmp_path.glob("*.json")
    assert [one["seconds per step"] for one in json.loads(file.read_text())["trial"]] == [2.0, 1.0]
    file.write_text(file.read_text()[:-9])
    assert decided(tmp_path, monkeypatch, {LOOPED: 0.1}, tried) == LOOPED


def test_a_pack_for_which_every_implementation_fails_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        decided(tmp_path, monkeypatch, {}, [])
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("convolution", sorted(CONVOLUTIONS))
def test_a_trial_trains_nothing_and_takes_time(convolution: str) -> None:
    steps, _ = made("cnn", "adam")
    before = [one.clone() for one in (*steps.members.weights, *steps.members.moments)]
    tensors = (steps.members, steps.images, steps.labels)
    assert executions.seconds_per_step(steps.recipe, *tensors, Execution(convolution)) > 0
    for one, old in zip((*steps.members.weights, *steps.members.moments), before, strict=True):
        assert torch.equal(one, old)


def test_no_stopwatch_decides_on_a_cpu() -> None:
    assert executions.candidates(SHAPES["cnn"], 4, BATCH, "cpu") == [LOOPED]
    assert executions.candidates(SHAPES["fcn"], 4, BATCH, "cuda") == [LOOPED]
    assert {one.convolution for one in executions.candidates(SHAPES["cnn"], 4, BATCH, "cuda")} == set(CONVOLUTIONS)
