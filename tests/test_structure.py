"""The rooms import downwards only: each from floors below, and on its own floor from rooms named before it."""

import ast
from itertools import chain
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src/deltaball"
FLOORS = [
    ["errors", "files", "guarantees", "catalogue", "architectures", "study", "study_file"],
    ["costs", "plan", "resources", "jobs", "stages", "datasets", "packs", "store", "tables"],
    ["local.notions", "local.neighbourhoods", "local.attacks", "local.certificates", "local.exact"],
    [
        "training.objectives",
        "training.progress",
        "training.steps",
        "training.ways",
        "training.sgd",
        "training.pruning",
        "training.diagnostics",
        "training.hmc",
    ],
    ["estimation.intervals", "estimation.estimate", "estimation.curves", "estimation.convergence"],
    [
        "analysis.groups",
        "analysis.multiplicity",
        "analysis.clustered",
        "analysis.designs",
        "analysis.points",
        "analysis.judges",
        "analysis.pruning",
        "analysis.completeness",
        "analysis.correlations",
        "analysis.regressions",
        "analysis.mixed",
        "analysis.partial",
        "analysis.learned",
        "analysis.importances",
        "analysis.replicates",
        "analysis.diagnostics",
        "analysis.bayes",
        "analysis.enclosures",
        "analysis.convergence",
        "analysis.claims",
        "analysis.scorecard",
        "analysis",
        "figures.style",
        "figures.panels",
        "figures.pruning",
        "figures.tradeoff",
        "figures.bayes",
        "figures.chains",
        "figures.enclosure",
        "figures.convergence",
        "figures.paper",
        "figures.hyperparameters",
        "figures.diagnostics",
        "figures",
        "report.packed",
        "report.reading",
        "report.summaries",
        "report.provenance",
        "report.explorer",
        "report",
    ],
    [
        "devices",
        "launch",
        "preview",
        "sampling",
        "work",
        "calibration",
        "running",
        "merging",
        "provenance",
        "cli",
        "__main__",
    ],
]
# Training and estimation stand on one floor and do not know each other.
STRANGERS = {"training": "estimation", "estimation": "training"}


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts).removesuffix("__init__").rstrip(".")] = ast.parse(path.read_text())
    return found


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "deltaball":
            inside = node.module.removeprefix("deltaball").lstrip(".")
            members = {f"{inside}.{alias.name}".lstrip(".") for alias in node.names}
            names |= members if members & set(chain(*FLOORS)) else {inside}
        elif isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("deltaball.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


def test_every_room_has_a_floor() -> None:
    faces = {"", "local", "training", "estimation"}  # packages' faces that hold no code
    assert set(modules()) - faces == set(chain(*FLOORS))
    for face in faces:
        assert all(isinstance(node, ast.Expr | ast.Assign) for node in modules()[face].body)


def test_rooms_import_downwards_only() -> None:
    order = list(chain(*FLOORS))
    position = {name: index for index, name in enumerate(order)}
    for name, tree in modules().items():
        for other in (imported(tree) & set(order)) - {name}:
            assert position[other] < position[name], f"{name} imports {other}"
            assert STRANGERS.get(name.split(".")[0]) != other.split(".")[0], f"{name} imports {other}"


def test_statistics_and_pictures_know_no_network() -> None:
    heavy = {"torch", "keras", "jax"}
    for name, tree in modules().items():
        if name.split(".")[0] in ("analysis", "figures", "report"):
            direct = {
                alias.name.split(".")[0]
                for node in ast.walk(tree)
                if isinstance(node, ast.Import)
                for alias in node.names
            }
            assert not direct & heavy
            assert not {other.split(".")[0] for other in imported(tree)} & {"packs", "local", "training", "estimation"}
