"""The tables in the repository: complete, of the paper's networks, and all that its figures and report need."""

import base64
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from deltaball.data.catalogue import CATALOGUE
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.run import merging, pieces
from deltaball.tables import frames
from deltaball.workflow import jobs, stages

ROOT = Path(__file__).parents[1]
STUDY = "studies/small-paper.yaml"
RESULTS = Path("results/small-paper")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the study file and its tables, and nothing else that a run leaves."""
    (tmp_path / RESULTS).mkdir(parents=True)
    for path in [
        *(ROOT / RESULTS).glob("*.parquet"),
        ROOT / RESULTS / jobs.MERGED_RECORDS,
        ROOT / RESULTS / "PROVENANCE.md",
    ]:
        shutil.copy(path, tmp_path / RESULTS)
    (tmp_path / "studies").mkdir()
    for name in ("small-paper.yaml", "paper.yaml"):
        shutil.copy(ROOT / "studies" / name, tmp_path / "studies")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plan(clone: Path) -> Plan:
    return loading.planned(Path(STUDY))


def test_every_planned_network_is_trained_and_measured_on_the_catalogues_data(plan: Plan) -> None:
    networks, _ = frames.load(plan)
    assert len(networks) >= 200
    assert set(networks["status"]) <= {"trained", "diverged"}
    assert merging.lacking(plan, pieces.of_folder(plan.study.folder)) == set()
    for name, members in networks.groupby("dataset"):
        assert set(members["data_sha256"]) == {CATALOGUE[name].fingerprint}


def test_its_networks_are_the_papers(plan: Plan) -> None:
    paper = {one.id: one.grid for one in loading.planned(Path("studies/paper.yaml")).networks}
    assert all(paper.get(one.id) == one.grid for one in plan.networks if one.grid != "seeds")


def test_the_provenance_counts_the_rows_that_are_there(plan: Plan) -> None:
    page = (plan.study.folder / "PROVENANCE.md").read_text()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")
    ]
    heads = next(row for row in cells if "estimates" in row)
    grid_of = {one.id: one.grid for one in plan.networks}
    found = {
        name: pd.read_parquet(plan.study.folder / f"{name}.parquet", columns=["network_id"]) for name in heads[8:11]
    }
    found |= {
        name: pd.read_parquet(plan.study.folder / f"{table}.parquet", columns=["network_id"])
        for name, table in (("networks", "networks"), ("estimates", "robustness"))
    }
    for grid in [*(one.name for one in plan.study.grids), "all"]:
        row = dict(zip(heads, next(row for row in cells if row[0] == grid and len(row) == len(heads)), strict=True))
        for name, table in found.items():
            there = table["network_id"].map(grid_of)
            assert int(row[name].replace(",", "")) == (len(there) if grid == "all" else (there == grid).sum()), (
                grid,
                name,
            )
    assert "No network is missing" in page
    assert re.search(r"git commit \| [0-9a-f]{40} \(", page)
    assert "-dirty" not in page


def test_everything_is_redrawn_from_the_tables_and_nothing_is_trained(clone: Path, plan: Plan) -> None:
    before = {path.name: path.read_bytes() for path in (clone / RESULTS).glob("*.parquet")}
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--cores", "1", "--configfile", STUDY]
    dry = subprocess.run([*command, "-n", "figures", "report"], capture_output=True, text=True, check=True).stdout
    counts = dict(re.findall(r"^(\w+) +(\d+)$", dry, re.M))
    assert counts == {"analyse": "1", "figures": "1", "report": "1", "total": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "deltaball", "redraw", "--study", STUDY],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in stages.figures(plan):
        assert (clone / RESULTS / f"figures/{name}.png").stat().st_size > 10_000
    page = (clone / RESULTS / "report.html").read_text()
    assert "No network is missing" in page
    assert len(pd.read_csv(clone / RESULTS / "tables/jobs.csv")) == len(jobs.records(plan)) > 0
    assert {path.name: path.read_bytes() for path in (clone / RESULTS).glob("*.parquet")} == before
    assert not (clone / "results/store").exists()
    assert not (clone / RESULTS / "shards").exists()
    # What the repository ships is what its code makes of its tables; pixels may differ in their last bits.
    shipped, redrawn = (statistics_and_figures(folder / RESULTS) for folder in (ROOT, clone))
    assert redrawn == shipped
    for name in shipped:
        if name.suffix == ".csv":
            same_numbers(*(pd.read_csv(folder / RESULTS / name, low_memory=False) for folder in (ROOT, clone)), name)


def test_the_page_that_is_shipped_holds_the_tables_that_are(clone: Path) -> None:
    page = (ROOT / RESULTS / "report.html").read_text()
    packed = re.findall(r'id="table-(\w+)".*?<script type="application/octet-stream">([^<]*)</script>', page, re.S)
    tables = {name: json.loads(gzip.decompress(base64.b64decode(content))) for name, content in packed}
    assert set(tables) == set(stages.TABLES)
    for name, held in tables.items():
        shown = io.StringIO(pd.DataFrame(held["rows"], columns=held["columns"]).to_csv(index=False))
        shipped = pd.read_csv(ROOT / RESULTS / f"tables/{name}.csv", low_memory=False)
        same_numbers(pd.read_csv(shown, low_memory=False), shipped, name)


def statistics_and_figures(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for kind in ("tables", "figures") for path in (folder / kind).glob("[!.]*"))


def same_numbers(old: pd.DataFrame, new: pd.DataFrame, name: object) -> None:
    """The same table but for last digits, which depend on the processor; an axis may have been added since."""
    assert set(old) <= set(new), name
    pd.testing.assert_frame_equal(old, new[list(old)], rtol=1e-4, atol=1e-9, check_dtype=False, obj=str(name))


def test_the_tables_are_small_enough_for_a_repository(clone: Path) -> None:
    assert sum(path.stat().st_size for path in (clone / RESULTS).iterdir()) < 15e6
