"""The packages import downwards only, and no two modules import each other, however long the way around."""

import ast
import csv
import re
import tomllib
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

PACKAGE = "deltaball"
MOST_LINES = 450


@pytest.fixture(scope="module")
def order(root: Path) -> list[str]:
    """The packages, from the ground up, as pyproject.toml has them."""
    with (root / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one["type"] == "layers")
    return [name for line in reversed(layers) for name in sorted(line.split(" | "))]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(PACKAGE, exclude_type_checking_imports=True)


def test_packages_import_downwards_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


def test_every_package_has_its_place(graph: grimp.ImportGraph, order: list[str]) -> None:
    packages = {name.removeprefix(f"{PACKAGE}.") for name in graph.find_children(PACKAGE)}
    assert packages - {"__main__"} == set(order)


def test_no_modules_import_each_other(graph: grimp.ImportGraph) -> None:
    visited: set[str] = set()

    def follow(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' -> '.join([*way[way.index(module) :], module])}"
        if module in visited:
            return
        for other in sorted(graph.find_modules_directly_imported_by(module)):
            follow(other, (*way, module))
        visited.add(module)

    for module in sorted(graph.modules):
        follow(module, ())


def test_faces_are_empty_and_files_short(root: Path) -> None:
    for path in (root / "src" / PACKAGE).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= MOST_LINES, f"{path} is longer than {MOST_LINES} lines"
        if path.name == "__init__.py" and path.parent.name != PACKAGE:
            assert not ast.parse(text).body, f"{path}: the face of a package is empty"


def test_the_readme_tells_the_same_order(root: Path, order: list[str]) -> None:
    page = (root / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.M)[: len(order)] == order


def test_the_picture_shows_the_imports_that_are_there(root: Path, graph: grimp.ImportGraph, order: list[str]) -> None:
    direct = {
        (importer.split(".")[1], imported.split(".")[1])
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if {PACKAGE, f"{PACKAGE}.__main__"}.isdisjoint((importer, imported))
    }
    with (root / "docs/structure.csv").open(newline="") as file:
        drawn = {(row["package"], row["imports"]) for row in csv.DictReader(file)}
    assert drawn == {pair for pair in direct if len(set(pair)) == 2}, "run `python docs/structure.py`"
    picture = (root / "docs/structure.svg").read_text(encoding="utf-8")
    assert all(f">{name}</text>" in picture for name in order)


def test_tests_use_no_private_names(root: Path) -> None:
    """What ruff's SLF001 does not see: names that are imported, and names that are patched."""
    for path in (root / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
                names = [one.value for one in node.args[1:2] if isinstance(one, ast.Constant)]
            assert not [name for name in names if name.startswith("_")], f"{path}, line {node.lineno}"
