"""Which networks count where trainings are compared: of a grid that chooses a value of an axis, those that have it."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from deltaball.base.statuses import PLANNED, TRAINED
from deltaball.plan.networks import Network
from deltaball.plan.plan import Plan
from deltaball.study.choosing import shared
from deltaball.study.grids import Grid

COLUMNS = ["network_id", "dataset", "grid", "axis", "value", "setting", "to", "to_network_id"]
COLUMNS += ["validation_accuracy", "to_validation_accuracy", "distance", "chosen", "test_accuracy"]
ROUNDING = 1e-12  # by which two equal distances may differ


def choices(networks: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """One row per network of a grid that chooses; `networks` is networks.parquet.

    `distance` is between the accuracies on the held-out training images, of the network and of the one that it is held
    against, and `chosen` is the row where it is smallest, of each `setting`; of equals the value that the study lists
    first. Nothing is chosen while a network of the setting is to be trained yet, or where there is nothing to be close
    to. `test_accuracy` stands beside it and has no say.
    """
    known = networks.set_index("network_id").to_dict("index")
    grids = {grid.name: grid for grid in plan.study.grids}
    rows = [
        row
        for grid in grids.values()
        if grid.choose is not None
        for row in _of_grid(grid, grids[grid.choose.to], plan, known)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"chosen": bool})


def settled(rows: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """The rows of networks that no choice, a table of `choices`, has left out."""
    left = chosen.loc[~chosen["chosen"], "network_id"]
    return rows[~rows["network_id"].isin(left)].reset_index(drop=True)


def _of_grid(grid: Grid, other: Grid, plan: Plan, known: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    axis, names = grid.choose.axis, shared(grid, other)
    # A network also tells apart what the other grid does not know, as other axes of its objective.
    own = [name for name in grid.axis_names() if name not in {*names, axis, "objective"}]
    references = {_values(one, names): one for one in plan.networks if one.grid == other.name}
    settings: dict[tuple[Any, ...], list[Network]] = {}
    for one in plan.networks:
        if one.grid == grid.name:
            settings.setdefault(_values(one, [*names, *own]), []).append(one)
    varying = [name for name in [*names, *own] if len(grid.values(name)) > 1]
    for members in settings.values():
        members.sort(key=lambda one: grid.values(axis).index(one.axes[axis]))
        reference = references[_values(members[0], names)]
        aim = _accuracy(known[reference.id])
        distances = [abs(_accuracy(known[one.id]) - aim) for one in members]
        best = None if any(known[one.id]["status"] == PLANNED for one in members) else _smallest(distances)
        for place, (one, distance) in enumerate(zip(members, distances, strict=True)):
            yield {
                "network_id": one.id,
                "dataset": one.dataset,
                "grid": grid.name,
                "axis": axis,
                "value": one.axes[axis],
                "setting": ", ".join(f"{name} {one.axes[name]}" for name in varying),
                "to": other.name,
                "to_network_id": reference.id,
                "validation_accuracy": _accuracy(known[one.id]),
                "to_validation_accuracy": aim,
                "distance": distance,
                "chosen": place == best,
                "test_accuracy": known[one.id]["test_accuracy"],
            }


def _values(network: Network, names: list[str]) -> tuple[Any, ...]:
    return tuple(network.axes[name] for name in names)


def _accuracy(row: Mapping[str, Any]) -> float:
    """On the held-out training images; NaN of a network whose training did not end well."""
    return float(row["validation_accuracy"]) if row["status"] == TRAINED else np.nan


def _smallest(distances: list[float]) -> int | None:
    """The place of the smallest, of equal ones the first; None where there is none."""
    found = np.asarray(distances)
    if np.isnan(found).all():
        return None
    return int(np.flatnonzero(found <= np.nanmin(found) + ROUNDING)[0])
