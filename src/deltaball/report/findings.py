"""What a study found and what it lacks, in a few lines for a terminal."""

import json
from collections import Counter
from collections.abc import Iterator

from deltaball.base.statuses import TRAINED
from deltaball.plan.plan import Plan
from deltaball.tables import frames

SHOWN = 4  # claims
FIRST = ("contradicted", "supported", "undecided")  # what is told first where there is no room for all


def lines(plan: Plan) -> Iterator[str]:
    """At most five lines on the claims, and one on what is missing."""
    claims = json.loads((plan.study.folder / "tables/scorecard.json").read_text(encoding="utf-8"))
    counts = Counter(claim["verdict"] for claim in claims)
    yield f"claims: {', '.join(f'{count} {verdict}' for verdict, count in counts.most_common())}"
    decided = [claim for verdict in FIRST for claim in claims if claim["verdict"] == verdict]
    for claim in decided[:SHOWN]:
        yield f"{claim['verdict']}: {claim['says']}"
    networks, robustness = frames.load(plan)
    absent = networks[~networks["network_id"].isin(robustness["network_id"])]
    statuses = Counter("not measured" if status == TRAINED else status for status in absent["status"])
    if absent.empty:
        yield f"all {len(networks):,} networks are trained and measured"
    else:
        why = ", ".join(f"{count:,} {status}" for status, count in statuses.most_common())
        yield f"missing: {len(absent):,} of {len(networks):,} networks ({why}); the report says which and why"
