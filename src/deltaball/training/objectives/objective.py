"""What training minimises, for a pack: one value per network, so that their gradients do not mix."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from deltaball.base.implementations import implementation
from deltaball.networks.autoencoders import AutoEncoder
from deltaball.networks.layers import Layers
from deltaball.networks.models import Layered
from deltaball.study.objectives import DEFAULT, OBJECTIVES
from deltaball.training.draws import Draws


@dataclass(frozen=True)
class Batch:
    """The minibatches of K networks, each its own."""

    images: torch.Tensor  # [K, n, h, w, c] in [0, 1]
    labels: torch.Tensor  # [K, n]
    axes: Mapping[str, torch.Tensor] = field(default_factory=dict)  # of the objective, that vary in a pack: [K] each
    draws: Draws | None = None
    steps: int = 1  # of an epoch

    def epochs(self) -> torch.Tensor:
        """How many epochs of training are over [1], parts of one counted."""
        return (self.draws.before + self.draws.taken) / self.steps


class Objective(ABC):
    """What a step of training minimises. Subclasses compute it; `axes` are those that a whole pack has in common.

    `autoencoder` is the one that they name, of objectives that do.

    On a GPU a step is captured in a CUDA graph and replayed. So `__call__` asks no tensor for its values, decides
    nothing by them, and does the same work in every step.
    """

    def __init__(self, axes: Mapping[str, Any] | None = None, autoencoder: AutoEncoder | None = None) -> None:
        self.axes, self.autoencoder = axes or {}, autoencoder

    @abstractmethod
    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        """The loss [K] of each network on its minibatch; a network's depends on no other network.

        It may be differentiated by images on the way, as an attack does, and read `networks.layers` and `.weights`, as
        a bound does. Random numbers come from `batch.draws` alone.
        """

    def generator_layers(self, layers: Layers) -> Layers | None:
        """Of the generator that is trained beside each network of such layers; None: there is none.

        Where there is one, `__call__` finds it as `networks.generator`, and `of_generator` gives its loss.
        """
        return None


def objective_of(axes: Mapping[str, Any], autoencoder: AutoEncoder | None = None) -> Objective:
    """The objective of a pack that has these axes in common, with the auto-encoder that these may name."""
    entry = OBJECTIVES[axes.get("objective", DEFAULT)]
    common = {axis: axes[axis] for axis in entry.axis_names() if axis not in entry.within_pack()}
    return implementation(entry.implementation)(common, autoencoder)


def varying_axes(pack: Sequence[Mapping[str, Any]], device: str) -> dict[str, torch.Tensor]:
    """The axes of their objective on which the networks of a pack may differ, [K] each; `pack` has each one's axes."""
    names = OBJECTIVES[pack[0].get("objective", DEFAULT)].within_pack()
    return {name: torch.tensor([axes[name] for axes in pack], device=device) for name in sorted(names)}
