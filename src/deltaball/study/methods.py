"""Methods: how networks come to their weights; the axes of each, the trainings that it takes, and what these cost.

Light: no array library. A new method is one class, one entry in METHODS, and a module of `training` (its `room`) with a
function `train`.
"""

import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from deltaball.base.errors import InputError
from deltaball.data.catalogue import DatasetFacts
from deltaball.networks.layers import Layers
from deltaball.study.adapting import Adapt
from deltaball.study.axes import WITHIN_PACK, Count, Counts, Delays, Deviations, Rates, Seeds, axis
from deltaball.study.descending import Finetune, Imp, Sgd
from deltaball.study.method import FLOAT, Axes, Method, Training
from deltaball.study.transferring import Pairing, Transferred


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


class Svm(Method):
    """Axes of support vector machines (paper 003): one for each pair of classes, each with a hinge loss of its own."""

    architectures: ClassVar = ("rbf_svm",)
    objectives: ClassVar = ("cross_entropy",)  # which none of them minimises
    room: ClassVar[str] = "deltaball.training.svm"
    one_by_one: ClassVar[bool] = True  # each has support vectors of its own

    # Seconds of a CPU core per pair of images that a solver sees together.
    SECONDS: ClassVar[float] = 3e-8
    # Numbers of an image that are kept for each number that is found.
    KEPT: ClassVar[int] = 100

    method: Literal["svm"]
    penalty: Rates = Field([5.0], description="C: what a training image on the wrong side of its margin costs")
    train_points: axis(Count | None) = Field([None], description="training images seen, drawn by seed; null is all")
    noise_deviation: Deviations = Field(
        [0.0],
        description="standard deviation of normal noise in a copy of each training image, then clipped, that is seen "
        "beside it (0.1 in paper 003); 0 makes no copies",
    )
    seed: Seeds = Field([0], description="draws the training images, where not all are seen, and their noise")

    @classmethod
    def chain(cls, axes: Axes) -> list[Training]:
        return [Training("svm", axes, 0)]

    @classmethod
    def images_each(cls, axes: Axes, points: int) -> int:
        return (axes["train_points"] or points) * (2 if axes["noise_deviation"] else 1)

    @classmethod
    def parameters(cls, axes: Axes, points: int, layers: Layers) -> int:
        """The multipliers of the dual problems and the intercepts; most multipliers are found to be 0."""
        classes = layers.output[0]
        return cls.images_each(axes, points) * (classes - 1) + math.comb(classes, 2)

    @classmethod
    def searching(cls, axes: Axes, points: int, layers: Layers) -> tuple[float, float]:
        """Each pair of classes sees its own images, so of c classes all pairs see 2 (c - 1) / c of n² pairs."""
        classes, seen = layers.output[0], cls.images_each(axes, points)
        return 0, cls.SECONDS * seen**2 * 2 * (classes - 1) / classes

    @classmethod
    def workspace(cls, axes: Axes, points: int, layers: Layers) -> int:
        """The kernel of a pair of classes, in float32 and in float64, where one is a tenth larger than others."""
        pair = 2.2 * cls.images_each(axes, points) / layers.output[0]
        return round((FLOAT + 2 * FLOAT) * pair**2)

    @classmethod
    def stored_bytes(cls, axes: Axes, parameters: int, checkpoints: tuple[int, ...]) -> int:
        """Bytes of support vectors and coefficients, about."""
        return FLOAT * cls.KEPT * parameters

    def check_points(self, facts: DatasetFacts) -> None:
        most = max((count for count in self.train_points if count), default=0)
        if most > facts.train:
            raise InputError(f"train_points = {most}: {facts.name} has {facts.train}; null takes all")
        if len(self.seed) > 1 and None in self.train_points and 0 in self.noise_deviation:
            raise InputError(f"seed = {self.seed}: it draws training images, and train_points = null sees all of them")


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


METHODS: dict[str, type[Method]] = {
    "sgd": Sgd,
    "imp": Imp,
    "finetune": Finetune,
    "adapt": Adapt,
    "hmc": Hmc,
    "svm": Svm,
    "given": Given,
}

# Of every trajectory, those that no grid names too.
TRAININGS: dict[str, type[Method]] = {**METHODS, "pair": Pairing, "transfer": Transferred}
