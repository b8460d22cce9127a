"""Whatever happens to files of results: the same command ends well in one go, and the tables are what they were."""

import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tiny_study import ROOT, TABLES, assert_equal_tables, deltaball, snakemake, tables

from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.workflow import products


def test_a_study_heals_from_damage_to_any_file() -> None:
    damage = [sys.executable, str(ROOT / "benchmarks/damage.py"), "0.05", "1"]
    done = subprocess.run(damage, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b0 not healed", done.stdout)


def plan_of(folder: Path) -> Plan:
    return loading.planned(folder / "config.yaml")


def damaged(path: Path, draws: random.Random) -> None:
    content = path.read_bytes()
    match draws.choice(["cut", "emptied", "flipped", "a folder", "deleted"]):
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "flipped":
            place = draws.randrange(max(1, len(content)))
            path.write_bytes(
                content[:place] + bytes(one ^ 1 for one in content[place : place + 1]) + content[place + 1 :]
            )
        case "a folder":
            path.unlink()
            (path / "inside").mkdir(parents=True)
        case "deleted":
            path.unlink()


def test_one_run_heals_all_tables_and_the_parts_of_a_shard(copied: Path) -> None:
    results, draws = copied / "results/tiny", random.Random(0)
    whole = tables(copied)
    shard = next(iter(plan_of(copied).shards))
    for path in sorted([*results.glob("*.parquet"), *results.glob(f"shards/{shard}.*")]):
        damaged(path, draws)
    said = snakemake(copied, *TABLES)
    assert "networks.damaged, and made again" in said or not (results / "networks.damaged").exists()
    assert_equal_tables(tables(copied), whole)


def test_what_was_made_of_the_tables_is_removed_where_it_is_not_what_was_written(copied: Path) -> None:
    results, draws = copied / "results/tiny", random.Random(0)
    plan = replace(plan_of(copied), study=plan_of(copied).study.model_copy(update={"results": str(copied / "results")}))
    assert list(products.remove_damaged(plan)) == []
    made = sorted(
        path for pattern in ("tables/[!.]*", "figures/[!.]*", "*.md", "*.html") for path in results.glob(pattern)
    )
    assert len(made) > 40
    hit, spared = made[::2], made[1::2]
    before = {path: path.read_bytes() for path in spared}
    for path in hit:
        damaged(path, draws)
    said = list(products.remove_damaged(plan))
    for path in hit:
        assert not path.exists()
    assert {path: path.read_bytes() for path in spared} == before
    assert len(hit) / 2 < len(said) < len(hit)  # of what is gone, nothing is said


def test_tables_that_nothing_here_can_make_again_are_named_and_stay(copied: Path) -> None:
    results = copied / "results/tiny"
    shutil.rmtree(results / "shards")
    content = bytearray((results / "networks.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (results / "networks.parquet").write_bytes(content)
    for command in ("run", "redraw"):
        done = deltaball(copied, command)
        assert done.returncode == 2
        assert "networks.parquet is damaged (its checksum does not fit)" in done.stderr
        assert done.stderr.count("\n") == 1
    assert (results / "networks.parquet").read_bytes() == content


def test_a_table_in_the_place_of_another_is_no_such_table(copied: Path) -> None:
    results = copied / "results/tiny"
    shutil.copy(results / "curves.parquet", results / "robustness.parquet")
    assert (
        products.damage(results / "robustness.parquet", "robustness")
        == f"{results}/robustness.parquet holds another table"
    )
    assert products.damage(results / "curves.parquet", "curves") is None
