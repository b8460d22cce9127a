"""What is said in a terminal at the end: claims decided first, and nothing missing left out."""

import json
from pathlib import Path

import pytest
from builders import grid
from synthetic_tables import both_sides, write_tables

from deltaball.report import findings


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_findings_are_five_lines_at_most_and_count_what_is_missing(tmp_path: Path, share: float) -> None:
    plan = both_sides(tmp_path, grids=[grid(name="one", width=[64, 128])], convergence=[])
    write_tables(plan, share)
    verdicts = ["undecided", "supported", "contradicted", "not run", "supported", "undecided", "supported"]
    claims = [{"verdict": verdict, "says": f"Claim {place}."} for place, verdict in enumerate(verdicts)]
    path = plan.study.folder / "tables/scorecard.json"
    path.parent.mkdir()
    path.write_text(json.dumps(claims))
    *told, missing = findings.lines(plan)
    assert told[0] == "claims: 3 supported, 2 undecided, 1 contradicted, 1 not run"
    assert told[1:] == ["contradicted: Claim 2.", "supported: Claim 1.", "supported: Claim 4.", "supported: Claim 6."]
    count = len(plan.networks)
    done = round(share * count)
    expected = (
        f"all {count} networks"
        if share == 1
        else f"missing: {count - done} of {count} networks ({count - done} planned)"
    )
    assert missing.startswith(expected)
