"""README and docs: what they link to is there."""

import re
from pathlib import Path

import pytest

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
