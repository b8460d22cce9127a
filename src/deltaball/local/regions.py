"""Linear regions: the sets of images on which a piecewise linear network is one affine function.

A region is told by the *pieces* of its units: whether a ReLU is on, which number of a max-pool's window is the largest,
where a clamp cuts. With its pieces held, a network is affine everywhere; it is the network itself where every unit's
*slacks* are ≥ 0: the distance, in units of what enters, from where the piece ends (Bastani et al. 2016, "Measuring
neural net robustness with constraints", Section 4: D(x)).

The slacks of all units at any image cost one forward pass, the gradients of some of them a backward pass each. The
Jacobian of all, which may have millions of rows, is never made.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch

from deltaball.base.errors import InputError
from deltaball.networks.folding import folded
from deltaball.networks.layers import Activation, Clamp, GroupNorm, Layer, Layers, LeakyReLU, MaxPool, Standardise
from deltaball.networks.models import Layered
from deltaball.networks.packs import Pack, Pass, rule_of

# Numbers that a network may make on the way back for gradients that are computed together.
AT_ONCE = 2**22

Pieces = tuple[torch.Tensor, ...]  # of each layer that has pieces, in the order of the layers: one number per unit


@dataclass(frozen=True)
class _Held(Pass):
    """A way through one network that holds every unit to its piece; where none is given, to that of what enters."""

    given: Iterator[torch.Tensor] | None = None
    pieces: list[torch.Tensor] = field(default_factory=list)
    slacks: list[torch.Tensor] = field(default_factory=list)  # of each layer, [units, ...]

    def through(self, layers: Layers, weights: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        for layer, _, own in layers.with_weights(weights):
            if type(layer) in PIECEWISE:
                read, hold = PIECEWISE[type(layer)]
                piece = read(layer, x[0, 0]) if self.given is None else next(self.given)
                out, slack = hold(layer, x[0, 0], piece)
                self.pieces.append(piece)
                self.slacks.append(slack)
                x = out[None, None]
            else:
                x = rule_of(layer)(layer, own, x, self)
        return x


class Region:
    """A linear region of one network, and its affine functions of images, seen from the image x [h, w, c].

    All in float64. Raises InputError where a layer is not piecewise linear.
    """

    def __init__(self, network: Pack, x: torch.Tensor, pieces: Pieces) -> None:
        self.network, self.x, self.pieces = network, x, pieces
        self._leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            logits, slacks, _ = _passed(network, self._leaf, pieces)
            self._parts = [part.flatten() for part in slacks]
            self._logits = logits
        self.logits = logits.detach()  # [classes] at x
        self.slacks = _joined([part.detach() for part in self._parts], x)  # [N] at x
        self.sizes = [len(part) for part in self._parts]  # of each layer, how many slacks
        numbers = sum(network.layers.activations)
        self._rows_at_once = max(1, AT_ONCE // numbers)

    @classmethod
    def around(cls, network: Pack, x: torch.Tensor, image: torch.Tensor | None = None) -> "Region":
        """The region in which `image` lies, or x itself. On the border between several it is one of these."""
        at = x if image is None else image
        return cls(network, x, _passed(network, at, None)[2])

    def at(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The region's affine functions at an image [h, w, c], that need not lie in it: logits and slacks [N]."""
        logits, slacks, _ = _passed(self.network, image, self.pieces)
        return logits, _joined([part.flatten() for part in slacks], image)

    def gradients(self, which: torch.Tensor) -> torch.Tensor:
        """Of the slacks `which` [m], in ascending order, by the pixels: [m, d]."""
        found, start = [], 0
        for part, size in zip(self._parts, self.sizes, strict=True):
            own = which[(which >= start) & (which < start + size)] - start
            start += size
            found += [self._pulled_back(part, some) for some in own.split(self._rows_at_once)]
        return torch.cat(found) if found else self.x.new_empty(0, self.x.numel())

    def logit_gradients(self) -> torch.Tensor:
        """Of all logits: [classes, d]."""
        return self._pulled_back(self._logits, torch.arange(len(self.logits)))

    def beyond(self, slack: int) -> "Region":
        """The neighbouring region: on the other side of where one unit's piece ends."""
        pieces, ends = [*self.pieces], [*accumulate(self.sizes)]
        layer, place = [*_piecewise(self.network.layers)], bisect_right(ends, slack)
        crossed = CROSSED[type(layer[place])]
        pieces[place] = crossed(pieces[place], slack - (ends[place] - self.sizes[place]), self.sizes[place])
        return Region(self.network, self.x, tuple(pieces))

    def _pulled_back(self, part: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        if not len(which) or not part.requires_grad:
            return self.x.new_zeros(len(which), self.x.numel())
        chosen = part.new_zeros(len(which), len(part))
        chosen[torch.arange(len(which)), which] = 1
        (rows,) = torch.autograd.grad(part, self._leaf, chosen, retain_graph=True, is_grads_batched=True)
        return rows.flatten(1)


def piecewise(model: Layered) -> Pack:
    """One network as regions need it: in float64 on the CPU, without normalisations and dropout.

    Raises InputError where a layer is not piecewise linear.
    """
    for layer, _ in model.layers.within():
        curved = isinstance(layer, Activation) and layer.name != "relu"
        if curved or isinstance(layer, (Standardise, GroupNorm)):
            name = layer.name if isinstance(layer, Activation) else type(layer).__name__
            raise InputError(f"no linear regions: {name} is not piecewise linear")
    found = folded(model)
    return Pack(found.layers, tuple(weight.detach().cpu() for weight in found.weights))


def _passed(
    network: Pack, image: torch.Tensor, pieces: Pieces | None
) -> tuple[torch.Tensor, list[torch.Tensor], Pieces]:
    """Logits, slacks of each layer, and pieces, at an image [h, w, c]."""
    way = _Held(given=None if pieces is None else iter(pieces))
    logits = way.through(network.layers, network.weights, image[None, None])
    return logits[0, 0], way.slacks, tuple(way.pieces)


def _joined(parts: Sequence[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    return torch.cat(parts) if parts else like.new_empty(0)


def _piecewise(layers: Layers) -> Iterator[Layer]:
    """The layers that have pieces, in the order of `_Held`."""
    for layer, shape in layers.walk():
        for branch in layer.branches(shape):
            yield from _piecewise(branch)
        if type(layer) in PIECEWISE:
            yield layer


def _on(layer: Activation | LeakyReLU, x: torch.Tensor) -> torch.Tensor:
    return x >= 0


def _half(layer: Activation | LeakyReLU, x: torch.Tensor, on: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    slope = layer.slope if isinstance(layer, LeakyReLU) else 0.0
    return torch.where(on, x, slope * x), torch.where(on, x, -x)


def _part(layer: Clamp, x: torch.Tensor) -> torch.Tensor:
    """-1 below, 0 between the bounds, 1 above."""
    return (x > layer.high).to(torch.int8) - (x < layer.low).to(torch.int8)


def _cut(layer: Clamp, x: torch.Tensor, part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slacks [2, ...]: from the lower and the upper bound; where x is cut, from where it would not be, and 1."""
    below, above = part < 0, part > 0
    out = torch.where(below, layer.low, torch.where(above, layer.high, x))
    lower = torch.where(below, layer.low - x, torch.where(above, x - layer.high, x - layer.low))
    upper = torch.where(below | above, 1.0, layer.high - x)
    return out, torch.stack([lower, upper])


def _winner(layer: MaxPool, x: torch.Tensor) -> torch.Tensor:
    """Which of a window's numbers is the largest, [windows, 1, channels]."""
    return _windows(layer, x).argmax(1, keepdim=True)


def _largest(layer: MaxPool, x: torch.Tensor, winner: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slacks [windows, numbers, channels]: from each of the window's numbers; 0 from the largest itself."""
    windows = _windows(layer, x)
    out = windows.gather(1, winner)
    return out.view(layer.output(tuple(x.shape))), out - windows


def _windows(layer: MaxPool, x: torch.Tensor) -> torch.Tensor:
    """What each window sees of x [h, w, c]: [windows, numbers, channels]."""
    return x.flatten(0, 1)[_seen(layer, tuple(x.shape))]


@lru_cache(maxsize=64)
def _seen(layer: MaxPool, shape: tuple[int, ...]) -> torch.Tensor:
    """The pixels [windows, numbers] of each window; of a window that ends outside, the first stands for what lacks."""
    rows, columns = (side.pixels_seen for side in layer.windows(shape))
    found = [[row * shape[1] + column for row in some for column in others] for some in rows for others in columns]
    most = max(map(len, found))
    return torch.tensor([pixels + pixels[:1] * (most - len(pixels)) for pixels in found])


def _other_side(on: torch.Tensor, slack: int, slacks: int) -> torch.Tensor:
    return _with(on, slack, ~on.flatten()[slack])


def _over_the_bound(part: torch.Tensor, slack: int, slacks: int) -> torch.Tensor:
    unit = slack % part.numel()
    bound = -1 if slack < part.numel() else 1
    return _with(part, unit, 0 if part.flatten()[unit] else bound)


def _other_winner(winner: torch.Tensor, slack: int, slacks: int) -> torch.Tensor:
    channels, numbers = winner.shape[-1], slacks // winner.numel()
    window, number = divmod(slack // channels, numbers)
    return _with(winner, window * channels + slack % channels, number)


def _with(pieces: torch.Tensor, unit: int, piece: int | torch.Tensor) -> torch.Tensor:
    changed = pieces.flatten().clone()
    changed[unit] = piece
    return changed.view_as(pieces)


# Of each layer that has pieces: which piece what enters is on; and what leaves, with the slacks, on a given piece.
PIECEWISE: dict[type[Layer], tuple[Callable[..., torch.Tensor], Callable[..., Any]]] = {
    Activation: (_on, _half),
    LeakyReLU: (_on, _half),
    Clamp: (_part, _cut),
    MaxPool: (_winner, _largest),
}
# And a layer's pieces beyond where one of its slacks, by its number among them all, is 0.
CROSSED: dict[type[Layer], Callable[..., torch.Tensor]] = {
    Activation: _other_side,
    LeakyReLU: _other_side,
    Clamp: _over_the_bound,
    MaxPool: _other_winner,
}
