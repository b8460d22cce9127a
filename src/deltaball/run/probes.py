"""Packs that span what studies train, to be measured for the rates of a device."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from deltaball.networks.layers import Layers
from deltaball.plan.packing import PACK_PARAMETERS
from deltaball.plan.together import PACK_NETWORKS
from deltaball.study.architectures import layers
from deltaball.study.methods import METHODS

# On a GPU every shape is probed in a pack as the paper's grids have them, and in one that fills it better.
ON_CUDA = (4, 64)


@dataclass(frozen=True)
class Probe:
    """A pack to be measured."""

    method: str
    architecture: str
    axes: Mapping[str, Any]
    shape: tuple[int, int, int]
    networks: int  # on a CPU
    points: int = 0  # of training data; 0: as many as take SECONDS

    @property
    def layers(self) -> Layers:
        return layers(self.architecture, self.axes, self.shape, 10)

    def __str__(self) -> str:
        axes, image = self.axes, "×".join(map(str, self.shape))
        if self.architecture == "fcn":
            network = f"fcn {axes['width']}×{axes['depth']}"
        else:
            dense = f"{axes['fc_width']}×{axes['fc_depth']}"
            network = f"{self.architecture} {axes['filters']} k{axes['kernel']} ×{axes['conv_depth']} {dense}"
        batch = f" by {axes['batch_size']}" if not METHODS[self.method].averages_samples else f" {self.points:,} points"
        precision = f" in {axes['precision']}" if "precision" in axes else ""
        return f"{self.method} {network} on {image}{batch}{precision}, pack of {self.networks}"


def fcn(width: int, depth: int, batch: int, networks: int, method: str = "sgd", **other: Any) -> Probe:
    """A pack of fully connected networks; `other` axes, and the images' `shape`."""
    shape = other.pop("shape", (28, 28, 1))
    axes = {"width": width, "depth": depth, "activation": "relu", "batch_size": batch, "optimizer": "sgd", **other}
    return Probe(method, "fcn", axes, shape, networks)


def cnn(filters: int, kernel: int, depth: int, batch: int, networks: int, **other: Any) -> Probe:
    """A pack of convolutional networks (`vgg` for blocks of two); `other` as in `fcn`."""
    vgg = other.pop("vgg", False)
    shape = other.pop("shape", (32, 32, 3) if vgg else (28, 28, 1))
    axes = {"filters": filters, "kernel": kernel, "conv_depth": depth, "fc_depth": 1, "fc_width": 128}
    axes |= {"activation": "relu", "batch_size": batch, "optimizer": "adam" if vgg else "sgd", **other}
    return Probe("sgd", "vgg" if vgg else "cnn", axes, shape, networks)


def chains(width: int, depth: int, points: int) -> Probe:
    """A chain on so many training points."""
    axes = {"width": width, "depth": depth, "activation": "relu", "step_size": 1e-4, "leapfrog_steps": 10}
    axes |= {"train_points": None, "burn_in": 0, "start": "glorot", "warm_epochs": 0, "thinning": 1}
    axes |= {"prior_scale": 1.0, "likelihood_scale": 1.0, "seed": 0}
    return Probe("hmc", "fcn", axes, (28, 28, 1), 1, points)


def on_device(device: str, probe: Probe) -> list[Probe]:
    """A probe as this device is to have it."""
    if device == "cpu":
        return [probe]
    most = max(1, min(PACK_NETWORKS, PACK_PARAMETERS[device] // probe.layers.parameters))
    return [replace(probe, networks=networks) for networks in sorted({min(one, most) for one in ON_CUDA})]


PROBES = (
    fcn(64, 1, 128, 1),
    fcn(64, 1, 32, 16),
    fcn(64, 3, 128, 16, activation="sigmoid"),
    fcn(128, 2, 32, 4),
    fcn(128, 3, 128, 12, activation="tanh"),
    fcn(256, 2, 128, 4),
    fcn(256, 1, 32, 4, optimizer="adam"),
    fcn(512, 1, 128, 1),
    fcn(512, 3, 128, 1, activation="tanh"),
    fcn(1024, 2, 128, 1, activation="sigmoid"),
    fcn(1024, 4, 128, 1),
    fcn(64, 4, 128, 32, shape=(8, 8, 1)),
    fcn(256, 2, 128, 2, shape=(32, 32, 3)),
    fcn(128, 2, 128, 12, "imp"),
    fcn(1024, 1, 128, 1, "imp"),
    cnn(5, 3, 1, 128, 4),
    cnn(5, 3, 3, 32, 8),
    cnn(5, 7, 2, 128, 3),
    cnn(10, 5, 2, 128, 2),
    cnn(10, 3, 2, 32, 8, shape=(8, 8, 1), optimizer="adam"),
    cnn(20, 3, 1, 128, 1, fc_width=256),
    cnn(20, 5, 2, 32, 2),
    cnn(30, 7, 1, 128, 1),
    cnn(30, 3, 3, 128, 1, fc_depth=2),
    cnn(24, 3, 1, 32, 1, vgg=True, fc_width=512),
    cnn(24, 7, 2, 32, 1, vgg=True),
    cnn(48, 3, 2, 32, 1, vgg=True),
    cnn(64, 5, 3, 32, 1, vgg=True),
    fcn(64, 1, 128, 16, precision="bfloat16"),
    fcn(256, 2, 128, 4, precision="bfloat16"),
    fcn(512, 3, 128, 1, precision="bfloat16"),
    cnn(10, 3, 1, 128, 2, precision="bfloat16"),
    cnn(20, 5, 2, 128, 2, precision="bfloat16"),
    cnn(48, 3, 2, 32, 1, vgg=True, precision="bfloat16"),
    chains(64, 1, 500),
    chains(256, 2, 2000),
)
