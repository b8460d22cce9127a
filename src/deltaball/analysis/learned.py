"""How much of a trend do networks carry that did not learn? A nearly constant classifier is trivially robust."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from deltaball.analysis.clustered import CONFIDENCE, slope
from deltaball.analysis.designs import ACCURACY
from deltaball.analysis.groups import EVERY, NAMES, groups
from deltaball.analysis.multiplicity import benjamini_hochberg, holm

BANDS = 4
REPLICATES = 4999
CARRIED = ("carried_within_learned", "carried_within_others", "carried_between")
COLUMNS = [*NAMES[:-2], "accuracy_to", *NAMES[-2:], "slope", "lower", "upper", "p", "p_holm", "p_bh"]
COLUMNS += ["confidence", *CARRIED]


def learned(measured: pd.DataFrame) -> pd.DataFrame:
    """The slope of each measure on test accuracy: among all networks, those that learned, and each quarter by accuracy.

    Errors are clustered by trajectory, by a wild bootstrap where these are few; `p_holm` and `p_bh` are
    corrected over the table. In the rows of those that learned, the covariance of accuracy and measure among all
    networks is split into what lies within the networks that learned, within the others, and between the means of the
    two: shares that add up to 1, of which one may be negative. The last two are what under-trained networks carry.
    """
    rows = []
    for names, members in groups(measured):
        if names["networks_of"] == EVERY:
            whole = members
            rows += [{**names, **band, **_fitted(kept)} for band, kept in _bands(members)]
        else:
            rows.append({**names, **_ends(members), **_fitted(members), **_carried(whole, members)})
    table = pd.DataFrame(rows, columns=COLUMNS).assign(confidence=CONFIDENCE)
    p_values = table["p"].astype(float)
    return table.assign(p_holm=holm(p_values), p_bh=benjamini_hochberg(p_values))


def _bands(members: pd.DataFrame) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    yield {"networks_of": EVERY, **_ends(members)}, members
    # Networks of one accuracy stay in one band.
    band = np.minimum((members[ACCURACY].rank(pct=True, method="average") * BANDS).to_numpy(), BANDS - 1e-9).astype(int)
    for number in range(BANDS):
        kept = members[band == number]
        yield {"networks_of": f"quarter {number + 1} of {BANDS} by accuracy", **_ends(kept)}, kept


def _ends(members: pd.DataFrame) -> dict[str, object]:
    return {
        "accuracy_from": members[ACCURACY].min(),
        "accuracy_to": members[ACCURACY].max(),
        "networks": len(members),
        "trajectories": members["cluster"].nunique(),
    }


def _fitted(members: pd.DataFrame) -> dict[str, float]:
    x, y = members[ACCURACY].to_numpy(), members["estimate"].to_numpy()
    found = slope(y, x, None, members["cluster"].to_numpy(), replicates=REPLICATES)
    if found is None:
        return {}
    return dict(
        zip(("slope", "lower", "upper", "p"), (found.estimate, *found.interval(CONFIDENCE), found.p(0)), strict=True)
    )


def _carried(whole: pd.DataFrame, members: pd.DataFrame) -> dict[str, float]:
    others = whole.drop(members.index)
    total, *within = (
        float(np.sum((one[ACCURACY] - one[ACCURACY].mean()) * one["estimate"])) for one in (whole, members, others)
    )
    if len(whole) < 2 or abs(total) < 1e-12:
        return {}
    shares = [one / total for one in within]
    return dict(zip(CARRIED, (*shares, 1 - sum(shares)), strict=True))
