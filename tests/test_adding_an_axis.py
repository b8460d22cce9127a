"""docs/adding-an-axis.md, executed: what it says to write is read from it, and what it promises is looked for."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from builders import study

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/adding-an-axis.md").read_text(encoding="utf-8")
GRID, SEED, TAPER = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
DIFFS = re.findall(r"```diff\n(.*?)```", PAGE, re.S)
# What a study's figures, tables and page say of its axes, in a process of its own: it may be another deltaball.
SEEN = """
import json, os, sys
from pathlib import Path
import pandas as pd
from synthetic_tables import write_tables
from deltaball.analysis import writing
from deltaball.figures import drawing
from deltaball.plan import loading
from deltaball.report import explorer
from deltaball.tables import frames
from deltaball.workflow import stages

plan = loading.planned(Path("config.yaml"))
write_tables(plan)
writing.write_tables(plan)
name = next(name for name in stages.figures(plan) if name.startswith("hyperparameters"))
stages.figures = lambda _: [name]
from deltaball.figures import style
use = style.use
def with_text():
    use()
    from matplotlib import rcParams
    rcParams["svg.fonttype"] = "none"
style.use = with_text
drawing.draw(plan)
networks, robustness = frames.load(plan)
measured, examples = frames.measured(networks, robustness), frames.load_examples(plan)
header = json.loads(explorer.explored(plan, networks, measured, examples)["header"])
print(json.dumps({
    "networks": {one.id: [one.axes, plan.trajectories[one.trajectory_id].parameters] for one in plan.networks},
    "axes": {one["name"]: one.get("levels") for one in header["axes"]},
    "figure": (plan.study.folder / "figures" / f"{name}.svg").read_text(),
    "folder": str(plan.study.folder),
}))
"""


def seen(folder: Path, package: Path, **added: Any) -> dict[str, Any]:
    """What comes out of the page's grid, with `added` keys, by the deltaball in `package`."""
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(study({**GRID, **added}, results="results")))
    paths = os.pathsep.join([str(package), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", SEEN],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def apply(diff: str, package: Path) -> None:
    """Apply a page's diff to a copy of the package, each hunk to the one place where it fits."""
    path = package / re.search(r"^\+\+\+ b/src/(.*)$", diff, re.M)[1]
    text = path.read_text(encoding="utf-8")
    for hunk in re.split(r"^@@.*\n", diff, flags=re.M)[1:]:
        lines = hunk.splitlines(keepends=True)
        before, after = ("".join(one[1:] for one in lines if one[0] in kinds) for kinds in (" -", " +"))
        assert text.count(before) == 1, f"{path.name} has changed; so must the page:\n{before}"
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")


def check(found: dict[str, Any], plain: dict[str, Any], folder: Path, axis: str, levels: list[Any]) -> None:
    """What the page promises of an axis."""
    assert len(found["networks"]) == len(levels) * len(plain["networks"])
    assert plain["networks"].keys() < found["networks"].keys()
    assert found["axes"][axis] == levels
    assert axis not in plain["axes"]
    assert f">{axis}</text>" in found["figure"]
    assert f">{axis}</text>" not in plain["figure"]
    table = pd.read_parquet(folder / found["folder"] / "networks.parquet")
    assert sorted(table[axis].unique()) == levels
    terms = set(pd.read_csv(folder / found["folder"] / "tables/regressions.csv")["term"])
    assert terms & {axis, *(f"{axis}: {level}" for level in levels)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return seen(tmp_path_factory.mktemp("plain") / "study", ROOT / "src")


def test_one_line_adds_an_axis_that_the_code_has(tmp_path: Path, plain: dict[str, Any]) -> None:
    assert len(plain["networks"]) == 8
    found = seen(tmp_path / "study", ROOT / "src", **SEED)
    assert len(found["networks"]) == 32
    check(found, plain, tmp_path / "study", "seed", SEED["seed"])


def test_one_field_and_one_use_add_an_axis_that_the_code_lacks(tmp_path: Path, plain: dict[str, Any]) -> None:
    package = tmp_path / "src"
    shutil.copytree(ROOT / "src/deltaball", package / "deltaball", ignore=shutil.ignore_patterns("__pycache__"))
    for diff in DIFFS:
        apply(diff, package)
    found = seen(tmp_path / "study", package, **TAPER)
    check(found, plain, tmp_path / "study", "taper", sorted(TAPER["taper"]))
    sizes = {(axes["width"], axes["taper"]): parameters for axes, parameters in found["networks"].values()}
    assert sizes[64, 1.0] == 784 * 64 + 64 + 64 * 64 + 64 + 64 * 10 + 10
    assert sizes[64, 0.5] == 784 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10
    assert TAPER == {"taper": [1.0, 0.5]}
