"""What a study found, as the README of its folder: what one sees first who looks at the results in a repository.

Claims stand as on the page, each with its picture in a file of its own, for Markdown holds none.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from deltaball.base.files import remove, written_checked
from deltaball.plan.plan import Plan
from deltaball.report import claims, sentences, summaries
from deltaball.report.reading import csv, picture
from deltaball.report.templates import environment
from deltaball.tables import frames
from deltaball.workflow import stages


def write(plan: Plan) -> Path:
    """Write ``README.md`` and ``claims/*.svg``. Returns the first's path.

    Raises InputError when the scorecard or a figure that it shows is missing.
    """
    folder = plan.study.folder
    networks, robustness = frames.load(plan)
    papers = claims.papers(csv(folder / "tables/scorecard.csv"), plan)
    stated = [claim for paper in papers for section in paper["sections"] for claim in section["claims"]]
    _draw(stated, folder)
    text = (
        environment()
        .get_template("findings.md.jinja")
        .render(
            study=plan.study,
            networks=len(networks),
            measured=robustness["network_id"].nunique(),
            lacking=summaries.lacking(plan, robustness)["networks"],
            guarantee=summaries.guarantee(robustness),
            papers=papers,
            chosen=sentences.choices(csv(folder / "tables/choices.csv")) if "choices" in stages.tables(plan) else "",
            surest={claim["claim"]: min(_tests(claim), default=None) for claim in stated},
            figure=_leading(plan),
        )
    )
    path = folder / "README.md"
    with written_checked(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _draw(drawn: list[dict[str, Any]], folder: Path) -> None:
    """A file for the picture of every claim that has one; what is left of others goes."""
    template = environment().get_template("claim.svg.jinja")
    pictures = {f"{claim['claim']}.svg": claim for claim in drawn if claim["plot"]}
    for path in (folder / "claims").glob("*"):
        if path.name not in pictures:
            remove(path)
    for name, claim in pictures.items():
        with written_checked(folder / "claims" / name) as temporary:
            temporary.write_text(template.render(claim=claim), encoding="utf-8")


def _tests(claim: dict[str, Any]) -> Iterator[float]:
    """The p-values of its parts, corrected for all tests of the scorecard."""
    return (row["p_holm"] for row in claim["parts"] if not pd.isna(row["p_holm"]))


def _leading(plan: Plan) -> dict[str, str] | None:
    """The first figure of the study's paper, or of the study; with its title and what it tells.

    Not Figure 1 of paper 004: how estimates converge is no finding about networks.
    """
    names = stages.figures(plan)
    leading = [name for name in names if stages.figure_kind(name) in stages.paper_kinds(plan) and name != "figure1"]
    name = next(iter(leading or names), None)
    if name is None:
        return None
    about = picture(plan.study.folder / "figures" / f"{name}.png")
    return {key: about[key] for key in ("name", "title", "told")}
