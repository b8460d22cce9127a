"""From tables, statistics and pictures to one page that opens anywhere.

A template per section of the page; `summaries` computes what it tells, `explorer` what its scatter plots draw,
`footer` what stands below.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from deltaball.analysis import judges
from deltaball.analysis.bayes import ESS, RHAT
from deltaball.analysis.choices import settled
from deltaball.base.files import written_checked
from deltaball.base.statuses import STATUSES, TRAINED
from deltaball.figures import style
from deltaball.plan.plan import Plan
from deltaball.report import claims, explorer, footer, sentences, summaries
from deltaball.report.packed import packed_table
from deltaball.report.reading import csv, picture, records
from deltaball.report.templates import environment
from deltaball.tables import frames
from deltaball.workflow import stages

# The kinds of figures that have a place of their own on the page; any other stands beside the regressions.
PLACED = (
    "tradeoff",
    "hyperparameters",
    "enclosure",
    "settling",
    "convergence",
    "distances",
    "margins",
    "bayes",
    "pruning",
)
CORRUPTED = ("corruptions", "severities", "adaptations")
PLACED += ("metrics", "overestimates", *CORRUPTED)
PLACED += tuple(name for figures in stages.PAPERS_FIGURES.values() for name in figures)
ENCLOSURES_SHOWN = 500
MISSING_SHOWN = 200


def write(plan: Plan, study_path: Path) -> Path:
    """Write ``report.html``: everything inlined, nothing fetched. Returns its path.

    Raises InputError when a table or figure it shows is missing.
    """
    folder = plan.study.folder
    networks, robustness = frames.load(plan)
    measured = frames.measured(networks, robustness)
    found = {name: csv(folder / "tables" / f"{name}.csv") for name in stages.tables(plan)}
    pictures = {name: picture(folder / "figures" / f"{name}.png") for name in stages.figures(plan)}
    page = (
        environment()
        .get_template("page.html.jinja")
        .render(
            study=plan.study,
            completeness=records(found["completeness"]),
            networks=len(networks),
            trained=int((networks["status"] == TRAINED).sum()),
            measured=robustness["network_id"].nunique(),
            lacking=summaries.lacking(plan, robustness),
            **_first_screen(plan, found, pictures, robustness),
            **_trends(found, pictures, measured, robustness),
            **_proven(found, pictures),
            **_compared(found),
            **_near(found, pictures, stages.paper_kinds(plan)),
            violations=_violations(plan, networks, found),
            **_scores(found, pictures, stages.paper_kinds(plan)),
            **_of_methods(found, pictures, networks),
            autoencoders=_autoencoders(plan),
            explored=explorer.explored(plan, networks, measured, frames.load_examples(plan)),
            library=explorer.library(),
            every_table=[_whole(name, table, stages.tables(plan)[name]) for name, table in found.items()],
            **_footer(plan, study_path, networks, robustness, found["jobs"]),
        )
    )
    path = folder / "report.html"
    with written_checked(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _first_screen(
    plan: Plan, found: dict[str, pd.DataFrame], pictures: dict[str, Any], robustness: pd.DataFrame
) -> dict[str, Any]:
    return {
        "guarantee": summaries.guarantee(robustness),
        "saturated": summaries.saturated(robustness),
        "papers": claims.papers(found["scorecard"], plan),
        "paper_figures": _of_kind(pictures, *stages.paper_kinds(plan)),
    }


def _trends(
    found: dict[str, pd.DataFrame], pictures: dict[str, Any], measured: pd.DataFrame, robustness: pd.DataFrame
) -> dict[str, Any]:
    correlations, other_correlations = summaries.parted(found["correlations"], measured)
    simple = found["regressions"]
    if "model" in simple:
        simple = simple[simple["model"] == "simple"]
    regressions, other_regressions = summaries.parted(simple, measured)
    return {
        "attacks": judges.joined(robustness["attack"]),
        "certificates": judges.joined(robustness["certificate"]),
        "tight": summaries.tight(robustness),
        "correlations": summaries.side_by_side(correlations),
        "trends_told": sentences.trends(correlations),
        "other_correlations": summaries.side_by_side(other_correlations),
        "accuracy_from": dict(found["correlations"].groupby("dataset")["accuracy_from"].max()),
        "on_accuracy": summaries.terms(regressions, True),
        "regressions_told": sentences.regressions(summaries.terms(regressions, True)),
        "on_axes": summaries.terms(regressions, False),
        "other_regressions": summaries.terms(other_regressions, True) + summaries.terms(other_regressions, False),
        "regressions": len(found["regressions"]),
        "monotonicity": records(found["monotonicity"]),
        "monotonicity_told": sentences.monotonicity(records(found["monotonicity"])),
        "figures": _of_kind(pictures, "tradeoff"),
        "axes_figures": _of_kind(pictures, "hyperparameters"),
        "other_figures": [one for name, one in pictures.items() if stages.figure_kind(name) not in PLACED],
    }


def _proven(found: dict[str, pd.DataFrame], pictures: dict[str, Any]) -> dict[str, Any]:
    enclosed = found["enclosures"].dropna(subset="epsilon")
    return {
        "enclosures": summaries.enclosed_summary(enclosed),
        "proven_told": sentences.proven(enclosed),
        "enclosed": records(enclosed.head(ENCLOSURES_SHOWN)),
        "enclosed_in_all": len(enclosed),
        "enclosure_figures": _of_kind(pictures, "enclosure"),
        "settling": summaries.settling(found["settling"]) if "settling" in found else [],
        "settling_figures": _of_kind(pictures, "settling"),
        "misses": records(found["misses"]) if "misses" in found else [],
        "convergence": records(found["convergence"]),
        "convergence_told": sentences.convergence(found["convergence"]),
        "convergence_figures": _of_kind(pictures, "convergence"),
    }


def _compared(found: dict[str, pd.DataFrame]) -> dict[str, Any]:
    there = found.get("choices", pd.DataFrame())
    compared = found.get("comparison", pd.DataFrame())
    return {
        "side_by_side": summaries.compared(compared) if len(compared) else [],
        "choices": records(there.head(ENCLOSURES_SHOWN)),
        "choices_told": sentences.choices(there) if len(there) else "",
    }


def _near(found: dict[str, pd.DataFrame], pictures: dict[str, Any], first: Sequence[str]) -> dict[str, Any]:
    there = found.get("distances", pd.DataFrame())
    return {
        "near": summaries.near(there) if len(there) else [],
        "near_told": sentences.distances(there) if len(there) else "",
        "near_each": records(there.head(ENCLOSURES_SHOWN)),
        "near_in_all": len(there),
        "near_figures": _of_kind(
            pictures, *(one for one in ("distances", "margins", "overestimates") if one not in first)
        ),
        "overestimates": records(found["overestimates"]) if "overestimates" in found else [],
    }


def _scores(found: dict[str, pd.DataFrame], pictures: dict[str, Any], first: Sequence[str]) -> dict[str, Any]:
    there = found.get("scores", pd.DataFrame())
    return {
        "scores": records(there.head(ENCLOSURES_SHOWN)),
        "scores_in_all": len(there),
        "corruption_figures": _of_kind(pictures, *(one for one in CORRUPTED if one not in first)),
        "scores_told": sentences.scores(there) if len(there) else "",
    }


def _of_methods(found: dict[str, pd.DataFrame], pictures: dict[str, Any], networks: pd.DataFrame) -> dict[str, Any]:
    return {
        "bayes": records(found["bayes"]),
        "bayes_told": sentences.bayes(found["bayes"]),
        "chains": summaries.chains(networks),
        "rhat": RHAT,
        "ess": ESS,
        "bayes_figures": _of_kind(pictures, "bayes"),
        "chain_figures": _of_kind(pictures, "chains"),
        "pruning": records(found["pruning"]),
        "pruning_told": sentences.pruning(found["pruning"]),
        "pruning_tests": records(found["pruning_tests"]),
        "pruning_figures": _of_kind(pictures, "pruning"),
    }


def _violations(plan: Plan, networks: pd.DataFrame, found: dict[str, pd.DataFrame]) -> list[Any]:
    """Pictures of the closest violations, drawn of the examples that there are."""
    style.use()
    from deltaball.figures import violations  # pyplot reads the backend when it is imported

    compared = settled(networks, found["choices"]) if "choices" in found else networks
    folder = plan.study.folder / "examples"
    return [picture(path) for path in violations.draw(compared, frames.load_examples(plan), folder)]


def _autoencoders(plan: Plan) -> list[Any]:
    """The pictures of auto-encoders that are trained; of transfers that are trained anew with every seed, one each."""
    pairs = [one.axes["pairs"][0] for one in plan.pairs]
    first = {(pair.entry.name, pair.corruptions): pair.name for pair in reversed(pairs)}
    names = [*(one.name for one in plan.study.autoencoders), *reversed(first.values())]
    paths = [plan.study.folder / "autoencoders" / f"{name}.png" for name in names]
    return [picture(path) for path in paths if path.exists()]


def _footer(
    plan: Plan, study_path: Path, networks: pd.DataFrame, robustness: pd.DataFrame, jobs: pd.DataFrame
) -> dict[str, Any]:
    missing = footer.missing(networks, robustness)
    return {
        "source": study_path.read_text(encoding="utf-8"),
        "source_name": study_path.name,
        "data": footer.data(plan, networks),
        "software": sorted(networks["software"].dropna().unique()),
        "devices": sorted(networks["device"].dropna().unique()),
        "drawn": footer.drawn_with(),
        "jobs": footer.jobs(jobs),
        "unfinished": records(jobs[jobs["status"].isin(["partial", "failed"])]),
        "statuses": STATUSES,
        "missing": missing,
        "every_missing": _whole("missing", pd.DataFrame(missing), "") if len(missing) > MISSING_SHOWN else None,
        "shown": MISSING_SHOWN,
        "worst_shown": summaries.WORST_SHOWN,
    }


def _whole(name: str, table: pd.DataFrame, says: str) -> dict[str, Any]:
    return {"name": name, "says": says, "rows": len(table), "packed": packed_table(table)}


def _of_kind(pictures: dict[str, Any], *kinds: str) -> list[Any]:
    return [picture for name, picture in pictures.items() if stages.figure_kind(name) in kinds]
