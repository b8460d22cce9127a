"""Hyper-parameters as columns of a regression: per doubling, per unit, or each level against the first."""

import numpy as np
import pandas as pd

from deltaball.study.grids import all_axes

FEWEST_AT_A_LEVEL = 4
ACCURACY, CAPACITY = "test_accuracy", "parameters"


class Designs:
    """The columns of groups of networks, each made once for all the measures of the same networks."""

    def __init__(self) -> None:
        self._known: dict[
            tuple[str, ...], tuple[dict[str, tuple[pd.DataFrame, str]], pd.DataFrame, dict[str, str]]
        ] = {}

    def blocks(self, members: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, str]]:
        """Of every axis that varies, and of `parameters`, its columns [n, levels - 1 or 1] and their unit.

        Numbers count per doubling (per unit where one is 0); text and the seed as indicators of each level but the
        first. Axes that some of the networks do not have are left out. Rows are numbered from 0.
        """
        return self._of(members)[0]

    def joint(self, members: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
        """All axes' columns side by side, and the unit of each; without `parameters`, which the axes determine.

        An axis that the ones before it determine is left out.
        """
        return self._of(members)[1:]

    def _of(self, members: pd.DataFrame) -> tuple[dict[str, tuple[pd.DataFrame, str]], pd.DataFrame, dict[str, str]]:
        key = tuple(members["network_id"])
        if key not in self._known:
            found = _blocks(members.reset_index(drop=True))
            self._known[key] = found, *_joint(found, len(members))
        return self._known[key]


def _blocks(members: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, str]]:
    found = {}
    for axis, kind in {**all_axes(), CAPACITY: int}.items():
        values = members[axis].dropna()
        if values.nunique() < 2 or len(values) < len(members):
            continue
        if kind is str or axis == "seed":
            levels = [str(level) for level in values.unique()]
            columns = {f"{axis}: {level}": (values.astype(str) == level).astype(float) for level in levels[1:]}
            found[axis] = pd.DataFrame(columns), f"against {levels[0]}"
        elif (values > 0).all():
            found[axis] = pd.DataFrame({axis: np.log2(values.astype(float))}), "per doubling"
        else:
            found[axis] = pd.DataFrame({axis: values.astype(float)}), "per unit"
    return found


def _joint(found: dict[str, tuple[pd.DataFrame, str]], rows: int) -> tuple[pd.DataFrame, dict[str, str]]:
    columns, units, kept = [np.ones((rows, 1))], {}, [pd.DataFrame(index=range(rows))]
    for axis, (block, unit) in found.items():
        together = np.column_stack([*columns, block])
        if axis != CAPACITY and np.linalg.matrix_rank(together) == together.shape[1]:
            columns.append(block.to_numpy())
            kept.append(block)
            units |= dict.fromkeys(block, unit)
    return pd.concat(kept, axis=1), units


def inflations(design: pd.DataFrame) -> np.ndarray:
    """The variance inflation factor of each column beside the others and a constant: the diagonal of inverse R."""
    return np.diag(np.linalg.inv(np.corrcoef(design.to_numpy(float), rowvar=False).reshape(2 * design.shape[1:])))


def thin(design: pd.DataFrame, clusters: np.ndarray) -> bool:
    """Whether a level (of a two-valued column, or the reference level) rests on too few clusters for its error.

    With one to three clusters at a level, clustered errors claim effects that are not there far too often.
    """
    values, clusters = design.to_numpy(float), np.asarray(clusters)
    distinct = [np.unique(column) for column in values.T]
    levels = [column == one for column, both in zip(values.T, distinct, strict=True) if len(both) == 2 for one in both]
    if design.shape[1] > 1 and np.isin(values, (0.0, 1.0)).all():
        levels.append((values == 0).all(axis=1))
    return any(len(np.unique(clusters[level])) < FEWEST_AT_A_LEVEL for level in levels)
