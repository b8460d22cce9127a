"""Packs trained on a GPU: a pretended one everywhere, and the real one where there is one."""

import contextlib
import gc
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretended_gpu import pretended
from step_cases import BATCH, NETWORKS, made, trained

from deltaball.data.datasets import Dataset
from deltaball.plan.networks import Trajectory
from deltaball.run.streams import side_by_side
from deltaball.store.store import Store
from deltaball.study.architectures import layers
from deltaball.training import executions, graphs, sgd
from deltaball.training.orders import Orders, permutation
from deltaball.training.progress import SILENT
from deltaball.training.steps import Execution

ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
EXECUTIONS = [
    Execution(),
    Execution(lanes=2),
    Execution("grouped"),
    Execution("unfolded"),
]
CASES = [("fcn", "sgd", False), ("fcn", "adam", True), ("cnn", "sgd", True)]


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "BLOCK", 4)


@pytest.fixture(params=["pretended", pytest.param("real", marks=[ON_A_GPU, pytest.mark.gpu])])
def gpu(request: pytest.FixtureRequest) -> Callable[[], contextlib.AbstractContextManager]:
    """Makes the machine one with a GPU."""
    return pretended if request.param == "pretended" else contextlib.nullcontext


@pytest.mark.parametrize("execution", EXECUTIONS, ids=str)
@pytest.mark.parametrize(("kind", "optimizer", "pruned"), CASES)
def test_steps_in_graphs_are_the_steps_as_a_cpu_takes_them(
    execution: Execution, kind: str, optimizer: str, pruned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    here, rates = made(kind, optimizer, pruned)
    losses = trained(here, rates)
    with pretended() as gpu:
        there, _ = made(kind, optimizer, pruned, "cuda", execution=execution)
        again = [one.cpu() for one in trained(there, rates)]
        weights = [weight.cpu() for weight in there.members.weights]
        assert gpu.graphs == 3  # a block, a single step, the last minibatch
    assert "not captured" not in capsys.readouterr().out
    exact = (
        {"rtol": 0, "atol": 0} if execution.convolution == "looped" or kind == "fcn" else {"rtol": 1e-4, "atol": 1e-5}
    )
    torch.testing.assert_close(again, losses, **exact)
    torch.testing.assert_close(weights, list(here.members.weights), **exact)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_steps_that_are_not_needed_any_more_keep_no_memory(device: str) -> None:
    with pretended() as gpu:
        steps, rates = made("cnn", "adam", device=device)
        trained(steps, rates, 1)
        gone = weakref.ref(steps)
        gc.disable()  # memory of a GPU must not wait for it
        try:
            del steps
            assert gone() is None
            assert gpu.bytes == 0
        finally:
            gc.enable()


def pack(first: int, shape: str = "fcn", epochs: int = 2, **axes: Any) -> tuple[Trajectory, ...]:
    axes = {"batch_size": 16, "optimizer": "sgd", "seed": 0, "learning_rate": 0.1, **axes}
    return tuple(
        Trajectory(f"{shape}-{k}", "g", "few", "sgd", shape, axes, (1, epochs), (), f"{shape}-{k}", 0, 0.0)
        for k in range(first, first + NETWORKS)
    )


AXES = {
    "fcn": {"depth": 1, "width": 6, "activation": "relu"},
    "cnn": {"fc_depth": 1, "fc_width": 4, "activation": "relu", "filters": 2, "kernel": 3, "conv_depth": 1},
}


def trained_side_by_side(packs: Sequence[tuple[Trajectory, ...]], data: Dataset, store: Store, device: str) -> None:
    def train(some: Sequence[Trajectory]) -> int:
        kind = some[0].architecture
        return sgd.train(some, layers(kind, AXES[kind], data.facts.shape, 10), data, store, device)

    assert side_by_side(packs, train, device, SILENT) == 2 * NETWORKS * len(packs)


def test_many_packs_side_by_side_do_not_disturb_each_other(
    few: Dataset,
    tmp_path: Path,
    gpu: Callable[[], contextlib.AbstractContextManager],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # More packs than streams, so that each of these is used again; among them some with lanes.
    packs = [pack(NETWORKS * k, "cnn" if k % 3 else "fcn") for k in range(12)]
    monkeypatch.setattr(executions, "candidates", lambda *_: [Execution(lanes=2)])
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    with gpu():
        trained_side_by_side(packs, few, there, "cuda")
    assert "not captured" not in capsys.readouterr().out
    monkeypatch.setattr(executions, "candidates", lambda *_: [Execution()])
    trained_side_by_side(packs, few, here, "cpu")
    for one in [one for some in packs for one in some]:
        for found, expected in zip(there.weights(one.id, 2), here.weights(one.id, 2), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_network_that_diverges_leaves_a_pack_on_a_gpu(
    few: Dataset, tmp_path: Path, gpu: Callable[[], contextlib.AbstractContextManager]
) -> None:
    good, bad = pack(0), pack(NETWORKS, learning_rate=1e9)
    with gpu():
        sgd.train((*good, *bad), layers("fcn", AXES["fcn"], few.facts.shape, 10), few, Store(tmp_path), "cuda")
    sgd.train(good, layers("fcn", AXES["fcn"], few.facts.shape, 10), few, Store(tmp_path / "alone"), "cpu")
    for one in good:
        pairs = zip(Store(tmp_path).weights(one.id, 2), Store(tmp_path / "alone").weights(one.id, 2), strict=True)
        for found, expected in pairs:
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert all(Store(tmp_path).facts(one.id, 2)["status"] == "diverged" for one in bad)


def test_orders_drawn_ahead_are_the_orders(gpu: Callable[[], contextlib.AbstractContextManager]) -> None:
    origins = ["a", "b", "c"]
    with gpu():
        orders = Orders(origins, 50, "cuda")
        for epoch in (3, 4, 5, 9):
            found = orders.of(epoch).copy()
            if epoch != 5:
                orders.draw_ahead(epoch + 1)
            assert np.array_equal(found, [permutation(origin, epoch, 50) for origin in origins])
    assert np.array_equal(Orders(origins, 50, "cpu").of(3), [permutation(origin, 3, 50) for origin in origins])


def test_every_trial_leaves_its_memory(tmp_path: Path) -> None:
    steps, _ = made("cnn", "adam")
    with pretended() as gpu:
        there, _ = made("cnn", "adam", device="cuda")
        tensors = (there.members, there.images, there.labels)
        before = gpu.bytes
        found = executions.fastest(steps.recipe, *tensors, tmp_path)
        assert found in executions.candidates(steps.recipe.layers, NETWORKS, BATCH, "cuda")
        assert gpu.bytes == before
