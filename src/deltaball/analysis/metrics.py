"""Paper 001's three metrics side by side: constraint security, accuracy and satisfaction of every training."""

import pandas as pd

from deltaball.analysis.judges import LEVEL, decides, judged, sampled, strength
from deltaball.analysis.means import level, mean
from deltaball.analysis.rules import CONFIDENCE
from deltaball.analysis.trainings import trainings

# What tells networks apart that are not trainings of one kind.
KIND = ["dataset", "network", "training", "radius", "beta", "alpha"]
METRICS = ("security", "accuracy", "satisfaction")
JUDGES = {"security": "attack", "accuracy": "sampling", "satisfaction": "certificate"}
COLUMNS = [*KIND, *LEVEL[1:], "networks", "trajectories", "test_accuracy"]
COLUMNS += [f"{name}{end}" for name in METRICS for end in ("", "_lower", "_upper", "_by")]
COLUMNS += ["samples", "confidence"]


def described(measured: pd.DataFrame) -> pd.DataFrame:
    """The rows of each trajectory's last checkpoint, with how it was trained, `training`, and its shape, `network`."""
    rows = measured[measured["epochs"] == measured.groupby("cluster")["epochs"].transform("max")]
    names = rows["architecture"].str.upper() + ", " + rows["parameters"].map("{:,} weights".format).astype("str")
    return rows.assign(training=trainings(rows), network=names)


def metrics(measured: pd.DataFrame) -> pd.DataFrame:
    """A row per data set, network (small ones first), training and constraint at each radius: means, 95 % intervals.

    Security is what the strongest attack leaves, and so bounds the truth from above; satisfaction is what the strongest
    certificate proves, and bounds it from below (where it decides every point, it is the truth); accuracy is the share
    of random images. Intervals are of trainings and test points together (`training_claims.mean`); one that is missing
    is of a single training.
    """
    rows = described(measured).sort_values("parameters", kind="stable")
    shares = rows[rows["notion"].notna()]
    parts = {
        "security": judged(shares),
        "accuracy": sampled(shares),
        "satisfaction": _certified(shares),
    }
    keys = [*KIND, *LEVEL[1:]]
    found: dict[tuple, dict] = {}
    for name, part in parts.items():
        for key, members in part.groupby(keys, sort=False, dropna=False):
            told = tuple(None if pd.isna(one) else one for one in key)
            row = found.setdefault(told, dict(zip(keys, key, strict=True)))
            row |= _measured(name, members)
            row.setdefault("networks", members["network_id"].nunique())
            row.setdefault("trajectories", members["cluster"].nunique())
            row.setdefault("test_accuracy", members.drop_duplicates("network_id")["test_accuracy"].mean())
            row.setdefault("samples", int(members["samples"].min()))
    return pd.DataFrame(list(found.values()), columns=COLUMNS).assign(confidence=CONFIDENCE)


def _certified(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each network and level the row of its strongest certificate, or of what decides every point."""
    certified = rows[rows["certificate"].notna()]
    ranks = certified["certificate"].map({one: strength(one) for one in certified["certificate"].unique()})
    order = certified.assign(decides=decides(certified["certificate"]), rank=ranks).sort_values(["decides", "rank"])
    return order.drop_duplicates(["network_id", *LEVEL], keep="last").sort_index()


def _measured(name: str, members: pd.DataFrame) -> dict[str, object]:
    by = JUDGES[name]
    row: dict[str, object] = {name: members.groupby("cluster")["estimate"].mean().mean()}
    row[f"{name}_by"] = ", ".join(sorted(members[by].unique()))
    found = level(mean(members, "estimate", "samples"))
    if found is not None:
        lower, upper = found.interval(CONFIDENCE)
        row |= {f"{name}_lower": max(lower, 0.0), f"{name}_upper": min(upper, 1.0)}
    return row
