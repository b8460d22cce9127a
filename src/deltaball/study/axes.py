"""What an axis of a grid may hold. Standard library and pydantic only."""

import re
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from typing_extensions import TypeAliasType

from deltaball.base.errors import shown
from deltaball.study.schedules import spelled

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _listed(values: Any) -> Any:
    return values if isinstance(values, list) else [values]


def distinct(values: list[Any]) -> list[Any]:
    repeated = next((value for value in values if values.count(value) > 1), None)
    if repeated is not None:
        raise ValueError(f"{shown(repeated)} is listed twice; list each once")
    return values


def axis(kind: Any) -> Any:
    """The type of an axis: one value of `kind`, or a list of distinct ones."""
    several = Annotated[list[kind], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
    return Annotated[several, AfterValidator(distinct), BeforeValidator(_listed, json_schema_input_type=kind | several)]


# Bounds that no study of small networks reaches, so that a slip of the keyboard is told and not planned.
Count = Annotated[int, Field(ge=1, le=1_000_000)]

# Of what is repeated: layers, and rounds of pruning.
Repeats = TypeAliasType("Repeats", axis(Annotated[int, Field(ge=1, le=1000)]))

SHORT, ALIKE = 5, 1e-6  # letters of a number that is read easily; of two radii in levels

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _quotient(value: Any) -> Any:
    """8/255, as peers write a radius, as a number; anything else as it is."""
    found = re.fullmatch(r"\s*(\d+)\s*/\s*([1-9]\d*)\s*", value) if isinstance(value, str) else None
    return int(found[1]) / int(found[2]) if found else value


def radius(kind: Any) -> Any:
    """A number of `kind`, which may be written as a quotient: 8/255."""
    quotient = Annotated[str, StringConstraints(pattern=r"^\s*\d+\s*/\s*[1-9]\d*\s*$")]
    return Annotated[kind, BeforeValidator(_quotient, json_schema_input_type=kind | quotient)]


def radius_text(value: float) -> str:
    """A radius as it is read most easily: 20/255, and 0.1 where that is short."""
    levels, short = round(255 * value), f"{value:g}"
    return short if len(short) <= SHORT or abs(255 * value - levels) > ALIKE else f"{levels}/255"


Share = Annotated[float, Field(gt=0, lt=1)]

Proportion = Annotated[float, Field(ge=0, lt=1)]

Seed = Annotated[int, Field(ge=0, lt=2**63)]

ActivationName = Literal["relu", "tanh", "sigmoid"]

# Named, so that the JSON schema says once what they are.
Counts = TypeAliasType("Counts", axis(Count))

Rates = TypeAliasType("Rates", axis(Positive))

Proportions = TypeAliasType("Proportions", axis(Proportion))

Seeds = TypeAliasType("Seeds", axis(Seed))

Deviations = TypeAliasType("Deviations", axis(Annotated[float, Field(ge=0, allow_inf_nan=False)]))

Delays = TypeAliasType("Delays", axis(Annotated[int, Field(ge=0, le=1_000_000)]))

Activations = TypeAliasType("Activations", axis(ActivationName))

Optimizers = TypeAliasType("Optimizers", axis(Literal["sgd", "adam"]))

Outputs = TypeAliasType("Outputs", axis(Literal["linear", "clamp"]))

Schedules = TypeAliasType("Schedules", axis(Annotated[str, AfterValidator(spelled)]))

Precisions = TypeAliasType("Precisions", axis(Literal["float32", "bfloat16"]))

# Values that any axis of a type may have; null is any.
VALUES = {
    int: TypeAliasType("Integers", axis(int) | None),
    float: TypeAliasType("Numbers", axis(float) | None),
    str: TypeAliasType("Words", axis(str) | None),
}

# Marks an axis on which the networks of one pack may differ: their weights have one shape, and train side by side.
WITHIN_PACK = "within a pack"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    @cache
    def within_pack(cls) -> frozenset[str]:
        """The axes on which the networks of one pack may differ."""
        return frozenset(name for name, field in cls.model_fields.items() if WITHIN_PACK in field.metadata)
