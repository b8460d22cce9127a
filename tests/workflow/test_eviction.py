"""Grids whose weights leave the store once measured: the same tables, none of the disk."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from builders import grid, planned, study

from deltaball.base.errors import InputError
from deltaball.plan import loading
from deltaball.store.store import EvictedError, Store
from deltaball.tables import frames
from deltaball.workflow import jobs

SGD = grid(width=8, learning_rate=[0.05, 0.1], epochs=[1, 2], dataset="few", name="sgd")
HMC = grid(
    method="hmc",
    width=4,
    step_size=[0.01, 0.02],
    leapfrog_steps=3,
    posterior_samples=[8, 12],
    dataset="few",
    name="hmc",
)


def run(
    folder: Path, data: Path, weights: str, deltas: list[float], *commands: str, grids: Sequence[dict] = (SGD, HMC)
) -> str:
    """Run commands of a study of 4 networks a grid, those with a shard on every shard; returns what they print."""
    grids = [{**one, "weights": weights} for one in grids]
    measures = [{"notion": "class_change", "delta": deltas}]
    content = study(*grids, data=str(data), measures=measures, guarantee={"epsilon": 0.25, "confidence": 0.95})
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(json.dumps(content))
    lines = []
    for command in commands:
        shards = loading.planned(folder / "config.yaml").shards if command in ("train", "measure") else ()
        lines += [[command, shard] for shard in shards] or [[command]]
    # In a process of its own, where Keras is on JAX.
    together = [sys.executable, "-c", f"from deltaball.cli.main import main; print({{*map(main, {lines})}})"]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(together, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("{0}\n"), done.stderr
    return done.stdout


EVERYTHING = ("train", "measure", "networks", "robustness")


def found(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return tuple(frames.read(folder / f"results/test/{name}.parquet") for name in ("networks", "robustness"))


def trainings(folder: Path) -> int:
    lines = "".join(path.read_text() for path in (folder / "results/store/log").glob("*.log"))
    return lines.count(" began ")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    run(folder, data_folder, "keep", [0.1, 0.2], *EVERYTHING)
    return folder


@pytest.fixture(scope="module")
def evicted(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("evicted")
    run(folder, data_folder, "evict", [0.1], *EVERYTHING)
    return folder


def test_the_tables_are_the_same_and_the_weights_are_gone(kept: Path, evicted: Path) -> None:
    networks, robustness = found(kept)
    alike, fewer = found(evicted)
    pd.testing.assert_frame_equal(alike, networks)
    same = robustness[robustness["delta"] == 0.1].reset_index(drop=True)
    pd.testing.assert_frame_equal(fewer, same)
    plan, store = loading.planned(evicted / "config.yaml"), Store(evicted / "results/store")
    for one in plan.networks:
        with pytest.raises(EvictedError):
            store.samples(one.trajectory_id, one.checkpoint)
    stored = sum(path.stat().st_size for path in (evicted / "results/store/trajectories").rglob("[0-9]*.safetensors"))
    assert stored < 1500 * len(list((evicted / "results/store/trajectories").rglob("[0-9]*.safetensors")))


def test_what_was_measured_is_neither_trained_nor_measured_again(evicted: Path, data_folder: Path) -> None:
    before = trainings(evicted)
    said = run(evicted, data_folder, "evict", [0.1], "train", "measure")
    assert "trained 0 networks, found 4 in the store" in said
    assert "computed 0 outcomes" in said
    assert trainings(evicted) == before


def test_a_new_measure_trains_again_what_it_needs_and_lets_it_go(kept: Path, evicted: Path, data_folder: Path) -> None:
    run(evicted, data_folder, "evict", [0.1, 0.2], "measure", "networks", "robustness")
    for here, there in zip(found(evicted), found(kept), strict=True):
        pd.testing.assert_frame_equal(here, there)
    plan, store = loading.planned(evicted / "config.yaml"), Store(evicted / "results/store")
    assert all(store.find(one.trajectory_id, one.checkpoint) is None for one in plan.networks)
    # Of whoever then wants to keep them, they are trained once more, to the same bits.
    run(evicted, data_folder, "keep", [0.1, 0.2], "train")
    for one in plan.networks:
        again, first = (
            Store(folder / "results/store").samples(one.trajectory_id, one.checkpoint)
            if one.method == "hmc"
            else Store(folder / "results/store").weights(one.trajectory_id, one.checkpoint)
            for folder in (evicted, kept)
        )
        assert [array.tobytes() for array in again] == [array.tobytes() for array in first]


def test_a_job_killed_before_it_measured_loses_no_row(tmp_path: Path, data_folder: Path, kept: Path) -> None:
    # Trained and kept, as a kill between training and eviction leaves it.
    run(tmp_path, data_folder, "keep", [0.1, 0.2], "train", grids=[SGD])
    plan = loading.planned(tmp_path / "config.yaml")
    for shard in plan.shards:
        (tmp_path / jobs.part(plan, shard, "trained")).unlink()
    before = trainings(tmp_path)
    run(tmp_path, data_folder, "evict", [0.1, 0.2], *EVERYTHING, grids=[SGD])
    assert trainings(tmp_path) == before > 0
    mine = {network.id for network in plan.networks}
    for here, there in zip(found(tmp_path), found(kept), strict=True):
        there = there[there["network_id"].isin(mine)].reset_index(drop=True)
        pd.testing.assert_frame_equal(here, there)


def test_a_job_killed_before_it_let_go_does_so_the_next_time(tmp_path: Path, data_folder: Path) -> None:
    # Measured and kept, as a kill between measuring and eviction leaves it.
    run(tmp_path, data_folder, "keep", [0.1], "train", "measure", grids=[SGD])
    before = trainings(tmp_path)
    run(tmp_path, data_folder, "evict", [0.1], "train", grids=[SGD])
    assert trainings(tmp_path) == before > 0
    plan, store = loading.planned(tmp_path / "config.yaml"), Store(tmp_path / "results/store")
    assert all(store.has(one.trajectory_id, one.checkpoint) for one in plan.networks)
    assert not any(store.find(one.trajectory_id, one.checkpoint) for one in plan.networks)


def test_what_is_pruned_cannot_be_evicted() -> None:
    pruned = grid(method="imp", width=[8], iterations=2, proportion=0.75)
    dense = grid(width=8, epochs=5)
    with pytest.raises(InputError, match="grids: fcn-imp: weights: 'evict', but grid 'fcn-imp' starts from them"):
        planned({**pruned, "weights": "evict"})
    with pytest.raises(InputError, match="grids: fcn-sgd: weights: 'evict', but grid 'fcn-imp' starts from them"):
        planned({**dense, "weights": "evict"}, pruned)


def test_ids_and_costs_of_training_do_not_depend_on_what_becomes_of_the_weights() -> None:
    one, other = planned(grid(method="hmc")), planned(grid(method="hmc", weights="evict"))
    assert [network.id for network in one.networks] == [network.id for network in other.networks]
    assert one.trajectories == other.trajectories
