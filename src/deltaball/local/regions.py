"""Linear regions: the sets of images on which a piecewise linear network is one affine function.

A region is told by the *pieces* of its units: whether a ReLU is on, which number of a max-pool's window is the largest,
where a clamp cuts. With its pieces held, a network is affine everywhere; it is the network itself where every unit's
*slacks* are ≥ 0: the distance, in units of what enters, from where the piece ends (Bastani et al. 2016, "Measuring
neural net robustness with constraints", Section 4: D(x)).

The slacks of all units at any image cost one forward pass, the gradients of some of them a way back through the layers
before theirs; autograd, for many slacks at once, takes two to four times as long. The Jacobian of all, which may have
millions of rows, is never made.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import accumulate

import torch

from deltaball.base.errors import InputError
from deltaball.local.certificates.affine import transposed, transposed_convolution
from deltaball.networks.folding import folded
from deltaball.networks.layers import (
    Activation,
    Clamp,
    Conv,
    Dense,
    Flatten,
    GroupNorm,
    Layer,
    Layers,
    LeakyReLU,
    MaxPool,
    Residual,
    Shape,
    Standardise,
)
from deltaball.networks.models import Layered
from deltaball.networks.packs import Pack, Pass, rule_of

# Numbers that a network may make on the way back for gradients that are computed together.
AT_ONCE = 2**22

Pieces = tuple[torch.Tensor, ...]  # of each layer that has pieces, in the order of the layers: one number per unit

# From rows [m, *shape] by what leaves a layer, those by what enters it.
Pulled = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class _Held(Pass):
    """A way through one network that holds every unit to its piece; where none is given, to that of what enters."""

    given: Iterator[torch.Tensor] | None = None
    pieces: list[torch.Tensor] = field(default_factory=list)
    slacks: list[torch.Tensor] = field(default_factory=list)  # of each layer, [units, ...]
    back: list[Pulled] = field(default_factory=list)  # of the layers so far, from the image on
    unpulled: list[Pulled] = field(default_factory=list)  # from each layer's slacks, by their numbers, to the image

    def through(self, layers: Layers, weights: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        for layer, shape, own in layers.with_weights(weights):
            if type(layer) in PIECEWISE:
                rules = PIECEWISE[type(layer)]
                piece = rules.read(layer, x[0, 0]) if self.given is None else next(self.given)
                out, slack = rules.hold(layer, x[0, 0], piece)
                self.pieces.append(piece)
                self.slacks.append(slack)
                self.unpulled.append(_chained([*self.back, partial(rules.slack_rows, layer, shape, piece)]))
                x, pulled = out[None, None], partial(rules.pulled, layer, shape, piece)
            elif isinstance(layer, Residual):
                x, pulled = self._summed(layer, shape, own, x)
            else:
                x, pulled = rule_of(layer)(layer, own, x, self), _pulled(layer, shape, own)
            self.back.append(pulled)
        return x

    def _summed(
        self, layer: Residual, shape: Shape, weights: Sequence[torch.Tensor], x: torch.Tensor
    ) -> tuple[torch.Tensor, Pulled]:
        before, outs, ways = len(self.back), [], []
        for branch in layer.branches(shape):
            count = len(branch.weights)
            own, weights = weights[:count], weights[count:]
            outs.append(self.through(branch, own, x))
            ways.append(_chained(self.back[before:]))
            del self.back[before:]
        return outs[0] + outs[1], lambda rows: ways[0](rows) + ways[1](rows)


def _chained(ways: Sequence[Pulled]) -> Pulled:
    def pulled(rows: torch.Tensor) -> torch.Tensor:
        for one in reversed(ways):
            rows = one(rows)
        return rows

    return pulled


def _pulled(layer: Layer, shape: Shape, weights: Sequence[torch.Tensor]) -> Pulled:
    """Of a layer that is one affine function."""
    if isinstance(layer, Dense):
        return lambda rows: rows @ weights[0][0].T
    if isinstance(layer, Flatten):
        return lambda rows: rows.unflatten(1, shape)
    if isinstance(layer, Conv):
        whole = transposed_convolution(layer, shape, weights[0])
    else:
        whole = transposed(lambda x: rule_of(layer)(layer, weights, x, Pass()), shape)
    return lambda rows: whole(rows[None, None])[0, 0]


class Region:
    """A linear region of one network, and its affine functions of images, seen from the image x [h, w, c].

    All in float64. Raises InputError where a layer is not piecewise linear.
    """

    def __init__(self, network: Pack, x: torch.Tensor, pieces: Pieces | None = None) -> None:
        """Of these pieces, or of x's own."""
        self.network, self.x = network, x
        self.logits, way = _passed(network, x, pieces)  # [classes] at x
        self.pieces = tuple(way.pieces)
        self.slacks = _joined(way.slacks, x)  # [N] at x
        self.sizes = [part.numel() for part in way.slacks]  # of each layer, how many slacks
        self._unpulled, self._back = way.unpulled, _chained(way.back)
        numbers = sum(network.layers.activations)
        self._rows_at_once = max(1, AT_ONCE // numbers)

    @classmethod
    def around(cls, network: Pack, x: torch.Tensor, image: torch.Tensor | None = None) -> "Region":
        """The region in which `image` lies, or x itself. On the border between several it is one of these."""
        return cls(network, x, None if image is None else tuple(_passed(network, image)[1].pieces))

    def at(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The region's affine functions at an image [h, w, c], that need not lie in it: logits and slacks [N]."""
        logits, way = _passed(self.network, image, self.pieces)
        return logits, _joined(way.slacks, image)

    def gradients(self, which: torch.Tensor) -> torch.Tensor:
        """Of the slacks `which` [m], in ascending order, by the pixels: [m, d]."""
        found, start = [], 0
        for unpulled, size in zip(self._unpulled, self.sizes, strict=True):
            own = which[(which >= start) & (which < start + size)] - start
            start += size
            found += [unpulled(some).flatten(1) for some in own.split(self._rows_at_once) if len(some)]
        return torch.cat(found) if found else self.x.new_empty(0, self.x.numel())

    def logit_gradients(self) -> torch.Tensor:
        """Of all logits: [classes, d]."""
        return self._back(torch.eye(len(self.logits), dtype=self.x.dtype)).flatten(1)

    def beyond(self, slack: int) -> "Region":
        """The neighbouring region: on the other side of where one unit's piece ends."""
        pieces, ends = [*self.pieces], [*accumulate(self.sizes)]
        layer, place = [*_piecewise(self.network.layers)], bisect_right(ends, slack)
        crossed = PIECEWISE[type(layer[place])].crossed
        pieces[place] = crossed(pieces[place], slack - (ends[place] - self.sizes[place]), self.sizes[place])
        return Region(self.network, self.x, tuple(pieces))


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


@torch.no_grad()
def _passed(network: Pack, image: torch.Tensor, pieces: Pieces | None = None) -> tuple[torch.Tensor, _Held]:
    """Logits at an image [h, w, c], and what was found on the way."""
    way = _Held(given=None if pieces is None else iter(pieces))
    logits = way.through(network.layers, network.weights, image[None, None])
    return logits[0, 0], way


def _joined(parts: Sequence[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.flatten() for part in parts]) if parts else like.new_empty(0)


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


def _half_pulled(layer: Activation | LeakyReLU, shape: Shape, on: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return torch.where(on, rows, getattr(layer, "slope", 0.0) * rows)


def _half_rows(layer: Activation | LeakyReLU, shape: Shape, on: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    return _unit_rows(shape, which, torch.where(on.flatten()[which], 1.0, -1.0))


def _cut_pulled(layer: Clamp, shape: Shape, part: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return rows * (part == 0)


def _cut_rows(layer: Clamp, shape: Shape, part: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    units = which % part.numel()
    own = part.flatten()[units]
    lower, upper = torch.where(own < 0, -1.0, 1.0), torch.where(own == 0, -1.0, 0.0)
    return _unit_rows(shape, units, torch.where(which < part.numel(), lower, upper))


def _largest_pulled(layer: MaxPool, shape: Shape, winner: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    pixels = _seen(layer, shape).gather(1, winner.flatten(1))
    units = pixels * shape[-1] + torch.arange(shape[-1])
    whole = rows.new_zeros(len(rows), math.prod(shape)).index_add_(1, units.flatten(), rows.flatten(1))
    return whole.unflatten(1, shape)


def _largest_rows(layer: MaxPool, shape: Shape, winner: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    seen, channels = _seen(layer, shape), shape[-1]
    others, channel = which // channels, which % channels
    window, number = others // seen.shape[1], others % seen.shape[1]
    largest, other = seen[window, winner[window, 0, channel]], seen[window, number]
    rows = _unit_rows(shape, largest * channels + channel, torch.ones(len(which)))
    return rows - _unit_rows(shape, other * channels + channel, torch.ones(len(which)))


def _unit_rows(shape: Shape, units: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    rows = torch.zeros(len(units), math.prod(shape), dtype=torch.float64)
    return rows.scatter_(1, units[:, None], values[:, None].double()).unflatten(1, shape)


@dataclass(frozen=True)
class Piecewise:
    """What is known of a layer that has pieces."""

    read: Callable[..., torch.Tensor]  # which piece what enters is on
    hold: Callable[..., tuple[torch.Tensor, torch.Tensor]]  # what leaves, with the slacks, on a given piece
    pulled: Callable[..., torch.Tensor]  # from rows by what leaves, those by what enters
    slack_rows: Callable[..., torch.Tensor]  # the gradients of slacks, by their numbers, by what enters
    crossed: Callable[..., torch.Tensor]  # its pieces beyond where one of its slacks, by its number, is 0


HALVES = Piecewise(_on, _half, _half_pulled, _half_rows, _other_side)
PIECEWISE: dict[type[Layer], Piecewise] = {
    Activation: HALVES,
    LeakyReLU: HALVES,
    Clamp: Piecewise(_part, _cut, _cut_pulled, _cut_rows, _over_the_bound),
    MaxPool: Piecewise(_winner, _largest, _largest_pulled, _largest_rows, _other_winner),
}
