"""From the tables of a study to its pictures."""

from deltaball import stages, tables
from deltaball.figures import style
from deltaball.plan import Plan


def draw(plan: Plan) -> None:
    """Draw every figure of a study to ``figures/`` as PNG and SVG, each with the CSV of what it shows."""
    style.use()
    # pyplot reads the backend when it is imported, so the figures come after the style.
    from deltaball.figures import pruning, tradeoff

    kinds = {"tradeoff": tradeoff.draw, "pruning": pruning.draw}

    networks, robustness = tables.load(plan)
    measured = tables.measured(networks, robustness)
    for name in stages.figures(plan):
        kinds[name.partition("_")[0]](name, networks, measured, plan.study.folder / "figures")
