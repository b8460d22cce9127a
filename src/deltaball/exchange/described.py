"""The YAML beside a file of weights: its layers, and how images enter it."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from deltaball.base.errors import InputError
from deltaball.exchange.conventions import Convention, Layout, pixel_range

Sides = tuple[int, int, int, int]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entering(_Strict):
    """How images enter the network."""

    layout: Layout | None = None
    range: Annotated[str, BeforeValidator(str)] | None = None
    mean: float | list[float] = 0.0
    std: float | list[float] = 1.0

    def convention(self) -> Convention:
        pixels = None if self.range is None else pixel_range(self.range)
        return Convention(self.layout, pixels, _numbers(self.mean), _numbers(self.std))


def _numbers(given: float | list[float]) -> tuple[float, ...]:
    return tuple(given) if isinstance(given, list) else (given,)


class DenseEntry(_Strict):
    layer: Literal["dense"]
    name: str


class ConvEntry(_Strict):
    layer: Literal["conv"]
    name: str
    stride: int = 1
    padding: Literal["same", "valid"] | Sides = "valid"


class BatchNormEntry(_Strict):
    layer: Literal["batch_norm"]
    name: str
    epsilon: float = 1e-5


class GroupNormEntry(_Strict):
    layer: Literal["group_norm"]
    name: str
    groups: int = Field(gt=0)
    epsilon: float = 1e-5


class ActivationEntry(_Strict):
    layer: Literal["relu", "tanh", "sigmoid"]


class LeakyReLUEntry(_Strict):
    layer: Literal["leaky_relu"]
    slope: float = Field(ge=0, lt=1)


class ClampEntry(_Strict):
    layer: Literal["clamp"]
    low: float
    high: float


class PoolEntry(_Strict):
    layer: Literal["max_pool", "average_pool"]
    size: int = 2
    stride: int = 2
    padding: Literal["same", "valid"] | Sides = "valid"
    ceil: bool = False


class PlainEntry(_Strict):
    layer: Literal["flatten", "global_average_pool", "standardise"]


class SubsampleEntry(_Strict):
    layer: Literal["subsample"]
    stride: int
    channels: int


class ResidualEntry(_Strict):
    layer: Literal["residual"]
    body: list["Entry"]
    shortcut: list["Entry"] = []


def _written_out(entry: Any) -> Any:
    """`relu` is short for `{layer: relu}`."""
    return {"layer": entry} if isinstance(entry, str) else entry


Entry = Annotated[
    Annotated[
        DenseEntry
        | ConvEntry
        | BatchNormEntry
        | GroupNormEntry
        | ActivationEntry
        | LeakyReLUEntry
        | ClampEntry
        | PoolEntry
        | PlainEntry
        | SubsampleEntry
        | ResidualEntry,
        Field(discriminator="layer"),
    ],
    BeforeValidator(_written_out),
]


class Description(_Strict):
    """What a YAML file says of the network beside it; `layers` where that is a file of bare weights."""

    input: Entering = Entering()
    layers: list[Entry] = []


def described(path: Path) -> Description:
    """What is written beside a file, in NAME.yaml. Raises InputError with what is wrong with it."""
    beside = path.with_suffix(".yaml")
    if not beside.exists():
        return Description()
    try:
        content = yaml.safe_load(beside.read_text(encoding="utf-8"))
        return Description.model_validate(content or {})
    except OSError as problem:
        raise InputError(f"{beside}: cannot be read ({problem.strerror})") from None
    except (UnicodeDecodeError, yaml.YAMLError) as problem:
        raise InputError(f"{beside}: not valid YAML ({' '.join(str(problem).split())})") from None
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise InputError(f"{beside}: {where}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
