"""From the tables of a study to its statistics. Reads tables alone, never a network."""

from deltaball import jobs, tables
from deltaball.analysis.bayes import bayes
from deltaball.analysis.completeness import completeness, monotonicity
from deltaball.analysis.convergence import spread
from deltaball.analysis.correlations import correlations
from deltaball.analysis.enclosures import enclosures
from deltaball.analysis.pruning import in_range, pruning_effects, pruning_tests
from deltaball.analysis.regressions import regressions
from deltaball.analysis.scorecard import scorecard, write_json
from deltaball.plan import Plan


def write_tables(plan: Plan) -> None:
    """Write every statistical table of a study to ``tables/*.csv``."""
    networks, robustness = tables.load(plan)
    curves, draws = tables.load_curves(plan)
    measured = tables.measured(networks, robustness)
    settings, scattered = plan.study.analysis, spread(networks, draws)
    claims = scorecard(measured, scattered, settings.equivalence_margin, plan.study.guarantee.confidence)
    written = {
        "scorecard": claims,
        "completeness": completeness(networks, robustness),
        "correlations": correlations(measured),
        "regressions": regressions(measured),
        "monotonicity": monotonicity(measured),
        "pruning": pruning_effects(in_range(measured), settings.equivalence_margin),
        "pruning_tests": pruning_tests(in_range(measured)),
        "bayes": bayes(measured),
        "enclosures": enclosures(networks, robustness, curves),
        "convergence": scattered,
        "jobs": tables.jobs(jobs.records(plan)),
    }
    folder = plan.study.folder / "tables"
    for name, table in written.items():
        tables.write_csv(table, folder / f"{name}.csv")
    write_json(claims, folder / "scorecard.json")
