"""Parts of tables that are not what they should be: named, removed, and made again from the store in the same run."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from builders import grid, planned_few
from tiny_study import FCN, TABLES, TINY, assert_equal_tables, networks_trained, snakemake, tables, write_study

from deltaball.base.errors import InputError
from deltaball.plan.plan import Plan
from deltaball.run import devices, rows, work
from deltaball.tables import frames
from deltaball.workflow import jobs, parts

STUDY = {
    **TINY,
    "measures": TINY["measures"][:1],
    "grids": [
        {**FCN, "width": 8, "activation": "relu", "epochs": [1, 2]},
        {**FCN, "name": "second", "width": 16, "activation": "relu", "epochs": [1, 2]},
    ],
}


def cut(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path, _: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


def swapped(path: Path, other: Path) -> None:
    shutil.copy(other, path)


def a_folder(path: Path, _: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").touch()


DAMAGES = [cut, empty, flipped, swapped, a_folder]


@pytest.fixture(scope="module")
def plan(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Two shards, trained and measured."""
    grids = [grid(name=name, width=width, batch_size=32, epochs=[1, 2]) for name, width in (("a", 16), ("b", 32))]
    found = planned_few(data_folder, *grids, results=str(tmp_path_factory.mktemp("results")))
    for shard in found.shards.values():
        for stage, do in (("train", work.train), ("measure", work.measure)):
            with jobs.recorded(found, stage, shard) as job, devices.ready(job):
                do(job, tries_left=0)
    return found


@pytest.fixture
def both(plan: Plan, tmp_path: Path) -> tuple[Plan, list[str]]:
    """A copy of its results, to be damaged, and the ids of its shards."""
    shutil.copytree(plan.study.folder, tmp_path / plan.study.study)
    results = plan.study.model_copy(update={"results": str(tmp_path)})
    copy = replace(plan, study=results)
    return copy, list(copy.shards)


def test_what_a_job_left_is_what_it_should_be(plan: Plan) -> None:
    assert [parts.problem(plan, shard, kind) for shard in plan.shards.values() for kind in parts.KINDS] == [None] * 6
    assert list(parts.remove_damaged(plan)) == []


def test_no_byte_of_a_part_can_change_unnoticed(both: tuple[Plan, list[str]]) -> None:
    plan, (first, _) = both
    path = jobs.part(plan, first, "measured")
    whole = path.read_bytes()
    for place in range(0, len(whole), 11):
        content = bytearray(whole)
        content[place] ^= 1
        path.write_bytes(content)
        assert str(path) in parts.problem(plan, plan.shards[first], "measured")


@pytest.mark.parametrize("kind", parts.KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_removed(both: tuple[Plan, list[str]], kind: str, damage: Callable) -> None:
    plan, (first, second) = both
    path = jobs.part(plan, first, kind)
    damage(path, jobs.part(plan, second, kind))
    (said,) = parts.remove_damaged(plan)
    assert str(path) in said
    assert said.endswith("; it is made again")
    assert not path.exists()


def test_collecting_takes_no_rows_of_another_shard(
    both: tuple[Plan, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    plan, (first, second) = both
    shutil.copy(jobs.part(plan, second, "measured"), jobs.part(plan, first, "measured"))
    with pytest.raises(InputError, match=rf"{first}\.measured\.parquet is not there"):
        rows.collect_robustness(plan)
    assert f"holds the part measured of shard {second}; it is made again" in capsys.readouterr().out


def test_parts_of_an_earlier_version_are_accepted_unless_they_are_another_shards(
    both: tuple[Plan, list[str]],
) -> None:
    plan, (first, second) = both
    path, other = (jobs.part(plan, shard, "trained") for shard in (first, second))
    for one in (path, other):
        pd.read_parquet(one).to_parquet(one, index=False)
    assert list(parts.remove_damaged(plan)) == []
    shutil.copy(other, path)
    (said,) = parts.remove_damaged(plan)
    assert "holds networks of another shard" in said


def test_a_part_of_another_question_is_older_than_its_input(both: tuple[Plan, list[str]]) -> None:
    plan, (first, _) = both
    study = plan.study.model_copy(update={"guarantee": plan.study.guarantee.model_copy(update={"seed": 7})})
    assert list(parts.remove_damaged(replace(plan, study=study))) == []
    assert jobs.part(plan, first, "measured").stat().st_mtime == 0
    assert jobs.part(plan, first, "trained").stat().st_mtime > 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder, STUDY)
    snakemake(folder, *TABLES)
    return folder


@pytest.mark.parametrize("damage", [swapped, a_folder])
def test_snakemake_makes_damaged_parts_again_and_ends_with_equal_tables(finished: Path, damage: Callable) -> None:
    before, results = tables(finished), finished / "results/tiny"
    shutil.rmtree(results / "logs")
    for name in ("networks", "robustness", "outcomes"):
        (results / f"{name}.parquet").unlink()
    for kind in parts.KINDS:
        path, other = sorted((results / "shards").glob(f"*.{kind}.parquet"))
        damage(path, other)
    output = snakemake(finished, *TABLES)
    assert len(re.findall(r"^deltaball: .*it is made again", output, re.M)) == len(parts.KINDS)
    assert_equal_tables(tables(finished), before)
    assert networks_trained(finished) == 0
    assert frames.read(results / "robustness.parquet")["network_id"].nunique() == 8
