"""However a study is cut and whatever fails on the way, its networks are the same and all there."""

import threading
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import grid, study

from deltaball.base.errors import InputError
from deltaball.data.datasets import Dataset
from deltaball.plan import costs, packing, together
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan, plan
from deltaball.run import devices, preparing, streams, work
from deltaball.store.store import Store
from deltaball.study.study import Study
from deltaball.training.progress import Progress, Stopped
from deltaball.training.steps import Steps
from deltaball.workflow import jobs

# Widths whose products start on 64 bytes for every network, as in the studies: bits do not depend on the pack then.
GRIDS = [
    grid(width=[16, 32], learning_rate=[0.1, 0.05, 0.02], seed=[0, 1], batch_size=32, epochs=[1, 3]),
    grid("cnn", filters=4, fc_width=16, learning_rate=[0.2, 0.1, 0.05], batch_size=32, epochs=[1, 2]),
    grid(method="imp", width=16, learning_rate=0.05, batch_size=32, epochs=1, proportion=[0.5, 0.9], iterations=[1, 2]),
]


def cut(folder: Path, data: Path, minutes: float = 15.0) -> Plan:
    """The study as a plan whose shards take so many minutes; its results go to `folder`."""
    few = [{**one, "dataset": "few"} for one in GRIDS]
    guarantee = {"epsilon": 0.25, "confidence": 0.95}
    whole = study(*few, data=str(data), guarantee=guarantee, compute={"shard_minutes": minutes}, results=str(folder))
    return plan(Study.model_validate(whole))


def trained(planned: Plan) -> Store:
    for shard in planned.shards.values():
        with jobs.recorded(planned, "train", shard) as job, devices.ready(job):
            work.train(job, tries_left=0)
    return Store(planned.study.store)


def everything(planned: Plan, store: Store) -> dict[tuple[str, int], bytes]:
    """The bits of all weights and moments, and the accuracies, by trajectory and checkpoint."""
    found = {}
    for one in planned.trajectories.values():
        for step in one.checkpoints:
            kept = store.load(one.id, step)
            arrays = [*kept.weights, *(kept.state[name] for name in sorted(kept.state))]
            facts = [kept.facts[name] for name in ("train_accuracy", "test_accuracy", "test_loss")]
            found[one.id, step] = b"".join(array.tobytes() for array in arrays) + repr(facts).encode()
    return found


@pytest.fixture(scope="module")
def reference(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], bytes]:
    planned = cut(tmp_path_factory.mktemp("whole"), data_folder)
    found = everything(planned, trained(planned))
    assert len(set(found.values())) == len(found)
    return found


@pytest.mark.parametrize(
    ("networks", "minutes", "at_once"), [(1, 15.0, 2_000_000), (2, 1e-9, 1), (5, 15.0, 2_000_000), (64, 1e-4, 30_000)]
)
def test_packs_and_shards_of_any_size_give_the_same_bits(
    networks: int,
    minutes: float,
    at_once: int,
    reference: dict,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "PACK_NETWORKS", networks)
    monkeypatch.setattr(costs, "CACHED", at_once)
    planned = cut(tmp_path, data_folder, minutes=minutes)
    assert max(len(pack) for shard in planned.shards.values() for pack in shard.packs) <= networks
    assert everything(planned, trained(planned)) == reference


def test_packs_side_by_side_are_the_packs_one_after_another(
    reference: dict, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(together.SIDE_BY_SIDE, "cpu", 4)
    threads = set()
    one_epoch = Steps.epoch

    def watched(steps: Steps, *arguments: object) -> torch.Tensor:
        threads.add(threading.get_ident())
        return one_epoch(steps, *arguments)

    monkeypatch.setattr(Steps, "epoch", watched)
    planned = cut(tmp_path, data_folder)
    assert everything(planned, trained(planned)) == reference
    assert len(threads) > 1


@pytest.mark.parametrize("side_by_side", [1, 3])
def test_memory_for_two_networks_at_a_time_trains_them_all(
    side_by_side: int,
    reference: dict,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(together.SIDE_BY_SIDE, "cpu", side_by_side)
    one_epoch = Steps.epoch

    def in_little_memory(steps: Steps, order: np.ndarray, *arguments: object) -> torch.Tensor:
        if len(order) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return one_epoch(steps, order, *arguments)

    monkeypatch.setattr(Steps, "epoch", in_little_memory)
    planned = cut(tmp_path, data_folder)
    assert everything(planned, trained(planned)) == reference
    assert "trying its halves" in capsys.readouterr().out
    assert all(one["status"] == "done" for one in jobs.records(planned))


def test_a_lost_gpu_is_no_networks_failure_and_costs_one_interval(
    reference: dict, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = cut(tmp_path, data_folder)
    shard = next(iter(planned.shards.values()))
    with monkeypatch.context() as until_lost:
        epochs = count()
        one_epoch = Steps.epoch

        def lost(steps: Steps, *arguments: object) -> torch.Tensor:
            if next(epochs) == 2:
                raise torch.AcceleratorError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")
            return one_epoch(steps, *arguments)

        until_lost.setattr(Steps, "epoch", lost)
        reason = "the GPU failed: CUDA error: unspecified launch failure"
        with pytest.raises(InputError, match=f"shard {shard.id}: {reason}$"):
            trained(planned)
    (record,) = jobs.records(planned)
    assert (record["status"], record["failures"]) == ("failed", {})
    # What was reached before stays: the first pack's checkpoint of epoch 1.
    kept = Store(planned.study.store)
    assert any(kept.has(one.id, 1) for one in shard.packs[0])
    assert everything(planned, trained(planned)) == reference


def test_a_job_says_how_far_it_is(data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = cut(tmp_path, data_folder)
    trained(planned)
    said = [line for line in capsys.readouterr().out.splitlines() if "sample-steps/s" in line]
    # The last line of each shard: all of its networks (rounds of pruning too), nothing left.
    totals = [sum(len(one.checkpoints) for one in shard.trajectories) for shard in planned.shards.values()]
    assert [line.split()[:3] for line in said] == [[str(total), "of", str(total)] for total in totals]
    assert all(line.endswith("0 s left") for line in said)
    trained(planned)
    assert "sample-steps/s" not in capsys.readouterr().out


def packs_of(planned: Plan) -> list[tuple[Trajectory, ...]]:
    return [pack for shard in planned.shards.values() for pack in shard.packs]


def test_what_is_pruned_comes_in_a_later_wave(data_folder: Path, tmp_path: Path) -> None:
    packs = packs_of(cut(tmp_path, data_folder))
    found = together.waves(packs)
    wave_of = {one.id: number for number, wave in enumerate(found) for pack in wave for one in pack}
    pruned = [one for pack in packs for one in pack if one.parents]
    assert pruned
    assert all(wave_of[parent] < wave_of[one.id] for one in pruned for parent, _ in one.parents)
    assert sorted(map(id, packs)) == sorted(id(pack) for wave in found for pack in wave)
    assert len(found[0]) >= 3
    # Where the parents are another job's, there is nothing to wait for.
    assert together.waves(pack for pack in packs if pack[0].parents)[0]


class Worked:
    """Work that ends when its turn comes; the first pack raises."""

    def __init__(self, problem: BaseException, progress: Progress) -> None:
        self.problem, self.progress, self.begun = problem, progress, 0

    def __call__(self, pack: Sequence[Trajectory]) -> int:
        self.begun += 1
        if self.begun == 1:
            raise self.problem
        while True:
            self.progress.advance(1)


@pytest.mark.parametrize("problem", [OSError("the disk is full"), KeyboardInterrupt(), InputError("no")])
def test_whatever_ends_a_job_ends_all_its_packs(
    problem: BaseException, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(together.SIDE_BY_SIDE, "cpu", 2)
    monkeypatch.setattr(together, "PACK_NETWORKS", 640)
    progress = Progress(1, 1)
    endless = Worked(problem, progress)
    with pytest.raises((type(problem), Stopped)):
        streams.side_by_side(packs_of(cut(tmp_path, data_folder)), endless, "cpu", progress)
    # Two were under way; of those that waited at most one began before all were called off.
    assert endless.begun <= 3


def damaged_dataset(store: Path) -> Path:
    (path,) = (store / "datasets").iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path


def folder_for_a_checkpoint(store: Path) -> Path:
    path = sorted((store / "trajectories").glob("*/*/[0-9]*.safetensors"))[0]
    path.unlink()
    path.mkdir()
    return path


@pytest.mark.parametrize("damage", [damaged_dataset, folder_for_a_checkpoint])
def test_damage_in_the_store_heals_itself_and_is_no_networks_failure(
    damage: Callable[[Path], Path],
    reference: dict,
    data_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    planned = cut(tmp_path, data_folder)
    store = trained(planned)
    path = damage(store.folder)
    assert everything(planned, trained(planned)) == reference
    assert f"store: {path} is" in capsys.readouterr().out
    assert {(one["status"], len(one["failures"])) for one in jobs.records(planned)} == {("done", 0)}


def test_a_read_only_store_with_the_data_in_it_is_used_as_it_is(
    few: Dataset, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = cut(tmp_path, data_folder)
    Store(planned.study.store).save_dataset(few)
    # Whoever may do everything writes in read-only folders, too.
    monkeypatch.setattr(Store, "save_dataset", lambda *_: pytest.fail("written"))
    assert preparing.prepared(planned, "few").facts == few.facts
