"""The findings as a repository shows them: every claim of the scorecard, as the scorecard has it."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deltaball.base.errors import InputError
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.report import readme
from deltaball.report.reading import csv

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shipped(tmp_path: Path) -> Plan:
    """The study whose tables and figures are in the repository, elsewhere and without its findings."""
    plan = loading.planned(ROOT / "studies/small-paper.yaml")
    there = ROOT / "results/small-paper"
    for path in (path for path in there.rglob("*") if path.suffix in (".parquet", ".csv", ".png")):
        copy = tmp_path / "small-paper" / path.relative_to(there)
        copy.parent.mkdir(exist_ok=True, parents=True)
        copy.symlink_to(path)
    return replace(plan, study=plan.study.model_copy(update={"results": str(tmp_path)}))


def test_every_claim_stands_once_with_the_scorecards_verdict_and_networks(shipped: Plan) -> None:
    text = readme.write(shipped).read_text()
    overall = csv(shipped.study.folder / "tables/scorecard.csv").query("part == 'overall'")
    rows = {
        claim: (verdict, count)
        for verdict, claim, count in re.findall(r"^\| (.+) \| \[.+\]\(#(\w+)\) \| (.+) \|$", text, re.M)
    }
    for row in overall.itertuples():
        count = "–" if row.networks != row.networks else f"{row.networks:,.0f}"
        assert rows.pop(row.claim) == (row.verdict, count)
        assert text.count(f'<a id="{row.claim}"></a>{row.verdict.capitalize()}: {row.says}') == 1
    assert not rows


def test_its_links_lead_somewhere_and_its_pictures_say_what_they_show(shipped: Plan) -> None:
    text = readme.write(shipped).read_text()
    folder = shipped.study.folder
    (folder / "PROVENANCE.md").touch()
    links = re.findall(r"\]\((?!#)([^)]+)\)", text)
    assert "figures/figure2.png" in links
    assert all((folder / link).exists() for link in links)
    drawn = {path.name for path in (folder / "claims").glob("*.svg")}
    assert drawn == {link.removeprefix("claims/") for link in links if link.startswith("claims/")}
    for name in drawn:
        assert ElementTree.parse(folder / "claims" / name).getroot().get("aria-label").startswith("Forest plot: ")


def test_pictures_of_claims_that_are_no_more_go(shipped: Plan) -> None:
    (shipped.study.folder / "claims").mkdir()
    (shipped.study.folder / "claims/of_old.svg").touch()
    first = readme.write(shipped).read_text()
    assert not (shipped.study.folder / "claims/of_old.svg").exists()
    assert readme.write(shipped).read_text() == first


def test_without_a_scorecard_one_line_says_what_makes_it(shipped: Plan) -> None:
    (shipped.study.folder / "tables/scorecard.csv").unlink()
    with pytest.raises(InputError, match=r"scorecard\.csv is not there; `deltaball analyse` makes it"):
        readme.write(shipped)
    assert not (shipped.study.folder / "README.md").exists()
