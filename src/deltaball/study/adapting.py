"""Methods that adapt a trained network to a corruption by unlabelled corrupted images (paper 003, Section 4). Light.

What they have in common are two axes: which corruption's images are seen, and how many. With one corruption a network
is adapted to it alone, the paper's SEPARATE, and is measured under it and no other. With `mnist_c` the images of all
fifteen are pooled, its JOINT.
"""

from typing import ClassVar, Literal

from pydantic import Field

from deltaball.base.errors import InputError
from deltaball.data.catalogue import DatasetFacts
from deltaball.networks.layers import BatchNorm, Clamp, Dense, Layers
from deltaball.study.architectures import ARCHITECTURES
from deltaball.study.axes import Counts, axis
from deltaball.study.corruptions import CORRUPTIONS, FIFTEEN, JOINT
from deltaball.study.descending import Sgd
from deltaball.study.method import FLOAT, Axes, Training


class Adapted(Sgd):
    """Axes of networks that SGD trained and that corrupted images adapted; those but the own ones are the trunk's."""

    has_trunk: ClassVar[bool] = True
    adapts: ClassVar[bool] = True

    corruption: axis(Literal[*CORRUPTIONS, JOINT]) = Field(
        description="whose images it is adapted to; mnist_c pools those of all fifteen"
    )
    corrupted_images: Counts = Field(
        description="N_c: unlabelled corrupted training images that it sees, of each corruption, drawn by seed"
    )

    @classmethod
    def within_pack(cls) -> frozenset[str]:
        return Sgd.within_pack() | cls._own() | {"epochs"}

    @classmethod
    def _own(cls) -> frozenset[str]:
        return frozenset(cls.model_fields) - frozenset(Sgd.model_fields)

    @classmethod
    def trainings_alone(cls, axes: Axes) -> int:
        return 2

    def check_points(self, facts: DatasetFacts) -> None:
        super().check_points(facts)
        for corruption in self.corruption:
            check_images(corruption, max(self.corrupted_images), facts)


class Adapt(Adapted):
    """Axes of adaptation without descent: of the same layers, other weights in some."""

    room: ClassVar[str] = "deltaball.training.adapting"

    method: Literal["adapt"]
    adaptation: axis(Literal["batch_norm", "coral"]) = Field(
        description="batch_norm estimates the statistics of batch normalisation on corrupted images; coral gives "
        "the last layer's inputs the mean and covariance that clean images have (Sun et al. 2016)"
    )

    @classmethod
    def chain(cls, axes: Axes) -> list[Training]:
        """The trunk's training, a trajectory of SGD, then what is made of its weights."""
        trunk = {name: value for name, value in axes.items() if name not in cls._own() | {"epochs"}}
        trained = Training("sgd", trunk, axes["epochs"])
        return [trained, Training("adapt", axes, 0, (trained,), trained)]

    @classmethod
    def searching(cls, axes: Axes, points: int, layers: Layers) -> tuple[float, float]:
        """Each statistic of a normalisation takes a pass; CORAL sees the clean images too."""
        seen = axes["corrupted_images"] * len(members(axes["corruption"]))
        if axes["adaptation"] == "batch_norm":
            return seen * normalisations(layers), 0
        return points, 0

    @classmethod
    def stored_bytes(cls, axes: Axes, parameters: int, checkpoints: tuple[int, ...]) -> int:
        return FLOAT * parameters * len(checkpoints)

    def check_points(self, facts: DatasetFacts) -> None:
        super().check_points(facts)
        own = ARCHITECTURES[self.architecture]
        axes = {name: getattr(self, name)[0] for name in own.axis_names()}
        layers = own.layers(axes, facts.shape, facts.classes)
        if "batch_norm" in self.adaptation and not normalisations(layers):
            raise InputError(
                f"adaptation = batch_norm: architecture '{self.architecture}' has no batch normalisation; conv5 and "
                "resnet20 have"
            )
        if "coral" in self.adaptation and last_dense(layers) is None:
            raise InputError(
                f"adaptation = coral: architecture '{self.architecture}' has no dense layer before its logits, into "
                "which the map of its inputs would go; give another architecture"
            )


def members(corruption: str) -> tuple[str, ...]:
    """The corruptions whose images a network is adapted to."""
    return FIFTEEN if corruption == JOINT else (corruption,)


def check_images(corruption: str, count: int, facts: DatasetFacts) -> None:
    """Raise InputError, beginning with the key, where there are not so many corrupted images of each and clean ones."""
    several = len(members(corruption))
    if several * count >= facts.train:
        most = (facts.train - 1) // several
        of = f"of each of {several} corruptions, all of different images," if several > 1 else "corrupted images"
        raise InputError(
            f"corrupted_images = {count}: {of} are more than {facts.name} has, whose {facts.train} training images "
            f"are shown clean or corrupted and never both; at most {most}"
        )


def normalisations(layers: Layers) -> int:
    """How many batch normalisations a network has."""
    return sum(isinstance(layer, BatchNorm) for layer, _ in layers.within())


def last_dense(layers: Layers) -> int | None:
    """Where in the sequence the dense layer stands that gives the logits, which may be clamped; None: there is none."""
    places = [place for place, layer in enumerate(layers) if not isinstance(layer, Clamp)]
    return places[-1] if isinstance(layers.sequence[places[-1]], Dense) else None
