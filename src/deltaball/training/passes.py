"""The forward pass of training: batch normalisation by the minibatch, dropout, and lower precision.

What a network computes depends on no other network of its pack, bit for bit on a CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from deltaball.networks.arithmetic import each
from deltaball.networks.layers import BatchNorm, Dropout, Layers, Residual
from deltaball.networks.packs import Pass, along_channels, passed, rule_of
from deltaball.training.draws import Draws


class Seen(NamedTuple):
    """What a batch normalisation saw of a minibatch: mean and variance [K, c], by how much moving averages follow."""

    mean: torch.Tensor
    variance: torch.Tensor
    share: float


@dataclass(frozen=True)
class TrainingPass(Pass):
    """A pass in the precision of its images. Weights are float32, and what normalises stays so."""

    draws: Draws | None = None  # of dropout; each pass goes on in them
    seen: list[Seen] = field(default_factory=list)  # by the batch normalisations, in the order of their weights

    def through(self, layers: Layers, weights: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        for layer, own in passed(layers, weights):
            if type(layer) in TRAINING:
                x = TRAINING[type(layer)](layer, own, x, self)
            else:
                lower = own if type(layer) is Residual else [one.to(x.dtype) for one in own]
                x = rule_of(layer)(layer, lower, x, self)
        return x


def follow(averages: Sequence[torch.Tensor], seen: Sequence[Seen]) -> None:
    """Let moving averages, mean and variance [K, c] in turn, follow what the batch normalisations of a pass saw."""
    for one, mean, variance in zip(seen, averages[::2], averages[1::2], strict=True):
        mean.lerp_(one.mean, one.share)
        variance.lerp_(one.variance, one.share)


def _batch_norm(layer: BatchNorm, weights: Sequence[torch.Tensor], x: torch.Tensor, way: TrainingPass) -> torch.Tensor:
    """By mean and variance of the minibatch, the variance that of a population (Keras)."""
    gamma, beta, _, _ = weights
    images = _each_its_own(x, len(gamma)).float()
    normalised, mean, variance = NORMALISED[images.device.type](images, gamma, beta, layer.epsilon)
    way.seen.append(Seen(mean, variance, 1 - layer.momentum))
    return normalised.to(x.dtype)


def _one_by_one(
    x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A library call per network, so that none depends on its neighbours."""
    mean, variance = torch.zeros_like(gamma), torch.zeros_like(gamma)
    count = x[0].numel() // x.shape[-1]
    maps = []
    for images, *own in zip(each(x), gamma, beta, mean, variance, strict=True):
        planes = images.movedim(-1, 1)
        normalised = torch.batch_norm(planes, *own, True, 1.0, epsilon, False)
        maps.append(normalised.movedim(1, -1))
    # The library's variance is that of a sample.
    variance = variance * ((count - 1) / count) if count > 1 else torch.zeros_like(variance)
    return torch.stack(maps) if maps[1:] else maps[0][None], mean, variance


def _together(
    x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    variance, mean = torch.var_mean(x, tuple(range(1, x.ndim - 1)), correction=0)
    scale = gamma * (variance + epsilon).rsqrt()
    normalised = torch.addcmul(along_channels(beta - mean * scale, x), x, along_channels(scale, x))
    return normalised, mean.detach(), variance.detach()


# By device: what gives x [K, n, ..., c] normalised, times γ and plus β [K, c], and the mean and variance [K, c] of x.
NORMALISED = {"cpu": _one_by_one, "cuda": _together}


def _dropout(layer: Dropout, weights: Sequence[torch.Tensor], x: torch.Tensor, way: TrainingPass) -> torch.Tensor:
    """Drawn anew for each network, image and number."""
    if not layer.rate:
        return x
    x = _each_its_own(x, len(way.draws.keys))
    stays = way.draws.uniform(x.shape[1:]) >= layer.rate
    return x * (stays * (1 / (1 - layer.rate))).to(x.dtype)


def _each_its_own(x: torch.Tensor, networks: int) -> torch.Tensor:
    """x [K, n, ...], where all networks may see the same [n, ...]."""
    return x if x.ndim in (3, 5) else x.expand(networks, *x.shape)


# What layers do in training that do something else, or in another precision, afterwards.
TRAINING = {BatchNorm: _batch_norm, Dropout: _dropout}
