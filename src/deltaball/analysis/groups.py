"""The groups within which trends are looked for."""

from collections.abc import Iterator
from functools import cached_property

import pandas as pd

from deltaball.analysis.designs import ACCURACY, CAPACITY, Designs
from deltaball.analysis.slopes import Slopes
from deltaball.study.grids import all_axes

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


# What statistics read of a row.
READ = ["network_id", "dataset", "method", "architecture", "cluster", ACCURACY, CAPACITY, "estimate", "samples"]
READ += ["measure", "notion", "norm", "delta", "perturbation_size", "gamma", "attack", "certificate"]


class Groups:
    """Networks of each data set × method × architecture (and all architectures together) × measure × subset.

    Yields the names of each group and its rows, one per network. The subset is `all` networks or the `learned` ones;
    `accuracy_from` is the test accuracy from which networks are in. The tables of a study share one object: its rows
    are taken once, and so are the designs and the slopes that several tables need.
    """

    def __init__(self, measured: pd.DataFrame) -> None:
        # Numbers in the order of the names: they are compared and counted for every test.
        self.measured = measured.assign(cluster=measured["cluster"].astype("category").cat.codes)
        self.designs, self.slopes = Designs(), Slopes()

    def __iter__(self) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
        return iter(self._groups)

    @cached_property
    def _groups(self) -> list[tuple[dict[str, object], pd.DataFrame]]:
        return list(_groups(self.measured[[*READ, *all_axes()]]))


def learned_from(measured: pd.DataFrame) -> dict[str, float]:
    """Per data set, the test accuracy from which a network counts as one that learned."""
    return dict(LEARNED * measured.groupby("dataset")[ACCURACY].max())


def _groups(measured: pd.DataFrame) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    levels = learned_from(measured)
    for (dataset, method, measure), alike in measured.groupby(["dataset", "method", "measure"], sort=False):
        architectures = list(alike["architecture"].unique())
        described = alike[["notion", "norm", "delta", "gamma", "attack", "certificate"]].iloc[0]
        for architecture in ([EVERY] if len(architectures) > 1 else []) + architectures:
            chosen = alike if architecture == EVERY else alike[alike["architecture"] == architecture]
            for subset, level in ((EVERY, 0.0), ("learned", levels[dataset])):
                members = chosen[chosen[ACCURACY] >= level]
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
