"""DEMOGEN's networks (Jiang et al. 2019), TensorFlow checkpoints of NiN and ResNet-32, as files that a study reads.

What is known of them beyond the names of their arrays is in google-research/google-research, demogen: strides, padding,
the order of layers, and that each image of pixels from 0 to 255 is standardised by its own mean and deviation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from deltaball.base.errors import InputError
from deltaball.base.files import written_whole
from deltaball.exchange import checkpoint_files

Arrays = Mapping[str, np.ndarray]
Entry = Any  # of a description's layers

SCOPES = ("nin", "resnet")
# Of batch normalisation: what TensorFlow has unless it is told otherwise, and what DEMOGEN's ResNets tell it.
EPSILONS = {"nin": 1e-3, "resnet": 1e-5}
GROUPS, GROUP_EPSILON = 32, 1e-6  # of group normalisation, that half of the ResNets have: so many groups at most
BLOCKS, IN_A_BLOCK = 3, 3  # of a NiN, and convolutions in each
STRIDES = (1, 2, 2)  # of the stages of a ResNet


def convert(source: Path, target: Path) -> list[Path]:
    """Write NAME.safetensors and NAME.yaml for every checkpoint under `source`, NAME being that of its folder.

    Those of one data set are in a folder of its own, as in the archive. Returns the files. Raises
    InputError where there is no checkpoint, or one cannot be read.
    """
    indices = sorted(source.rglob("*.index"))
    if not indices:
        raise InputError(f"{source}: there is no checkpoint in it (*.index); unpack demogen_models.tar.gz there")
    written = []
    for index in indices:
        checkpoint, folder = index.with_suffix(""), index.parent
        scope = next((one for one in SCOPES if folder.name.startswith(f"{one}_")), None)
        if scope is None:
            raise InputError(f"{folder}: its name should begin with {' or '.join(f'{one}_' for one in SCOPES)}")
        arrays = checkpoint_files.arrays(checkpoint, f"{scope}/")
        layers, tensors = described(scope, arrays)
        path = target / folder.parent.name / f"{folder.name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            save_file(tensors, temporary)
        content = {"input": {"layout": "channels_last", "range": "0..255"}, "layers": layers}
        with written_whole(path.parent / f"{folder.name}.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        written.append(path)
    return written


def described(scope: str, arrays: Arrays) -> tuple[list[Entry], dict[str, np.ndarray]]:
    """The layers of a network of the scope nin or resnet, as a description has them, and the tensors that they name.

    Raises InputError where the arrays are not those of one.
    """
    network = Network(scope, arrays)
    try:
        layers = [*{"nin": _nin, "resnet": _resnet}[scope](network)]
    except KeyError as missing:
        raise InputError(f"a checkpoint of {scope} has no array {missing}") from None
    return ["standardise", *layers], network.tensors


class Network:
    """The arrays of a checkpoint, in the order in which TensorFlow made and numbered layers of each kind."""

    def __init__(self, scope: str, arrays: Arrays) -> None:
        self.scope, self.arrays = scope, arrays
        self.tensors: dict[str, np.ndarray] = {}
        self.counts = {"conv2d": 0, "batch_normalization": 0, "group_norm": 0, "dense": 0}

    def next(self, kind: str, parts: tuple[str, ...]) -> str:
        """The name of the next layer of a kind, of which these arrays are taken."""
        number = self.counts[kind]
        self.counts[kind] += 1
        name = f"{kind}_{number}" if number else kind
        for part in parts:
            self.tensors[f"{name}.{part}"] = np.ascontiguousarray(self.arrays[f"{self.scope}/{name}/{part}"])
        return name

    def convolution(self, stride: int = 1, padding: Any = "same", bias: bool = False) -> Entry:
        name = self.next("conv2d", ("kernel", "bias")[: 1 + bias])
        return {"layer": "conv", "name": name, "stride": stride, "padding": padding}

    def normalisation(self) -> Entry:
        if any("/group_norm" in name for name in self.arrays):
            return self.group_normalisation()
        name = self.next("batch_normalization", ("gamma", "beta", "moving_mean", "moving_variance"))
        return {"layer": "batch_norm", "name": name, "epsilon": EPSILONS[self.scope]}

    def group_normalisation(self) -> Entry:
        name = self.next("group_norm", ("gamma", "beta"))
        for part in ("gamma", "beta"):
            self.tensors[f"{name}.{part}"] = self.tensors[f"{name}.{part}"].ravel()  # has an axis for each of a map's
        groups = min(GROUPS, self.tensors[f"{name}.gamma"].size)
        return {"layer": "group_norm", "name": name, "groups": groups, "epsilon": GROUP_EPSILON}

    @property
    def convolutions(self) -> int:
        return sum(name.endswith("/kernel") and "/conv2d" in name for name in self.arrays)


def _nin(network: Network) -> list[Entry]:
    normalised = any("batch_normalization" in name for name in network.arrays)
    layers: list[Entry] = []
    for _ in range(BLOCKS):
        for place in range(IN_A_BLOCK):
            layers.append(network.convolution(1 if place else 2, bias=True))
            layers += [network.normalisation()] if normalised else []
            layers.append("relu")
    return [*layers, network.convolution(padding="valid", bias=True), "flatten"]


def _resnet(network: Network) -> list[Entry]:
    """Normalisation and ReLU come before convolutions (He et al. 2016, identity mappings).

    Where a stage begins they come before the shortcut too, a convolution of 1×1, which TensorFlow numbers first.
    """
    blocks = (network.convolutions - 1 - len(STRIDES)) // (2 * len(STRIDES))
    layers: list[Entry] = [network.convolution()]
    for stride in STRIDES:
        layers += [network.normalisation(), "relu"]
        shortcut = [network.convolution(stride, "valid")]
        around = "same" if stride == 1 else [1, 1, 1, 1]
        body = [network.convolution(stride, around), network.normalisation(), "relu", network.convolution()]
        layers.append({"layer": "residual", "body": body, "shortcut": shortcut})
        for _ in range(blocks - 1):
            body = [entry for _ in range(2) for entry in (network.normalisation(), "relu", network.convolution())]
            layers.append({"layer": "residual", "body": body})
    last = [network.normalisation(), "relu", "global_average_pool"]
    return [*layers, *last, {"layer": "dense", "name": network.next("dense", ("kernel", "bias"))}]
