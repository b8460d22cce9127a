"""From the tables of a study to its pictures."""

from collections.abc import Callable
from functools import partial

from deltaball.analysis.choices import choices, settled
from deltaball.analysis.convergence import spread
from deltaball.analysis.corruptions import corruptions as corrupted
from deltaball.analysis.distances import cumulative
from deltaball.analysis.enclosures import enclosures
from deltaball.analysis.overestimates import points
from deltaball.analysis.scores import scores
from deltaball.analysis.settling import settling as settled_by
from deltaball.figures import style
from deltaball.plan.plan import Plan
from deltaball.tables import frames
from deltaball.workflow import jobs, stages


def draw(plan: Plan) -> None:
    """Draw every figure of a study to ``figures/`` as PNG and SVG, each with the CSV of what it shows."""
    drawers = by_kind(plan)
    for name in stages.figures(plan):
        drawers[stages.figure_kind(name)](name, folder=plan.study.folder / "figures")


def by_kind(plan: Plan) -> dict[str, Callable[..., None]]:
    """What draws each kind of figure, of `stages.FIGURES`, from a study's tables; called with a name and a `folder`."""
    style.use()
    # pyplot reads the backend when it is imported, so the figures come after the style.
    from deltaball.figures import (
        adaptations,
        bayes,
        chains,
        convergence,
        corruptions,
        diagnostics,
        distances,
        enclosure,
        hyperparameters,
        margins,
        overestimates,
        paper,
        pruning,
        settling,
        tradeoff,
        trainings,
    )

    planned, robustness = frames.load(plan)
    curves, draws = frames.load_curves(plan)
    networks = frames.distinct(planned, robustness)
    measured = frames.measured(networks, robustness)
    scattered = spread(planned, draws)
    asked = {"distances", "settling"} & {*stages.tables(plan)}
    lists = frames.load_outcomes(plan) if asked else None
    chosen = choices(planned, plan)
    compared, counted = settled(measured, chosen), settled(networks, chosen)
    near = cumulative(compared, lists, plan.study.analysis.within)
    scored, under = scores(compared, plan), corrupted(compared, plan)
    return {
        "figure1": partial(paper.figure1, plan=plan, draws=draws, spread=scattered),
        "figure2": partial(paper.figure2, plan=plan, networks=networks, measured=measured),
        "figure3": partial(paper.figure3, plan=plan, networks=networks, measured=measured),
        "figure4": partial(paper.figure4, plan=plan, networks=networks, measured=measured),
        "trainings": partial(trainings.trainings, plan=plan, networks=counted, measured=compared),
        "constraints": partial(trainings.constraints, plan=plan, networks=counted, measured=compared),
        "attacks": partial(trainings.attacks, plan=plan, networks=counted, measured=compared),
        "sizes": partial(trainings.sizes, plan=plan, networks=counted, measured=compared),
        "metrics": partial(trainings.three_metrics, networks=counted, measured=compared),
        "tradeoff": partial(tradeoff.draw, plan=plan, networks=networks, measured=measured),
        "hyperparameters": partial(hyperparameters.draw, plan=plan, networks=networks, measured=measured),
        "bayes": partial(bayes.draw, networks=networks, measured=measured),
        "chains": partial(chains.draw, networks=networks),
        "diagnostics": partial(diagnostics.draw, networks=networks, measured=measured),
        "pruning": partial(pruning.draw, plan=plan, networks=networks, measured=measured),
        "enclosure": partial(
            enclosure.draw,
            plan=plan,
            networks=networks,
            measured=measured,
            enclosed=enclosures(networks, robustness, curves),
        ),
        "settling": partial(
            settling.draw,
            networks=networks,
            settled=settled_by(measured, lists, jobs.records(plan)) if "settling" in asked else None,
        ),
        "distances": partial(distances.draw, plan=plan, networks=counted, curves=near),
        "corruptions": partial(corruptions.heat_map, plan=plan, networks=counted, corrupted=under),
        "severities": partial(corruptions.severities, plan=plan, networks=counted, corrupted=under),
        "adaptations": partial(adaptations.draw, plan=plan, networks=counted, corrupted=under),
        "margins": partial(margins.draw, plan=plan, networks=counted, curves=near, scores=scored),
        "overestimates": partial(overestimates.draw, compared=points(compared, lists)),
        "convergence": partial(convergence.draw, plan=plan, draws=draws, spread=scattered),
    }
