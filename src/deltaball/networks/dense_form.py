"""A network written as dense layers and ReLUs alone."""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from deltaball.networks.layers import Activation, Conv, Dense, Flatten, MaxPool
from deltaball.networks.packs import Pack

SPARSE = 0.1  # share of non-zero weights below which a kernel is stored without its zeros

LARGEST = 2**26  # numbers in the kernels of a network written as dense layers (512 MiB)

Affine = list[tuple[torch.Tensor, torch.Tensor]]  # kernel [inputs, outputs] and bias [outputs] of each dense layer


def as_dense(pack: Pack, shape: Sequence[int]) -> Pack:
    """The network as dense layers and ReLUs only, in float64, from the flat pixels of images of `shape` [h, w, c]."""
    size = math.prod(shape)
    # What the network computes of the last ReLU's outputs (or of the pixels): one row each, and a row of constants.
    rows = torch.eye(size + 1, size, dtype=torch.float64, device=pack.weights[0].device)
    layers: list[Dense | Activation] = []
    weights: list[torch.Tensor] = []

    def end(rows: torch.Tensor) -> None:
        inputs, outputs = len(rows) - 1, rows.shape[1]
        if sum(map(torch.numel, weights)) + rows.numel() + outputs**2 > LARGEST:
            raise ValueError(f"too large for an exact answer: more than {LARGEST:,} weights as dense layers")
        layers.append(Dense(inputs, outputs))
        weights.extend((rows[None, :-1], rows[None, -1]))

    remaining = (weight[0].to(torch.float64) for weight in pack.weights)
    for layer in pack.layers:
        match layer:
            case Dense():
                rows = rows @ next(remaining)
                rows[-1] += next(remaining)
            case Conv():
                maps = rows.unflatten(-1, shape).permute(0, 3, 1, 2)
                maps = functional.conv2d(maps, next(remaining).permute(3, 2, 0, 1), padding="same").permute(0, 2, 3, 1)
                maps[-1] += next(remaining)
                rows, shape = maps.flatten(1), maps.shape[1:]
            case Activation(name="relu"):
                end(rows)
                layers.append(layer)
                rows = torch.eye(rows.shape[1] + 1, rows.shape[1]).to(rows)
            case MaxPool():
                for axis in (1, 2):
                    # relu(a) = a, for what a ReLU or a pool returns is ≥ 0.
                    maps = rows.unflatten(-1, shape)
                    even, odd = (torch.arange(start, shape[axis - 1] // 2 * 2, 2) for start in (0, 1))
                    first, second = (maps.index_select(axis, place.to(rows.device)) for place in (even, odd))
                    shape = first.shape[1:]
                    end(torch.cat([(second - first).flatten(1), first.flatten(1)], 1))
                    layers.append(Activation("relu"))
                    half = torch.eye(math.prod(shape)).to(rows)
                    rows = functional.pad(torch.cat([half, half]), (0, 0, 0, 1))
            case Flatten():
                pass
            case _:
                raise ValueError(f"no exact answer for activation {layer.name}; possible: relu")
    end(rows)
    return Pack((Flatten(), *layers), tuple(weights))


def affine_layers(dense: Pack) -> Affine:
    """Layer by layer. A kernel that was a convolution or a max-pool is mostly zeros, and so a sparse tensor."""
    kernels = [kernel[0] for kernel in dense.weights[::2]]
    few = [kernel.count_nonzero() < SPARSE * kernel.numel() for kernel in kernels]
    return [
        (kernel.to_sparse() if zeros else kernel, bias[0])
        for kernel, bias, zeros in zip(kernels, dense.weights[1::2], few, strict=True)
    ]
