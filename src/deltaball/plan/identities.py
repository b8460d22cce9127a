"""Ids: hashes of what makes a network or a trajectory what it is.

Data set, architecture, method, and the hyper-parameters that differ from their defaults. So a value added to an axis
changes no old id, and neither does an axis added later with a no-op default.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from deltaball.data.catalogue import DatasetFacts
from deltaball.study.architectures import ARCHITECTURES
from deltaball.study.grids import Grid, grid_model
from deltaball.study.transfers import Pair


@cache
def _defaults(architecture: str, method: str, objective: str) -> dict[str, Any]:
    return grid_model(architecture, method, objective).defaults()


class Identity:
    """Ids of one grid's networks and trajectories."""

    def __init__(self, grid: Grid, facts: DatasetFacts) -> None:
        self.grid, self.facts = grid, facts
        self.base: dict[str, Any] = {"dataset": facts.name, "architecture": grid.architecture}
        if not facts.is_catalogued:
            self.base["data"] = facts.fingerprint
        version = ARCHITECTURES[grid.architecture].VERSION
        if version != 1:
            self.base["version"] = version

    def network(self, axes: Mapping[str, Any]) -> str:
        return self._hash("network", self.grid.method, axes)

    def trajectory(self, method: str, axes: Mapping[str, Any]) -> str:
        return self._hash("trajectory", method, axes)

    def paired(self, pair: Pair) -> str:
        """Of paired auto-encoders, whichever grids need them."""
        return pair.content(self.facts)

    def transferred(self, network: tuple[str, int], pairs: Iterable[Pair]) -> str:
        """Of a classifier, one of the checkpoints, behind one transfer or a transfer for each corruption."""
        content = {"kind": "transferred", "classifier": [*network], "pairs": [one.content(self.facts) for one in pairs]}
        return _digest(content)

    def _hash(self, kind: str, method: str, axes: Mapping[str, Any]) -> str:
        defaults = _defaults(self.grid.architecture, method, axes["objective"])
        axes = ARCHITECTURES[self.grid.architecture].identifying(axes)
        named = {name: value for name, value in axes.items() if name not in defaults or value != defaults[name]}
        content = {**self.base, "kind": kind, "method": method, "axes": named}
        return _digest(content)


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
