"""The forward pass of support vector machines: kernels, pairs of classes, votes."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch

from deltaball.networks.support_vectors import SupportVectors

IMAGES_AT_ONCE = 256  # whose kernels with all support vectors are held at once


def support_vectors(
    layer: SupportVectors, weights: Sequence[torch.Tensor], x: torch.Tensor, way: Any = None
) -> torch.Tensor:
    """Logits [K, n, classes] of numbers x [K, n, d], or [n, d] that all networks see."""
    parts = x.split(IMAGES_AT_ONCE, -2)
    return torch.cat([votes(layer, pairwise(layer, weights, part)) for part in parts], -2).to(x.dtype)


def pairwise(layer: SupportVectors, weights: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """g_ij(x) in float64, [K, n, pairs], the pairs (0, 1), (0, 2), …, (1, 2), …"""
    vectors, coefficients, intercepts = (weight.to(torch.float64) for weight in weights)
    x = x.to(torch.float64)
    lengths = x.square().sum(-1)[..., None] + vectors.square().sum(-1)[:, None]
    distances = (lengths - 2 * x @ vectors.mT).clamp(min=0)
    return (-layer.gamma * distances).exp() @ coefficients + intercepts[:, None]


def votes(layer: SupportVectors, margins: torch.Tensor) -> torch.Tensor:
    """Votes of pairs with these margins [..., pairs], and their sums squeezed into ±1/3: [..., classes]."""
    pairs = torch.tensor([*combinations(range(layer.classes), 2)], device=margins.device)
    first, second = torch.nn.functional.one_hot(pairs.T, layer.classes).to(margins.dtype)
    sums = margins @ (first - second)
    won = (margins >= 0).to(margins.dtype)
    return won @ first + (1 - won) @ second + sums / (3 * (sums.abs() + 1))
