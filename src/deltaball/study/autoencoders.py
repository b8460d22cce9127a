"""Auto-encoders of a study: they classify nothing; the decoder stands for the manifold of a data set. Light.

Each is trained once per data set and seed, and shared by whatever needs it. It is no network of a grid: it has no row
in the tables, and no measure concerns it.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, model_validator

from deltaball.networks.coders import Coders
from deltaball.study.axes import Count, Name, Positive, Seed, Strict

LAMBDA = 10.0


class AutoEncoder(Strict):
    """An auto-encoder of one data set: plain, or a Wasserstein one, whose codes look like a normal distribution's."""

    name: Name
    dataset: Name
    kind: Literal["plain", "wasserstein"] = Field(
        "wasserstein", description="wasserstein pulls codes to a standard normal distribution (Tolstikhin et al. 2018)"
    )
    latent: Count = Field(8, description="numbers of a code")
    filters: Count = Field(16, description="of the first of three convolutions; each next one has twice as many")
    penalty: Positive | None = Field(
        None, description=f"λ, weight of the discrepancy of codes; of wasserstein, {LAMBDA:g} if left out"
    )
    learning_rate: Positive = 0.001
    epochs: Count = 20
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 100
    seed: Seed = Field(0, description="draws the initial weights, the order of the data and the normal codes")

    @property
    def weight(self) -> float:
        """λ."""
        if self.kind == "plain":
            return 0.0
        return LAMBDA if self.penalty is None else self.penalty

    def coders(self, shape: tuple[int, int, int]) -> Coders:
        """The layers, of images `shape`."""
        return Coders(shape, self.latent, self.filters)

    @property
    def label(self) -> str:
        """What measures call it in the tables: its name, and a hash of all else but the data set that its weights
        depend on, so that outcomes of another one are not taken for its own."""
        axes = self.model_dump(exclude={"name", "dataset", "penalty"}) | {"weight": self.weight}
        text = json.dumps(axes, sort_keys=True, separators=(",", ":"))
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @model_validator(mode="after")
    def _penalised(self) -> "AutoEncoder":
        if self.kind == "plain" and self.penalty is not None:
            raise ValueError(f"penalty {self.penalty:g} is for kind wasserstein, and this one is plain")
        return self
