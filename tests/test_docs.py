"""README and docs: what they link to is there."""

import re
from pathlib import Path

import pandas as pd
import pytest

from deltaball.analysis.scorecard import VERDICTS

PAGES = [
    "README.md",
    "benchmarks/README.md",
    *(f"docs/{page.name}" for page in Path(__file__).parents[1].glob("docs/*.md")),
]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(root: Path, page: str) -> None:
    path = root / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), f"{page}: {target}"


def test_the_table_of_papers_counts_the_verdicts_of_their_scorecards(root: Path) -> None:
    rows = re.findall(
        r"\(results/([\w-]+)/README\.md\)[^|\n]*\|(.*)\|$", (root / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert len(rows) >= 7
    for study, counts in rows:
        claims = pd.read_csv(root / f"results/{study}/tables/scorecard.csv").drop_duplicates("claim")["verdict"]
        assert [int(count) for count in counts.split("|")] == [int((claims == verdict).sum()) for verdict in VERDICTS]
