"""Objectives: what training minimises, and the axes of each. Light: the losses are in `training.objectives`.

A new objective is one class there and one entry in OBJECTIVES.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field, create_model

from deltaball.study.axes import Strict

DEFAULT = "cross_entropy"


class Objective(Strict):
    """What training minimises: its axes, and the class that computes it."""

    implementation: ClassVar[str]  # the class, by its dotted path: one of training.objectives

    @classmethod
    def axis_names(cls) -> list[str]:
        """The names of its axes."""
        return [name for name in cls.model_fields if name != "objective"]


def _objective(name: str, implementation: str, about: str, **axes: tuple[Any, Any]) -> type[Objective]:
    """An entry of OBJECTIVES: its name, the class that computes it, what it is, and its axes as (type, default)."""
    tag = (Literal[name], Field(DEFAULT) if name == DEFAULT else ...)
    entry = create_model(name, __base__=Objective, __doc__=about, objective=tag, **axes)
    entry.implementation = implementation
    return entry


OBJECTIVES: dict[str, type[Objective]] = {
    one.__name__: one
    for one in (
        _objective(
            "cross_entropy",
            "deltaball.training.objectives.cross_entropy.CrossEntropy",
            "The mean cross-entropy of softmax and labels.",
        ),
    )
}
