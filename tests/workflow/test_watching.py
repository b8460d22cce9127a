"""The one line that says how far a study is: from Snakemake's own words and from what is on disk, in any width."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import grid, planned

from deltaball.plan.plan import Plan
from deltaball.workflow import jobs
from deltaball.workflow.watching import IN_PLACE, Watch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    grids = [grid(name="one", width=[64, 128], learning_rate=[0.1, 0.01]), grid("cnn", name="two")]
    return planned(*grids, results=str(tmp_path), compute={"shard_minutes": 0.001})


def started(rule: str, job: int, shard: str = "") -> Iterator[str]:
    yield f"localrule {rule}:\n"
    yield f"    jobid: {job}\n"
    if shard:
        yield f"    wildcards: shard={shard}\n"


def ended(rule: str, job: int, step: int, steps: int) -> Iterator[str]:
    yield f"Finished jobid: {job} (Rule: {rule})\n"
    yield f"{step} of {steps} steps (5%) done\n"


def numbers(line: str) -> tuple[int, int, int]:
    return tuple(map(int, re.search(r"(\d+) of (\d+) networks trained, (\d+) measured", line).groups()))


def test_it_counts_checkpoints_as_they_come_and_shards_as_they_are_measured(plan: Plan, tmp_path: Path) -> None:
    store: set[tuple[str, int]] = set()
    watch = Watch(plan, lambda *place: place in store, Terminal(), tmp_path / "log")
    assert numbers(watch.line(200)) == (0, len(plan.networks), 0)
    shard = next(iter(plan.shards.values()))
    members = plan.networks_of(shard.trajectories)
    for line in started("train", 7, shard.id):
        watch.hear(line)
    store.add((members[0].trajectory_id, members[0].checkpoint))
    line = watch.line(200)
    assert line.startswith("training: ")
    assert numbers(line)[0] == 1
    store |= {(one.trajectory_id, one.checkpoint) for one in members}
    for line in (*ended("train", 7, 1, 9), *started("measure", 8, shard.id)):
        watch.hear(line)
    assert watch.line(200).startswith("measuring: ")
    assert numbers(watch.line(200))[2] == 0
    for line in ended("measure", 8, 2, 9):
        watch.hear(line)
    assert numbers(watch.line(200)) == (len(members), len(plan.networks), len(members))


def test_what_is_measured_again_does_not_count_until_it_is(plan: Plan, tmp_path: Path) -> None:
    for shard in plan.shards:
        for kind in jobs.PARTS.values():
            path = jobs.part(plan, shard, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    watch = Watch(plan, lambda *_: True, Terminal(), tmp_path / "log")
    shard = next(iter(plan.shards))
    for line in started("measure", 3, shard):
        watch.hear(line)
    trained, count, measured = numbers(watch.line(200))
    assert trained == count
    assert measured == count - len(plan.networks_of(plan.shards[shard].trajectories))


def test_when_networks_are_done_it_says_what_is_made_of_them(plan: Plan, tmp_path: Path) -> None:
    watch = Watch(plan, lambda *_: True, Terminal(), tmp_path / "log")
    watch.done["measure"] |= set(plan.shards)
    for line in (*started("analyse", 1), *started("figures", 2), *ended("analyse", 1, 19, 22)):
        watch.hear(line)
    assert watch.line(200).startswith("figures: step 19 of 22")
    for line in (*ended("figures", 2, 20, 22), *started("report", 4)):
        watch.hear(line)
    assert watch.line(20) == "the report"


@pytest.mark.parametrize("columns", [20, 30, 40, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_window(plan: Plan, tmp_path: Path, columns: int) -> None:
    watch = Watch(plan, lambda *_: False, Terminal(), tmp_path / "log")
    line = watch.line(columns)
    assert len(line) <= columns
    assert "trained" in line or columns < 60
    assert "left" in line or columns < 30


def test_snakemakes_words_go_to_the_file_and_ours_to_the_reader(plan: Plan, tmp_path: Path) -> None:
    terminal = Terminal()
    watch = Watch(plan, lambda *_: False, terminal, tmp_path / "logs/snakemake.log")
    said = ["Building DAG of jobs...\n", "deltaball: train of shard one failed: no disk\n"]
    for line in said:
        watch.hear(line)
    watch.tick()
    watch.close(failed=True)
    assert (tmp_path / "logs/snakemake.log").read_text() == "".join(said)
    shown = terminal.getvalue()
    assert "Building DAG" not in shown
    assert shown.startswith(IN_PLACE + said[1])
    assert shown.endswith(IN_PLACE)


def test_a_failure_that_nobody_explained_ends_with_snakemakes_last_lines(plan: Plan, tmp_path: Path) -> None:
    terminal = Terminal()
    watch = Watch(plan, lambda *_: False, terminal, tmp_path / "log")
    watch.hear("WorkflowError: something of Snakemake's own\n")
    watch.close(failed=True)
    assert "WorkflowError: something of Snakemake's own" in terminal.getvalue()
    assert str(tmp_path / "log") in terminal.getvalue()


def test_in_a_log_there_are_plain_lines_and_few(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    log = io.StringIO()
    watch = Watch(plan, lambda *_: False, log, tmp_path / "log")
    for clock[0] in range(0, 100, 2):
        watch.tick()
    watch.close()
    assert 2 <= log.getvalue().count("\n") <= 4
    assert "\r" not in log.getvalue()
    assert "\x1b" not in log.getvalue()


def test_the_time_that_is_left_follows_the_pace_of_the_run(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    store: set[tuple[str, int]] = set()
    watch = Watch(plan, lambda *place: place in store, Terminal(), tmp_path / "log")
    assert "about " in watch.line(200)
    for shard in list(plan.shards)[: len(plan.shards) // 2]:
        store |= {(one.trajectory_id, one.checkpoint) for one in plan.networks_of(plan.shards[shard].trajectories)}
        watch.done["train"].add(shard)
        watch.done["measure"].add(shard)
    clock[0] = 3600.0
    first = re.search(r", ([^,]+) left", watch.line(200))[1]
    clock[0] = 7200.0
    second = re.search(r", ([^,]+) left", watch.line(200))[1]
    assert int(first.split(" h")[0]) == pytest.approx(int(second.split(" h")[0]) / 2, abs=1)
    assert "about" not in first
