"""An equivalent network outside training, of fewer layers: normalisations are part of the affine layers beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from deltaball.networks.layers import (
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Layer,
    Layers,
    Normalise,
    Residual,
    Scale,
    Shape,
)
from deltaball.networks.models import Layered
from deltaball.networks.packs import Pack


class Piece(NamedTuple):
    """A layer, what enters it, and its weights [K, *shape]."""

    layer: Layer
    shape: Shape
    weights: Sequence[torch.Tensor]


def folded(model: Layered) -> Pack:
    """The same K networks in float64, without batch normalisation, normalisation of inputs and dropout.

    A normalisation becomes part of the affine layer before it, or else of the one after it; of a convolution that adds
    zeros only if nothing is shifted, for a shift would reach the zeros too. Where there is neither it is a Scale.
    """
    pieces = _folded(model.layers, [weight.to(torch.float64) for weight in model.weights], len(model))
    return Pack(Layers(model.layers.shape, _layers(pieces)), tuple(_weights(pieces)))


def _folded(layers: Layers, weights: Sequence[torch.Tensor], networks: int) -> list[Piece]:
    pieces: list[Piece] = []
    for piece in _plain(layers, weights, networks):
        before = pieces[-1] if pieces else None
        if isinstance(piece.layer, Scale) and before and isinstance(before.layer, (Dense, Conv, Scale)):
            pieces[-1] = _then_scaled(before, *piece.weights)
        else:
            pieces.append(piece)
    return _scaled_before(pieces)


def _plain(layers: Layers, weights: Sequence[torch.Tensor], networks: int) -> Iterator[Piece]:
    """Normalisations as Scales, branches folded, no dropout."""
    for layer, shape, own in layers.with_weights(weights):
        match layer:
            case BatchNorm():
                gamma, beta, mean, variance = own
                scale = gamma / (variance + layer.epsilon).sqrt()
                yield Piece(Scale(), shape, [scale, beta - mean * scale])
            case Normalise():
                mean, deviation = (torch.tensor(one, dtype=torch.float64) for one in (layer.mean, layer.deviation))
                both = torch.stack([1 / deviation, -mean / deviation])[:, None].expand(-1, networks, -1)
                yield Piece(Scale(), shape, [*both.to(weights[0])])
            case Residual():
                body, shortcut = layer.branches(shape)
                count = len(body.weights)
                branches = _folded(body, own[:count], networks), _folded(shortcut, own[count:], networks)
                yield Piece(
                    Residual(*map(_layers, branches)), shape, [one for some in branches for one in _weights(some)]
                )
            case Dropout():
                pass
            case _:
                yield Piece(layer, shape, own)


def _then_scaled(piece: Piece, scale: torch.Tensor, shift: torch.Tensor) -> Piece:
    """An affine layer and a Scale after it as one."""
    kernel, *bias = piece.weights
    last = [len(scale), *[1] * (kernel.ndim - 2), -1]
    weights = [kernel * scale.view(last), bias[0] * scale + shift if bias else shift]
    return piece._replace(layer=_with_bias(piece.layer), weights=weights)


def _scaled_before(pieces: list[Piece]) -> list[Piece]:
    """Scales as part of the affine layers after them, where there are such."""
    kept: list[Piece] = []
    for piece in pieces:
        if not isinstance(piece.layer, (Dense, Conv)):
            kept.append(piece)
            continue
        flat = bool(kept) and isinstance(kept[-1].layer, Flatten)
        place = len(kept) - 1 - flat
        scaled = kept[place] if place >= 0 and isinstance(kept[place].layer, Scale) else None
        if scaled is None or _shifts_padding(piece, scaled):
            kept.append(piece)
            continue
        del kept[place]
        repeats = piece.shape[-1] // scaled.shape[-1]
        kept.append(_first_scaled(piece, *(one.repeat(1, repeats) for one in scaled.weights)))
    return kept


def _shifts_padding(piece: Piece, scaled: Piece) -> bool:
    return isinstance(piece.layer, Conv) and any(piece.layer.sides(piece.shape)) and bool(scaled.weights[1].any())


def _first_scaled(piece: Piece, scale: torch.Tensor, shift: torch.Tensor) -> Piece:
    """A Scale and an affine layer after it, that adds no zeros, as one."""
    kernel, *bias = piece.weights
    # Of a convolution, all pixels of a window are shifted alike.
    summed = kernel.sum((1, 2)) if kernel.ndim == 5 else kernel
    moved = (shift[:, None] @ summed)[:, 0]
    inputs = [len(scale), *[1] * (kernel.ndim - 3), -1, 1]
    weights = [kernel * scale.view(inputs), bias[0] + moved if bias else moved]
    return piece._replace(layer=_with_bias(piece.layer), weights=weights)


def _with_bias(layer: Layer) -> Layer:
    return replace(layer, bias=True) if isinstance(layer, (Dense, Conv)) else layer


def _layers(pieces: Sequence[Piece]) -> tuple[Layer, ...]:
    return tuple(piece.layer for piece in pieces)


def _weights(pieces: Sequence[Piece]) -> list[torch.Tensor]:
    return [weight for piece in pieces for weight in piece.weights]
