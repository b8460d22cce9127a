"""From the tables of a study to its statistics. Reads tables alone, never a network."""

from deltaball.analysis.bayes import bayes
from deltaball.analysis.choices import choices, settled
from deltaball.analysis.comparison import comparison
from deltaball.analysis.completeness import completeness, monotonicity
from deltaball.analysis.convergence import spread
from deltaball.analysis.correlations import correlations
from deltaball.analysis.corruptions import corruptions, errors
from deltaball.analysis.diagnostics import diagnostics
from deltaball.analysis.distances import cumulative, distances
from deltaball.analysis.enclosures import enclosures
from deltaball.analysis.groups import Groups
from deltaball.analysis.importances import importances
from deltaball.analysis.judges import worst_cases
from deltaball.analysis.learned import learned
from deltaball.analysis.metrics import metrics
from deltaball.analysis.misses import misses
from deltaball.analysis.mixed import mixed
from deltaball.analysis.overestimates import overestimates, points
from deltaball.analysis.partial import partial_correlations
from deltaball.analysis.points import SharedPoints
from deltaball.analysis.pruning import in_range, pruning_effects, pruning_tests
from deltaball.analysis.regressions import regressions
from deltaball.analysis.replicates import replicates
from deltaball.analysis.scorecard import scorecard, write_json
from deltaball.analysis.scores import scores
from deltaball.analysis.settling import settling
from deltaball.plan.plan import Plan
from deltaball.tables import frames
from deltaball.workflow import jobs, stages


def write_tables(plan: Plan) -> None:
    """Write every statistical table of a study to ``tables/*.csv``."""
    networks, robustness = frames.load(plan)
    curves, draws = frames.load_curves(plan)
    distinct = frames.distinct(networks, robustness)
    every = frames.measured(distinct, robustness)
    measured = worst_cases(every)
    groups = Groups(measured)
    lists = frames.load_outcomes(plan)
    shared = None if lists is None else SharedPoints(lists)
    records = jobs.records(plan)
    settings, scattered = plan.study.analysis, spread(networks, draws)
    # Trainings are compared at the values that were chosen; trends and hyper-parameters are of all networks.
    chosen = choices(networks, plan)
    compared = settled(every, chosen)
    near = distances(compared, lists, settings.within)
    scored, under = scores(compared, plan), corruptions(compared, plan)
    by_corruption = errors(under, settings.reference)
    side_by_side = comparison(compared, scored, by_corruption, plan)
    claims = scorecard(
        compared,
        scattered,
        settings.equivalence_margin,
        plan.study.guarantee.confidence,
        plan.study.paper,
        near,
        side_by_side,
        under,
        lists,
    )
    written = {
        "scorecard": claims,
        "completeness": completeness(networks, distinct, robustness),
        "correlations": correlations(groups),
        "regressions": regressions(groups, {name: one.test for name, one in plan.facts.items()}, shared),
        "mixed": mixed(groups),
        "partial_correlations": partial_correlations(groups),
        "learned": learned(groups),
        "importances": importances(groups),
        "replicates": replicates(measured),
        "diagnostics": diagnostics(groups),
        "monotonicity": monotonicity(measured),
        "pruning": pruning_effects(in_range(measured), settings.equivalence_margin),
        "pruning_tests": pruning_tests(in_range(measured)),
        "bayes": bayes(groups),
        "enclosures": enclosures(distinct, robustness, curves),
        "convergence": scattered,
        "jobs": frames.jobs(records),
    }
    if "misses" in stages.tables(plan):
        written["misses"] = misses(every, lists, plan.study.guarantee.confidence)
    if "settling" in stages.tables(plan):
        written["settling"] = settling(every, lists, records)
    if "distances" in stages.tables(plan):
        written["distances"] = near
        written["distance_curves"] = cumulative(compared, lists, settings.within)
    if "overestimates" in stages.tables(plan):
        written["overestimates"] = overestimates(points(compared, lists))
    if "scores" in stages.tables(plan):
        written["scores"] = scored
    if "corruptions" in stages.tables(plan):
        written["corruptions"] = under
        written["corruption_errors"] = by_corruption
    if "comparison" in stages.tables(plan):
        written["comparison"] = side_by_side
    if "choices" in stages.tables(plan):
        written["choices"] = chosen
    if "metrics" in stages.tables(plan):
        written["metrics"] = metrics(compared)
    folder = plan.study.folder / "tables"
    for name, table in written.items():
        frames.write_csv(table, folder / f"{name}.csv")
    write_json(claims, folder / "scorecard.json")
