"""What is installed, in three places that must agree: pyproject.toml, envs/pins.txt, envs/deltaball.yaml."""

import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import deltaball

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(lines: list[str]) -> dict[str, str]:
    exact = dict(line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in exact.items()}


PINS = pins((ROOT / "envs/pins.txt").read_text().splitlines())
CONDA = yaml.safe_load((ROOT / "envs/deltaball.yaml").read_text())["dependencies"]


def test_every_dependency_is_pinned_within_its_range() -> None:
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)]), requirement


def test_the_conda_environment_holds_the_dependencies_at_the_pinned_versions() -> None:
    listed = pins(next(entry["pip"] for entry in CONDA if isinstance(entry, dict)))
    wanted = {canonicalize_name(Requirement(one).name) for one in PROJECT["dependencies"]}
    assert listed == {name: PINS[name] for name in wanted}


def test_the_conda_environments_python_is_one_that_the_project_allows() -> None:
    python = next(entry for entry in CONDA if isinstance(entry, str) and entry.startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python.removeprefix("python="))


def test_every_rule_that_runs_a_job_names_that_environment() -> None:
    for path in (ROOT / "rules").glob("*.smk"):
        text = path.read_text()
        assert text.count('"../envs/deltaball.yaml"') == text.count("    shell:") > 0


def test_the_citation_names_five_papers_and_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert len(citation["references"]) == 5
    assert citation["version"] == deltaball.__version__
