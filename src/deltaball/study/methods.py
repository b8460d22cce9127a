"""Methods: how networks come to their weights; the axes of each, the trainings that it takes, and what these cost.

Light: no array library. A new method is one class, one entry in METHODS, and a module of `training` (its `room`) with a
function `train`.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from deltaball.base.errors import InputError
from deltaball.data.catalogue import DatasetFacts
from deltaball.study.axes import WITHIN_PACK, Count, Counts, Delays, Rates, Seeds, axis
from deltaball.study.descending import Finetune, Imp, Sgd
from deltaball.study.method import FLOAT, Axes, Method, Training


class Hmc(Method):
    """Axes of Hamiltonian Monte Carlo (paper 004, B.8 and B.9); `posterior_samples` counts along one chain."""

    architectures: ClassVar = ("fcn",)
    objectives: ClassVar = ("cross_entropy",)  # minus the log-likelihood
    along: ClassVar[str] = "posterior_samples"
    room: ClassVar[str] = "deltaball.training.hmc"
    on_jax: ClassVar[bool] = True
    averages_samples: ClassVar[bool] = True

    method: Literal["hmc"]
    step_size: Annotated[Rates, WITHIN_PACK] = Field(description="step of the leapfrog integrator")
    leapfrog_steps: Counts = Field(description="steps of one trajectory of the integrator")
    posterior_samples: Counts = Field(description="samples of the posterior that the network averages")
    thinning: Annotated[Counts, WITHIN_PACK] = Field([1], description="of those samples, average every so many-th only")
    prior_scale: Annotated[Rates, WITHIN_PACK] = Field(
        [1.0], description="standard deviation of the normal prior on every weight and bias"
    )
    likelihood_scale: Annotated[Rates, WITHIN_PACK] = Field(
        [1.0], description="factor of the log-likelihood; 1 samples the posterior"
    )
    train_points: axis(Count | None) = Field([None], description="training points seen, drawn by seed; null is all")
    burn_in: Delays = Field([0], description="transitions before the first sample")
    start: axis(Literal["glorot", "prior"]) = Field(["glorot"], description="what the first weights are drawn from")
    warm_epochs: Delays = Field([0], description="epochs of SGD between that draw and the chain")
    seed: Annotated[Seeds, WITHIN_PACK] = Field([0], description="draws the training points, the start and the chain")

    @classmethod
    def images_each(cls, axes: Axes, points: int) -> int:
        return (axes["train_points"] or points) * axes["leapfrog_steps"]

    @classmethod
    def images(cls, axes: Axes, points: int, checkpoint: int) -> int:
        warm = (axes["train_points"] or points) * axes["warm_epochs"]
        return warm + cls.images_each(axes, points) * (axes["burn_in"] + checkpoint)

    @classmethod
    def stored_bytes(cls, axes: Axes, parameters: int, checkpoints: tuple[int, ...]) -> int:
        """Bytes of a chain's samples."""
        return FLOAT * parameters * cls.averaged(axes, checkpoints[-1])

    @classmethod
    def averaged(cls, axes: Axes, checkpoint: int) -> int:
        return checkpoint // axes["thinning"]

    def check_points(self, facts: DatasetFacts) -> None:
        most = max((count for count in self.train_points if count), default=0)
        if most > facts.train:
            raise InputError(f"train_points = {most}: {facts.name} has {facts.train}; null takes all")
        thinnest, shortest = max(self.thinning), min(self.posterior_samples)
        if shortest < thinnest:
            raise InputError(f"thinning = {thinnest} leaves none of {shortest} posterior_samples")


class Given(Method):
    """Networks that nobody trains here: their weights are those of their files."""

    architectures: ClassVar = ("file",)
    objectives: ClassVar = ("cross_entropy",)  # which none of them minimises
    room: ClassVar[str] = "deltaball.training.given"
    trains: ClassVar[bool] = False

    method: Literal["given"]

    @classmethod
    def chain(cls, axes: Axes) -> list[Training]:
        from deltaball.exchange import reading

        # What is read later must be what was planned.
        return [Training("given", {**axes, "content": reading.digest(Path(axes["file"]))}, 0)]

    @classmethod
    def images_each(cls, axes: Axes, points: int) -> int:
        return 0


METHODS: dict[str, type[Method]] = {"sgd": Sgd, "imp": Imp, "finetune": Finetune, "hmc": Hmc, "given": Given}
