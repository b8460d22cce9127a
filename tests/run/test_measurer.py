"""Measuring says how far it is: what of all outcomes there is, and what the rest takes."""

import io
from pathlib import Path

import pytest
from builders import grid, planned, planned_few

from deltaball.base import reporting
from deltaball.local.corruptions import corrupted
from deltaball.plan.plan import Plan
from deltaball.run import devices, measurer, work
from deltaball.run.measurer import MeasuringProgress
from deltaball.study.corruptions import FIFTEEN
from deltaball.workflow import jobs


def test_the_time_left_is_by_what_outcomes_of_each_measure_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    for module in (reporting, measurer):
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    cheap, dear = planned(
        grid(), measures=[{"notion": "class_change", "delta": 0.1, "attack": ["fgsm", "pgd"]}]
    ).measures
    out = io.StringIO()
    progress = MeasuringProgress({cheap: 1000, dear: 1000}, {cheap: 0.001, dear: 0.999}, out)
    assert progress.line() == "0 of 2,000 outcomes measured"
    now[0] = 10.0
    progress(cheap, 1000)
    assert progress.line() == "1,000 of 2,000 outcomes measured"  # which says little of the rest
    now[0] = 60.0
    progress(dear, 250)
    assert progress.line() == "1,250 of 2,000 outcomes measured, 2 min 59 s left"
    assert out.getvalue() == f"{progress.line()}\n"


def test_every_outcome_is_counted_whoever_settles_it(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [{"notion": "class_change", "delta": [0.01, 0.1], "attack": "fgsm", "certificate": ["crown", "exact"]}]
    few = grid(width=[16, 32], activation="relu", batch_size=32, epochs=1)
    plan = planned_few(data_folder, few, measures=asked, results=str(tmp_path))
    (shard,) = plan.shards.values()
    for stage, do in (("train", work.train), ("measure", work.measure)):
        with jobs.recorded(plan, stage, shard) as job, devices.ready(job):
            do(job, tries_left=0)
    count = 2 * 2 * 3 * plan.measures[0].samples
    said = capsys.readouterr().out
    assert f"{count} of {count} outcomes measured, 0 s left" in said
    assert f"computed {count} outcomes" in said


def test_a_job_tells_what_each_judge_took_of_each_network(data_folder: Path, tmp_path: Path) -> None:
    few = grid(width=[16, 32], activation="relu", batch_size=32, epochs=1)
    asked = [{"notion": "class_change", "delta": [0.01, 0.1], "attack": "fgsm", "certificate": ["crown", "exact"]}]
    further = {"notion": "class_change", "delta": 0.1, "attack": "pgd"}
    told = []
    for measures in (asked, [*asked, further], [*asked, further]):
        plan = planned_few(data_folder, few, measures=measures, results=str(tmp_path))
        (shard,) = plan.shards.values()
        for stage, do in (("train", work.train), ("measure", work.measure)):
            with jobs.recorded(plan, stage, shard) as job, devices.ready(job):
                do(job, tries_left=0)
        told.append([one for one in jobs.records(plan) if one["stage"] == "measure"][-1])
        assert [one["judging"] for one in jobs.records(plan) if one["stage"] == "train"] == [{}] * len(told)
    first, second, third = (one["judging"] for one in told)
    by_name = {one.name: one.samples for one in plan.measures}
    ids = {network.id for network in plan.networks}
    assert set(first) == {name for name in by_name if not name.endswith("pgd")}
    assert set(second) == set(by_name) - set(first)  # what is kept takes nothing
    assert third == {}
    for name, members in {**first, **second}.items():
        assert set(members) == ids
        assert {points for points, _ in members.values()} == {by_name[name]}
    # Parts of the whole: no search is counted twice.
    parts = [seconds for members in first.values() for _, seconds in members.values()]
    assert 0 < sum(parts) <= told[0]["device_seconds"] + 0.01


def test_networks_measured_later_are_shown_what_is_kept(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [{"notion": "classification", "perturbation": "mnist_c"}]
    first, second = (
        planned_few(
            data_folder,
            grid(width=width, activation="relu", batch_size=32, epochs=1),
            measures=asked,
            results=str(tmp_path),
        )
        for width in (16, 32)
    )

    def measured(plan: Plan) -> None:
        (shard,) = plan.shards.values()
        for stage, do in (("train", work.train), ("measure", work.measure)):
            with jobs.recorded(plan, stage, shard) as job, devices.ready(job):
                do(job, tries_left=0)

    measured(first)
    folder = tmp_path / "store" / "corrupted"
    assert sorted(path.name.partition("-")[0] for path in folder.iterdir()) == sorted(FIFTEEN)
    monkeypatch.setattr(corrupted, "implementation", None)  # no image can be corrupted any more
    measured(second)
