"""How much of a trend do networks carry that did not learn? A nearly constant classifier is trivially robust."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from deltaball.analysis.clustered import CONFIDENCE
from deltaball.analysis.designs import ACCURACY
from deltaball.analysis.groups import EVERY, NAMES, Groups
from deltaball.analysis.multiplicity import benjamini_hochberg, holm
from deltaball.analysis.slopes import Slopes

BANDS = 4
CARRIED = ("carried_within_learned", "carried_within_others", "carried_between")
COLUMNS = [*NAMES[:-2], "accuracy_to", *NAMES[-2:], "slope", "lower", "upper", "p", "p_holm", "p_bh"]
COLUMNS += ["confidence", *CARRIED]


def learned(groups: Groups) -> pd.DataFrame:
    """The slope of each measure on test accuracy: among all networks, those that learned, and each quarter by accuracy.

    `accuracy_from` is where the group begins, of a quarter its lowest accuracy. Errors are clustered by trajectory, by
    a wild bootstrap where these are few; `p_holm` and `p_bh` are corrected over the table. In the rows of those that
    learned, the covariance of accuracy and measure among all networks is split into what lies within the networks that
    learned, within the others, and between the means of the two: shares that add up to 1, of which one may be negative.
    The last two are what under-trained networks carry.
    """
    rows = []
    for names, members in groups:
        if names["networks_of"] == EVERY:
            whole = members
            rows += [{**names, **band, **_fitted(kept, groups.slopes)} for band, kept in _bands(names, members)]
        else:
            ends = {"accuracy_to": members[ACCURACY].max()}
            rows.append({**names, **ends, **_fitted(members, groups.slopes), **_carried(whole, members)})
    table = pd.DataFrame(rows, columns=COLUMNS).assign(confidence=CONFIDENCE)
    p_values = table["p"].astype(float)
    return table.assign(p_holm=holm(p_values), p_bh=benjamini_hochberg(p_values))


def _bands(names: dict[str, object], members: pd.DataFrame) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    yield {"networks_of": EVERY, **_ends(members), "accuracy_from": names["accuracy_from"]}, members
    members = members[[ACCURACY, "estimate", "cluster"]]
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


def _fitted(members: pd.DataFrame, slopes: Slopes) -> dict[str, float]:
    found = slopes.on_accuracy(members)
    if found is None:
        return {}
    return {"slope": found.estimate, "lower": found.lower, "upper": found.upper, "p": found.p}


def _carried(whole: pd.DataFrame, members: pd.DataFrame) -> dict[str, float]:
    others = whole.drop(members.index)
    total, *within = (
        float(np.sum((one[ACCURACY] - one[ACCURACY].mean()) * one["estimate"])) for one in (whole, members, others)
    )
    if len(whole) < 2 or abs(total) < 1e-12:
        return {}
    shares = [one / total for one in within]
    return dict(zip(CARRIED, (*shares, 1 - sum(shares)), strict=True))
