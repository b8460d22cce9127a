"""A study without Snakemake: what fits in a time, what is stopped, what goes on, and the same tables in the end."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from builders import grid, planned
from tiny_study import ROOT

from deltaball.base import hardware
from deltaball.base.errors import InputError
from deltaball.cli import main
from deltaball.plan import loading
from deltaball.plan.networks import Shard
from deltaball.plan.plan import Plan
from deltaball.run import limited, pace
from deltaball.run.pace import Pace
from deltaball.store.store import Store
from deltaball.training.steps import Steps
from deltaball.workflow import jobs

STUDY = """
study: small
compute: {shard_minutes: 0.001}
guarantee: {epsilon: 0.15, confidence: 0.95}
measures: [{notion: class_change, delta: [0.1, 0.2]}, {notion: softmax_variation, delta: 0.1}]
convergence:
  - {measure: {notion: class_change, delta: 0.1, only: {grid: two, epochs: 2}}, epsilon: [0.2, 0.1], draws: 3}
grids:
  - {name: one, dataset: mnist5k, method: sgd, architecture: fcn, depth: 1, width: 8, activation: relu,
     learning_rate: [0.1, 0.2], epochs: [1, 2, 3]}
  - {name: two, dataset: mnist5k, method: imp, architecture: fcn, depth: 1, width: 8, activation: relu,
     proportion: [0.5, 0.75], iterations: 1, learning_rate: 0.1, epochs: 2}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Three shards; the second is ten thousand times as large as the others."""
    grids = [grid(name="a"), grid(name="b", width=4096, epochs=1000), grid(name="c", width=32)]
    return planned(*grids, results=str(tmp_path), compute={"shard_minutes": 0.001})


class Clock:
    """Time that passes only where somebody sleeps."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (limited, pace):
        monkeypatch.setattr(module, "time", clock)
    return clock


def did(
    plan: Plan, limit: float | None, sleep: Callable[[float], None] = time.sleep, failing: str = "", forever: str = ""
) -> tuple:
    """The run's end, and the jobs that were done; jobs sleep as long as is estimated."""
    done, ended = [], limited.Ended()
    estimates = Pace(plan, Store(plan.study.store))

    def work(stage: str, shard: Shard) -> None:
        if shard.grid == failing:
            raise RuntimeError("not\n today")
        sleep(600 if shard.grid == forever else estimates.estimate(stage, shard))
        done.append((stage, shard.grid))

    limited.run(plan, list(plan.shards.values()), work, ended, limit)
    return ended, done


@pytest.fixture(autouse=True)
def no_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "STARTING_SECONDS", 0.0)


def grids(plan: Plan, shards: list[str]) -> list[str]:
    return [plan.shards[one].grid for one in shards]


def test_without_a_limit_all_is_done_in_order(plan: Plan) -> None:
    ended, done = did(plan, None, sleep=lambda _: None)
    assert done == [(stage, one) for one in "abc" for stage in ("train", "measure")]
    assert (grids(plan, ended.done), ended.left, ended.failed) == (["a", "b", "c"], [], {})


def test_shards_are_done_in_an_order_that_does_not_follow_their_size(tmp_path: Path) -> None:
    """A run that stops half-way has large networks too; grids stay in the order of the study."""
    widths = [2**exponent for exponent in range(3, 11)]
    grids_of_many = [grid(name="z", width=widths), grid(name="a", width=widths, learning_rate=0.2)]
    whole = planned(*grids_of_many, results=str(tmp_path), compute={"shard_minutes": 0.0001})
    shards = list(whole.shards.values())
    assert len(shards) == 16
    ordered = limited.by_chance(shards)
    assert sorted(ordered, key=lambda one: one.id) == sorted(shards, key=lambda one: one.id)
    assert grids(whole, [one.id for one in ordered]) == ["z"] * 8 + ["a"] * 8
    for part in (ordered[:8], ordered[8:]):
        sizes = [one.trajectories[0].axes["width"] for one in part]
        assert sorted(sizes) == widths
        assert max(sizes[:4]) > min(sizes[4:])
        assert max(sizes[4:]) > min(sizes[:4])
    # What is asked for, and in which order, does not decide.
    assert limited.by_chance(shards[::-1])[:8] == ordered[8:]


def test_a_shard_that_does_not_fit_is_left_for_one_that_does(plan: Plan, clock: Clock) -> None:
    large = next(one for one in plan.shards.values() if one.grid == "b")
    limit = Pace(plan, Store(plan.study.store)).of_shard(large) * 0.9
    assert limit > 100  # the alarm, which goes by the real clock, does not come
    ended, done = did(plan, limit, sleep=lambda _: None)
    # At once everything seems to take no time, so that the large one fits, too.
    assert [one for _, one in done] == ["a", "a", "b", "b", "c", "c"]
    ended, done = did(plan, limit, sleep=clock.sleep)
    assert [one for _, one in done] == ["a", "a", "c", "c"]
    assert grids(plan, ended.left) == ["b"]


def test_at_the_limit_what_is_under_way_is_stopped(plan: Plan) -> None:
    began = time.monotonic()
    ended, done = did(plan, 1.0, forever="a")
    assert 0.95 < time.monotonic() - began < 300
    assert (done, grids(plan, ended.left), ended.failed) == ([], ["a", "b", "c"], {})


def test_a_shard_that_fails_stops_no_other(plan: Plan) -> None:
    ended, _ = did(plan, None, sleep=lambda _: None, failing="a")
    assert grids(plan, ended.done) == ["b", "c"]
    assert list(ended.failed.values()) == ["RuntimeError: not today"]


@pytest.mark.parametrize(
    ("text", "expected"), [("9m", 540), ("90s", 90), ("1h30m", 5400), ("2h", 7200), ("1h1m1s", 3661)]
)
def test_times(text: str, expected: float) -> None:
    assert limited.seconds(text) == expected


@pytest.mark.parametrize("text", ["9", "m", "", "0s", "9 m", "1.5h", "-1m", "1m1h"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="should be a time such as 9m, 90s or 1h30m"):
        limited.seconds(text)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def stored(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("[0-9]*.safetensors")}


def test_stopped_and_gone_on_it_ends_with_the_tables_of_snakemake_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(STUDY)
    results = Path("results/small")
    one_epoch, begun, alarms = Steps.epoch, set(), []

    def stopped(steps: Steps, *arguments: object) -> object:
        """The first shard's networks keep one epoch, and time is out in the next."""
        if steps in begun:
            alarms.append(time.monotonic() + signal.getitimer(signal.ITIMER_REAL)[0])
            signal.raise_signal(signal.SIGALRM)
        begun.add(steps)
        return one_epoch(steps, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Steps, "epoch", stopped)
        began = time.monotonic()
        assert main.main(["run", "--time-limit", "10m"]) == 0
    # It would have rung by itself, and so early that the tables are written within the limit.
    assert began < alarms[0] < began + 600 - 1
    assert len(alarms) == 1
    assert "shards are left; the same command goes on from here" in capsys.readouterr().out
    ends = [(one["status"], one["reason"]) for one in jobs.records(loading.planned(Path("config.yaml")))]
    assert ends[-1] == ("failed", "stopped: out of time")
    kept = stored(Path("results/store"))
    assert 0 < len(kept) < 9
    # By another cut, for another grid first, then all.
    assert main.main(["run", "--grids", "two", "--time-limit", "5m"]) == 0
    assert main.main(["run"]) == 0
    assert "small: 8 networks (8 trained), 24 estimates" in capsys.readouterr().out
    again = stored(Path("results/store"))
    assert {path: again[path] for path in kept} == kept

    other = tmp_path / "other"
    other.mkdir()
    shutil.copy("config.yaml", other)
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--cores", "2", "networks", "measures"]
    subprocess.run(command, cwd=other, check=True, capture_output=True)
    assert contents(results) == contents(other / results)

    # From the tables alone there is nothing left to do.
    before = contents(results)
    for name in ("store", "small/shards", "small/jobs"):
        shutil.rmtree(Path("results") / name)
    assert main.main(["run"]) == 0
    assert not Path("results/store").exists()
    assert contents(results) == before


def test_a_sample_grows_and_only_what_the_tables_lack_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(STUDY.replace("learning_rate: [0.1, 0.2]", "learning_rate: [0.1, 0.2, 0.3, 0.4]"))
    seen = [set()]
    for sample, trained in ((1, 4), (5, 8)):
        assert main.main(["run", "--sample", str(sample)]) == 0
        # Whole trajectories: three networks each in the first grid, one each in the second.
        assert f"{trained} trained" in capsys.readouterr().out
        networks = pd.read_parquet("results/small/networks.parquet")
        assert set(networks["device"].dropna()) == {f"cpu ({hardware.processor()})"}
        seen.append(set(networks["network_id"][networks["status"] == "trained"]))
        assert seen[-2] < seen[-1]
        shutil.rmtree("results/store")
    assert main.main(["run"]) == 0
    assert "14 networks (14 trained)" in capsys.readouterr().out
    # The store was lost twice; what the tables had by then is not in the third.
    again = {path.parent.name for path in Path("results/store").rglob("[0-9]*.safetensors")}
    plan = loading.planned(Path("config.yaml"))
    assert again == {one.trajectory_id for one in plan.networks if one.id not in seen[-1]}
    assert main.main(["run", "--sample", "0"]) == 2
    assert "--sample 0: should be a number of networks" in capsys.readouterr().err


def test_an_unknown_grid_and_a_device_that_is_not_there_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(STUDY)
    assert main.main(["run", "--grids", "on"]) == 2
    assert "--grids on: the study has no such grid; did you mean 'one'?" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main.main(["run", "--device", "cuda"]) == 2
    assert "torch finds no GPU here" in capsys.readouterr().err
    assert not Path("results/small/jobs").exists()
