"""What is kept of a job, how a network that fails is told from its pack, and what a job asks for."""

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import grid, planned

from deltaball.base.errors import InputError
from deltaball.base.signals import Stopped
from deltaball.plan.networks import Shard, Trajectory
from deltaball.plan.plan import Plan
from deltaball.run import pieces
from deltaball.store.store import Store
from deltaball.store.tensors import DamagedFileError
from deltaball.tables import frames
from deltaball.workflow import jobs, resources


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(grid(learning_rate=[0.1, 0.05, 0.02, 0.01, 0.005]), results=str(tmp_path))


@pytest.fixture
def shard(plan: Plan) -> Shard:
    (only,) = plan.shards.values()
    return only


def job(plan: Plan, shard: Shard) -> jobs.Job:
    return jobs.Job(plan, "train", shard)


class Work:
    """Training that fails for some trajectories, or for packs that are too large."""

    def __init__(self, failing: Sequence[str] = (), most: int = 100, problem: Exception | None = None) -> None:
        self.failing, self.most, self.done = failing, most, []
        self.problem = problem or RuntimeError("not\n today")

    def __call__(self, pack: Sequence[Trajectory]) -> int:
        if len(pack) > self.most or any(one.id in self.failing for one in pack):
            raise self.problem
        self.done += [one.id for one in pack]
        return len(pack)


@pytest.mark.parametrize("failing", [[0], [4], [1, 2], [0, 1, 2, 3, 4], []])
def test_only_the_networks_that_fail_fail(plan: Plan, shard: Shard, failing: list[int]) -> None:
    ids = [one.id for one in shard.trajectories]
    wrong, one = [ids[index] for index in failing], job(plan, shard)
    work = Work(wrong)
    assert one.isolated(shard.trajectories, work) == len(ids) - len(wrong)
    assert sorted(work.done) == sorted(set(ids) - set(wrong))
    assert one.failures == dict.fromkeys(wrong, "RuntimeError: not today")


def test_a_pack_too_large_for_the_memory_is_halved(plan: Plan, shard: Shard) -> None:
    one = job(plan, shard)
    assert one.isolated(shard.trajectories, Work(most=2, problem=MemoryError())) == 5
    assert one.failures == {}


@pytest.mark.parametrize("problem", [OSError("the disk is full"), DamagedFileError("the disk is full of holes")])
def test_what_goes_wrong_outside_the_network_is_no_networks_failure(
    plan: Plan, shard: Shard, problem: Exception
) -> None:
    one = job(plan, shard)
    with pytest.raises(type(problem), match="full"):
        one.isolated(shard.trajectories, Work(most=0, problem=problem))
    assert one.failures == {}


def test_a_job_with_failures_is_tried_again_or_says_so(
    plan: Plan, shard: Shard, capsys: pytest.CaptureFixture[str]
) -> None:
    one = job(plan, shard)
    one.check_failures(tries_left=2, made=10)
    one.failures["abcd"] = "why"
    for tries_left, made in ((1, 9), (0, 0)):
        with pytest.raises(InputError, match=f"shard {shard.id}: train: 1 trajectories failed, abcd first: why"):
            one.check_failures(tries_left, made)
    one.check_failures(tries_left=0, made=9)
    assert "stay `failed`" in capsys.readouterr().out


def only_record(plan: Plan) -> dict:
    (found,) = jobs.records(plan)
    return found


def test_a_record_says_what_a_job_took_and_how_it_ended(plan: Plan, shard: Shard) -> None:
    with jobs.recorded(plan, "train", shard) as one:
        assert only_record(plan)["status"] == "running"
        one.device = "abacus"
        time.sleep(0.05)
    found = only_record(plan)
    assert (found["status"], found["device"], found["failures"]) == ("done", "abacus", {})
    assert found["wall_seconds"] >= 0.05
    assert found["memory_mb"] > 50
    assert {"host", "started", "software", "device_seconds"} <= set(found)
    row = frames.jobs(jobs.records(plan)).iloc[0]
    assert (row["shard"], row["status"], row["failures"]) == (shard.id, "done", 0)


def test_a_job_that_raises_is_recorded_as_failed(plan: Plan, shard: Shard) -> None:
    with pytest.raises(InputError), jobs.recorded(plan, "measure", shard):
        raise InputError("no data")
    assert only_record(plan)["status"] == "failed"
    assert jobs.unfinished(plan) == {("measure", shard.id): "no data"}
    assert jobs.partial_runs(plan) == {}


def test_a_job_that_is_told_to_end_leaves_its_record(plan: Plan, shard: Shard) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def told() -> None:
        with jobs.recorded(plan, "train", shard):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    with pytest.raises(Stopped):
        told()
    assert "out of time" in only_record(plan)["reason"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_killed_job_is_known_by_its_silence(plan: Plan, shard: Shard) -> None:
    with jobs.recorded(plan, "train", shard):
        path = next((plan.study.folder / "jobs").rglob("*.running.json"))
        kept = path.read_bytes()
    next((plan.study.folder / "jobs").rglob("*.done.json")).unlink()
    path.write_bytes(kept)
    assert "without a word" in jobs.unfinished(plan)["train", shard.id]
    assert "without a word" in jobs.lost(plan)[plan.networks[0].id]
    said = "\n".join(jobs.summary(plan))
    assert shard.id in said
    assert f"logs/train/{shard.id}.log" in said
    assert "1 jobs were not tried" in said  # to measure it


def test_every_end_with_failed_networks_is_counted(plan: Plan, shard: Shard) -> None:
    for count in (1, 2):
        with jobs.recorded(plan, "train", shard) as one:
            one.failures["abcd"] = "why"
        assert jobs.partial_runs(plan) == {("train", shard.id): count}
    part = jobs.part(plan, shard.id, "trained")
    part.parent.mkdir()
    part.touch()
    assert any("1 trajectories failed: why" in line for line in jobs.summary(plan))
    with jobs.recorded(plan, "train", shard):
        pass
    assert jobs.partial_runs(plan) == {("train", shard.id): 2}
    assert not any("failed: why" in line for line in jobs.summary(plan))


@pytest.mark.parametrize(
    "content",
    ['{"stage": ', "[]", "null", "{}", "\xff", '{"stage": "train", "shard": "a", "failures": 3}', None],
)
@pytest.mark.parametrize("name", ["{run}.done.json", "{run}.json", "notes.json"])
def test_a_record_that_is_damaged_or_none_is_left_out(plan: Plan, shard: Shard, content: str | None, name: str) -> None:
    with jobs.recorded(plan, "train", shard):
        pass
    (whole,) = jobs.records(plan)
    path = next((plan.study.folder / "jobs").rglob("*.json"))
    stray = path.with_name(name.format(run="20000101T000000000000-here-1"))
    stray.mkdir() if content is None else stray.write_text(content, encoding="latin-1")
    assert jobs.records(plan) == [whole]
    if content is not None:
        (plan.study.folder / jobs.MERGED_RECORDS).write_text(content + "\n", encoding="latin-1")
    assert jobs.records(plan) == [whole]
    assert len(frames.jobs(jobs.records(plan))) == 1
    assert list(jobs.summary(plan, succeeded=True)) == []
    path.unlink()
    assert jobs.records(plan) == []


def test_networks_without_a_checkpoint_are_failed_with_their_reason(plan: Plan, shard: Shard, tmp_path: Path) -> None:
    ids = [one.id for one in shard.trajectories]
    table = frames.trained(plan, shard.trajectories, Store(tmp_path / "store"), dict.fromkeys(ids, "why"))
    assert set(table["status"]) == {"failed"}
    assert set(frames.networks(plan, [table])["reason"]) == {"why"}


def test_networks_of_a_lost_shard_are_failed_and_others_planned(plan: Plan) -> None:
    lost = pieces.of_failures({plan.networks[0].id: "its node burnt"})
    table = frames.networks(plan, [lost.tables["networks"]])
    assert list(table["status"][:2]) == ["failed", "planned"]
    assert table["reason"][0] == "its node burnt"
    assert table["reason"][1:].isna().all()


def test_a_retry_asks_for_twice_as_much(plan: Plan, shard: Shard) -> None:
    for stage in (resources.training, resources.measuring):
        asked = stage(plan, shard)
        minutes = [int(asked.runtime(attempt).removesuffix("m")) for attempt in (1, 2, 3)]
        assert minutes[0] >= resources.SAFETY * asked.minutes + resources.STARTING_MINUTES
        assert minutes[2] > 1.9 * minutes[1] > 3.5 * minutes[0]
        assert asked.mem_mb(2) > 1.7 * asked.mem_mb(1) > asked.megabytes


def test_a_gpu_is_asked_for_where_the_study_runs_on_one() -> None:
    for device, gpus in (("cpu", 0), ("cuda", 1)):
        one = planned(compute={"device": device})
        assert (resources.gpu(one), resources.cpus(one)) == (gpus, 1 + gpus)


def test_wider_networks_and_larger_packs_ask_for_more_memory() -> None:
    def megabytes(**axes: object) -> float:
        one = planned(grid("cnn", **axes))
        return max(resources.training(one, shard).megabytes for shard in one.shards.values())

    assert megabytes(filters=16) > megabytes(filters=4)
    assert megabytes(seed=[0, 1, 2, 3]) > megabytes()
    assert megabytes(fc_width=512, optimizer="adam") > megabytes(fc_width=512)


def test_a_record_is_json_that_others_can_read(plan: Plan, shard: Shard) -> None:
    with jobs.recorded(plan, "train", shard):
        pass
    path = next((plan.study.folder / "jobs" / "train" / shard.id).glob("*.done.json"))
    assert json.loads(path.read_text())["shard"] == shard.id
