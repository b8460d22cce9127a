"""Which package imports which: `python docs/structure.py` counts and draws it beside this file.

A box per package, in the order of pyproject.toml. A package's imports leave its box to the right and come down into the
box of what is imported; the number says how many imports of modules these are.
"""

import csv
import tomllib
from collections import Counter
from pathlib import Path

import grimp
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
PACKAGE = "deltaball"
BOX_WIDTH, BOX_HEIGHT = 0.94, 0.56  # of a cell
LINE, DOT, BOX = "#9fb4c7", "#1f4e79", "#e8eef4"


def order() -> list[str]:
    """The packages from the top down; those that do not know each other are neighbours."""
    with (HERE.parent / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [name for layer in layers for name in layer.split(" | ")]


def imports() -> Counter[tuple[str, str]]:
    """How many times a module of one package imports a module of another one."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    counts: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            importer, target = (name.split(".")[1] if "." in name else "" for name in (module, imported))
            if importer in order() and target in order() and importer != target:
                counts[importer, target] += 1
    return Counter({pair: counts[pair] for pair in sorted(counts)})  # drawn in one order, so that one file comes out


def draw(names: list[str], counts: Counter[tuple[str, str]]) -> Figure:
    """The packages down a diagonal, so that an import upwards would lie below it."""
    figure = Figure(figsize=(12, 7.6), layout="constrained")
    axes = figure.add_subplot()
    place = {name: index for index, name in enumerate(names)}
    for name, at in place.items():
        _lines(axes, at, [place[target] for importer, target in counts if importer == name], "row")
        _lines(axes, at, [place[importer] for importer, target in counts if target == name], "column")
    for (importer, target), count in counts.items():
        x, y = place[target], place[importer]
        axes.scatter(x, y, s=150 + 14 * count, color=DOT, zorder=3)
        axes.text(x, y, str(count), ha="center", va="center", color="white", fontsize=8, zorder=4)
    for name, at in place.items():
        corner = at - BOX_WIDTH / 2, at - BOX_HEIGHT / 2
        axes.add_patch(mpl.patches.Rectangle(corner, BOX_WIDTH, BOX_HEIGHT, facecolor=BOX, edgecolor=DOT, zorder=2))
        axes.text(at, at, name, ha="center", va="center", fontsize=9, zorder=4)
    axes.text(
        0,
        len(names) - 1,
        "Each package imports those to its right.\n"
        "A number: how many times its modules\n"
        "import modules of the package below.",
        va="bottom",
        fontsize=10,
        linespacing=1.5,
    )
    axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(len(names) - 0.5, -0.5))
    axes.axis("off")
    return figure


def _lines(axes: Axes, at: int, others: list[int], side: str) -> None:
    """From a box to the furthest that it imports, or from the furthest that imports it down to the box."""
    if not others:
        return
    if side == "row":
        axes.plot([at, max(others)], [at, at], color=LINE, linewidth=1, zorder=1)
    else:
        tip = at - BOX_HEIGHT / 2
        arrow = {"arrowstyle": "-|>", "color": LINE, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (at, tip), (at, min(others)), arrowprops=arrow, zorder=1)


def main() -> None:
    names, counts = order(), imports()
    with (HERE / "structure.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["package", "imports", "times"])
        rows.writerows([*pair, counts[pair]] for pair in sorted(counts, key=lambda pair: tuple(map(names.index, pair))))
    # Text stays text, and nothing of the moment or the machine gets into the file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": PACKAGE, "font.family": "sans-serif"}):
        draw(names, counts).savefig(HERE / "structure.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
