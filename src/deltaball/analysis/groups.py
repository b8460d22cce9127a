"""The groups within which trends are looked for."""

from collections.abc import Iterator

import pandas as pd

# A nearly constant classifier is trivially robust, so networks that did not learn can make a trend by themselves.
# "Learned" is a test accuracy of at least this share of the best in the data set.
LEARNED = 0.8
EVERY = "all"
# What names a group in the tables, in the order of their columns.
NAMES = (
    "dataset",
    "method",
    "architecture",
    "measure",
    "notion",
    "norm",
    "delta",
    "gamma",
    "attack",
    "certificate",
    "networks_of",
    "accuracy_from",
    "networks",
    "trajectories",
)


def groups(measured: pd.DataFrame) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """Networks of each data set × method × architecture (and all architectures together) × measure × subset.

    Yields the names of the group and its rows, one per network. The subset is `all` networks or the `learned`
    ones; `accuracy_from` is the test accuracy from which networks are in.
    """
    best = measured.groupby("dataset")["test_accuracy"].max()
    for (dataset, method, measure), alike in measured.groupby(["dataset", "method", "measure"], sort=False):
        architectures = list(alike["architecture"].unique())
        described = alike[["notion", "norm", "delta", "gamma", "attack", "certificate"]].iloc[0]
        for architecture in ([EVERY] if len(architectures) > 1 else []) + architectures:
            chosen = alike if architecture == EVERY else alike[alike["architecture"] == architecture]
            for subset, level in ((EVERY, 0.0), ("learned", LEARNED * best[dataset])):
                members = chosen[chosen["test_accuracy"] >= level]
                values = (
                    dataset,
                    method,
                    architecture,
                    measure,
                    *described,
                    subset,
                    round(float(level), 4),
                    len(members),
                    members["cluster"].nunique(),
                )
                yield dict(zip(NAMES, values, strict=True)), members
