"""The trainings that a transfer takes and no grid names: of its auto-encoders, and of networks behind it. Light."""

from typing import ClassVar

from deltaball.networks.layers import Layers
from deltaball.study.method import FLOAT, Axes, Method


class Pairing(Method):
    """The training of paired auto-encoders, one of `transfers.Pair`: axis `pairs` has it. It gives no network."""

    room: ClassVar[str] = "deltaball.training.pairs"
    one_by_one: ClassVar[bool] = True
    rank: ClassVar[int] = -1

    @classmethod
    def images_each(cls, axes: Axes, points: int) -> int:
        """Clean images, and in each step as many corrupted ones, if there are any."""
        (pair,) = axes["pairs"]
        return (1 + bool(pair.corruptions)) * pair.split(points).clean

    @classmethod
    def parameters(cls, axes: Axes, points: int, layers: Layers) -> int:
        """Those of E, D1 and, where images are corrupted, D2."""
        (pair,) = axes["pairs"]
        return layers.parameters + bool(pair.corruptions) * pair.decoder(layers.shape).parameters

    @classmethod
    def moments(cls, axes: Axes) -> int:
        return 2

    @classmethod
    def stored_bytes(cls, axes: Axes, parameters: int, checkpoints: tuple[int, ...]) -> int:
        """Bytes of the weights after the last epoch: what it takes to go on is kept only until then."""
        return FLOAT * parameters


class Transferred(Method):
    """f∘T of a classifier f and paired auto-encoders, axis `pairs`, that were trained before. Nothing is trained."""

    room: ClassVar[str] = "deltaball.training.transferring"
    one_by_one: ClassVar[bool] = True  # each has a T of its own
    rank: ClassVar[int] = 1
    refers: ClassVar[bool] = True

    @classmethod
    def stored_bytes(cls, axes: Axes, parameters: int, checkpoints: tuple[int, ...]) -> int:
        """It is kept as the names of what it is made of."""
        return 0
