"""A network as its file has it, whatever the format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deltaball.exchange.conventions import Convention
from deltaball.exchange.tracing import Arrays, nothing
from deltaball.networks.layers import Layers

if TYPE_CHECKING:
    import torch

SOFTMAX_TAKEN_OFF = "its last softmax is taken off, and logits are judged: gradients of a softmax vanish"

Forward = Callable[["torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True)
class NetworkFile:
    """A network of a file for images of one data set: its layers, or why there are none.

    `arrays` makes the weights of the layers. `runtime` computes logits [n, classes] of images [n, height, width,
    channels] in [0, 1] without our layers; None where the file has no other meaning than these. `forward` makes a
    differentiable function of images and device that does the same on torch.
    """

    path: Path
    shape: tuple[int, int, int]  # of the images
    convention: Convention
    classes: int
    layers: Layers | None = None
    lacking: str = ""  # what has no layer
    arrays: Arrays = nothing
    runtime: Callable[[np.ndarray], np.ndarray] | None = None
    forward: Callable[[str], Forward] | None = None
    remarks: tuple[str, ...] = ()  # what was done with the network, in words
