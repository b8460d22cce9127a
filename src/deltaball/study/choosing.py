"""Which value of an axis counts where trainings are compared, by a rule that no test image has a say in. Light."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from deltaball.base.errors import InputError, alternatives, shown
from deltaball.study.axes import Name, Strict


class Choice(Strict):
    """Of networks that differ in one axis alone, the one that is compared with others.

    It is the network whose accuracy on the held-out training images is closest to that of the same setting's network of
    `to`; of equally close ones the value that is listed first.
    """

    axis: Name = Field(description="the axis whose value is chosen: for every setting of the other axes, the seed too")
    to: Name = Field(description="the grid that accuracy is to be close to")


def shared(grid: Any, other: Any) -> list[str]:
    """The axes that tell a setting: those of both grids, but for the one whose value is chosen and the objective."""
    apart = {grid.choose.axis, "objective"}
    return [name for name in grid.axis_names() if name in other.axis_names() and name not in apart]


def check(grid: Any, grids: Sequence[Any]) -> None:
    """Raise InputError, beginning with the key, where a grid's choice cannot be made."""
    if grid.choose is None:
        return
    axis, names = grid.choose.axis, {one.name: one for one in grids}
    _check_axis(grid, axis)
    if grid.choose.to not in names or grid.choose.to == grid.name:
        others = [name for name in names if name != grid.name]
        raise InputError(f"choose.to: no other grid '{grid.choose.to}'; {alternatives(grid.choose.to, others)}")
    other = names[grid.choose.to]
    if other.choose is not None:
        raise InputError(f"choose.to: grid '{other.name}' chooses among its networks itself; name one that does not")
    for name, value in grid.groups().items():
        if name in ("dataset", "architecture") and other.groups()[name] != value:
            raise InputError(f"choose.to: grid '{other.name}' has {name} {other.groups()[name]}, and this one {value}")
    for one in (grid, other):
        if "validation" not in one.axis_names() or not min(one.values("validation")):
            raise InputError(
                f"choose: accuracies are compared on training images that are held out, and grid '{one.name}' holds "
                "out none; give both grids the same, as validation: 5000"
            )
        if one.sample is not None:
            raise InputError(f"choose: grid '{one.name}' is a sample, in which settings have gaps; leave sample out")
    _check_settings(grid, other)


def _check_axis(grid: Any, axis: str) -> None:
    if axis not in grid.axis_names():
        raise InputError(f"choose.axis: the grid has no axis '{axis}'; {alternatives(axis, grid.axis_names())}")
    if axis in ("seed", "epochs", "validation", "train_points"):
        raise InputError(
            f"choose.axis: '{axis}' says which images are seen, or for how long, and not how; choose another"
        )
    if len(grid.values(axis)) < 2:
        raise InputError(f"choose.axis: '{axis}' has one value, {shown(grid.values(axis)[0])}; list several")


def _check_settings(grid: Any, other: Any) -> None:
    """Refuse settings of which the other grid has no network, or more than one."""
    for name in shared(grid, other):
        absent = [value for value in grid.values(name) if value not in other.values(name)]
        if absent:
            value = shown(absent[0])
            raise InputError(f"choose.to: grid '{other.name}' has no network with {name} {value}, as this one has")
    several = [name for name in other.axis_names() if name not in shared(grid, other) and len(other.values(name)) > 1]
    if several:
        raise InputError(f"choose.to: grid '{other.name}' has several values of {several[0]}; which one is not said")
