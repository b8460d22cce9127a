"""What every method says of itself: the trainings that its networks need, and what these cost. Light, as the study."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from deltaball.data.catalogue import DatasetFacts
from deltaball.networks.layers import Layers
from deltaball.study.axes import Strict
from deltaball.study.schedules import CONSTANT, schedule

FLOAT = 4  # bytes

Axes = Mapping[str, Any]


@dataclass(frozen=True)
class Training:
    """One of the trainings that a network needs: a trajectory that has no id yet, up to one checkpoint."""

    method: str
    axes: Axes  # without the one along the trajectory
    checkpoint: int
    parents: tuple["Training", ...] = ()  # whose checkpoints it starts from
    origin: "Training | None" = None  # whose initial weights and order of data it has; None: its own


class Method(Strict):
    """How networks come to their weights. `axes` are a network's or a trajectory's hyper-parameters."""

    architectures: ClassVar[tuple[str, ...] | None] = None  # those it can train; None: every one that is trained
    objectives: ClassVar[tuple[str, ...] | None] = None  # those it can minimise; None: every one
    along: ClassVar[str] = "epochs"  # the axis that counts along a trajectory
    room: ClassVar[str]  # the module that trains
    on_jax: ClassVar[bool] = False  # else on torch
    is_pruning: ClassVar[bool] = False
    has_trunk: ClassVar[bool] = False  # whether a network is compared with the one that its chain begins with
    adapts: ClassVar[bool] = False  # whether it adapts a network to corruptions by their images
    one_by_one: ClassVar[bool] = False  # whether each trajectory is a pack of its own
    trains: ClassVar[bool] = True  # else weights come from elsewhere
    averages_samples: ClassVar[bool] = False  # whether a network is a mean over samples of a posterior
    rank: ClassVar[int] = 0  # trajectories of a higher rank may start from those of a lower one
    refers: ClassVar[bool] = False  # whether checkpoints have no weights of their own but name their parents'

    @classmethod
    def chain(cls, axes: Axes) -> list[Training]:
        """The trainings that a network needs, each after its parents; the network is the last one's checkpoint."""
        fixed = {name: value for name, value in axes.items() if name != cls.along}
        (name,) = get_args(cls.model_fields["method"].annotation)
        return [Training(name, fixed, axes[cls.along])]

    @classmethod
    def turn(cls, axes: Axes) -> tuple[int, ...]:
        """Which training of its chain a trajectory is, as far as one pack has it in common; parents sort first."""
        return ()

    @classmethod
    def trainings_alone(cls, axes: Axes) -> int:
        """How many trainings a network would take that shared none with others."""
        return 1

    @classmethod
    def images_each(cls, axes: Axes, points: int) -> int:
        """Images that one epoch (or sample) of a trajectory passes, of so many training points."""
        return points

    @classmethod
    def images(cls, axes: Axes, points: int, checkpoint: int) -> int:
        """Images that a trajectory passes forward and backward up to a checkpoint."""
        return cls.images_each(axes, points) * checkpoint

    @classmethod
    def rate(cls, axes: Axes, epoch: int) -> float:
        """The learning rate of a trajectory in an epoch of gradient descent, from 0 on."""
        return axes["learning_rate"] * schedule(axes.get("schedule", CONSTANT)).factor(epoch)

    @classmethod
    def searching(cls, axes: Axes, points: int, layers: Layers) -> tuple[float, float]:
        """What training takes besides descending: forward passes of an image, and seconds of a CPU."""
        return 0, 0

    @classmethod
    def parameters(cls, axes: Axes, points: int, layers: Layers) -> int:
        """How many numbers training finds, of so many training points."""
        return layers.parameters

    @classmethod
    def stored_bytes(cls, axes: Axes, parameters: int, checkpoints: tuple[int, ...]) -> int:
        """Bytes of a trajectory's checkpoints: float32 weights, and their moments."""
        return (1 + cls.moments(axes)) * FLOAT * parameters * len(checkpoints)

    @classmethod
    def workspace(cls, axes: Axes, points: int, layers: Layers) -> int:
        """Bytes that training one trajectory holds besides weights and a batch."""
        return 0

    @classmethod
    def moments(cls, axes: Axes) -> int:
        """How many numbers an optimizer keeps of each weight."""
        return 2 if axes.get("optimizer") == "adam" else 0

    @classmethod
    def averaged(cls, axes: Axes, checkpoint: int) -> int:
        """How many sets of weights a network averages, and its measures pass."""
        return 1

    def check_points(self, facts: DatasetFacts) -> None:
        """Raise InputError, beginning with the key, for values of a grid's axes that cannot be had on its data."""
