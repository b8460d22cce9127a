"""docs/adding-an-attack.md, executed: what it says to write is read from it, and what it promises is looked for."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from builders import grid, study
from test_adding_an_axis import apply

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/adding-an-attack.md").read_text(encoding="utf-8")
(DIFF,) = re.findall(r"```diff\n(.*?)```", PAGE, re.S)
FILE, CLASS = re.search(r"`src/(\S+)`:\n\n```python\n(.*?)```", PAGE, re.S).groups()
MEASURES, REFUSED = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
NETWORKS = 4
# What statistics and captions make of the attack, in a process of its own: it is another deltaball.
SEEN = """
import json
from pathlib import Path
import pandas as pd
from deltaball.analysis import judges
from deltaball.figures import style
from deltaball.plan import loading
from deltaball.plan.judging import passes
from deltaball.tables import frames

plan = loading.planned(Path("config.yaml"))
networks, robustness = frames.load(plan)
attacks = robustness["attack"].dropna()
shown = judges.judged(frames.measured(networks, robustness)).groupby("notion")["attack"].unique()
print(json.dumps({
    "strength": sorted(attacks.unique(), key=judges.strength),
    "judged": sorted(shown.map(list).items()),
    "caption": judges.joined(attacks),
    "look": style.judge("random_search"),
    "passes": {one.name: passes(one, plan.layers(plan.networks[0])) for one in plan.measures},
}))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with the page's attack."""
    package = tmp_path_factory.mktemp("with-the-attack")
    shutil.copytree(ROOT / "src/deltaball", package / "deltaball", ignore=shutil.ignore_patterns("__pycache__"))
    (package / FILE).write_text(CLASS, encoding="utf-8")
    apply(DIFF, package)
    return package


def python(package: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def written(folder: Path, data: Path, measures: list[dict]) -> Path:
    few = {"width": 16, "learning_rate": [0.1, 0.05], "seed": [0, 1], "batch_size": 32, "epochs": 4}
    guarantee = {"epsilon": 0.25, "confidence": 0.95}
    folder.mkdir(exist_ok=True)
    content = study(
        grid(dataset="few", **few), data=str(data), guarantee=guarantee, measures=measures, results="results"
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def measured(package: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which a study was run, and what was said of its plan."""
    folder = written(tmp_path_factory.mktemp("study"), data_folder, MEASURES)
    said = [python(package, folder, "-m", "deltaball", *command) for command in (("plan",), ("data", "few"), ("run",))]
    for done in said:
        assert done.returncode == 0, done.stdout + done.stderr
    return folder, said[0].stdout


def test_the_plan_says_what_it_will_judge(measured: tuple[Path, str]) -> None:
    assert f"measure: class_change in linf of δ = 0.1 by random_search-20: {NETWORKS} networks" in measured[1]
    assert f"measure: softmax_variation in linf of δ = 0.1 by random_search: {NETWORKS} networks" in measured[1]


def test_its_rows_are_in_the_tables(measured: tuple[Path, str]) -> None:
    results = measured[0] / "results/test"
    table = pd.read_parquet(results / "robustness.parquet")
    names = ["random_search-20", "fgsm", "random_search", None]
    assert [table["attack"].fillna("").tolist().count(name or "") for name in names] == [NETWORKS] * 4
    rows = table[table["attack"].fillna("").str.startswith("random_search")]
    assert set(zip(rows["notion"], rows["side"], strict=True)) == {
        ("class_change", "upper"),
        ("softmax_variation", "lower"),
    }
    outcomes = pd.read_parquet(results / "outcomes.parquet").set_index(["network_id", "measure"])["values"]
    for network in table["network_id"].unique():
        certified = outcomes[network, "class_change_linf_0.1_crown"]
        assert (certified <= outcomes[network, "class_change_linf_0.1_random_search-20"]).all()
    # It finds something, or the comparison above would say nothing.
    varied = rows.loc[rows["notion"] == "softmax_variation", "estimate"]
    assert (varied > 0.005).all()
    curves = pd.read_parquet(results / "curves.parquet")
    both = curves[curves["notion"] == "class_change"]
    assert both[["attacked", "certified"]].notna().all(axis=None)


def test_statistics_and_captions_know_it(measured: tuple[Path, str], package: Path) -> None:
    done = python(package, measured[0], "-c", SEEN)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["strength"] == ["random_search-20", "random_search", "fgsm"]
    assert seen["judged"] == [["class_change", ["fgsm"]], ["softmax_variation", ["random_search"]]]
    assert seen["caption"] == "random search-20, random search and FGSM"
    assert seen["passes"]["class_change_linf_0.1_random_search-20"] == 21
    assert seen["look"]
    analysed = python(package, measured[0], "-m", "deltaball", "analyse")
    assert analysed.returncode == 0, analysed.stderr
    assert (measured[0] / "results/test/tables/scorecard.csv").exists()


def test_what_it_cannot_judge_is_refused_by_name(package: Path, data_folder: Path, tmp_path: Path) -> None:
    done = python(package, written(tmp_path / "refused", data_folder, REFUSED), "-m", "deltaball", "plan")
    assert done.returncode == 2
    assert "attack 'random_search' cannot judge margin: it is a distance" in done.stderr


def test_it_is_tested_by_being_there(package: Path) -> None:
    tests = ["tests/local/test_every_judge.py", "-k", "(found or alone or serves) and (fcn-relu or serves)"]
    done = python(package, ROOT, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout
    wrong = (
        (package / FILE)
        .read_text(encoding="utf-8")
        .replace('"random search", key, draw', '"random search", id(points), draw')
    )
    broken = package.with_name(f"{package.name}-broken")
    shutil.copytree(package, broken, ignore=shutil.ignore_patterns("__pycache__"))
    (broken / FILE).write_text(wrong, encoding="utf-8")
    done = python(broken, ROOT, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 1
    assert "AssertionError: random_search" in done.stdout
