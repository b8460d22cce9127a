"""Random numbers inside a step, by trajectory and step: no state, so nothing depends on the pack or on a kill.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", Section 3.3) in operations on tensors,
which a CUDA graph can hold. Words of 32 bits lie in int64, whose products wrap around and lose no bit that is used.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from deltaball.base.draws import generator

MULTIPLIERS, WEYL = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
ROUNDS, WORD = 10, 0xFFFFFFFF


class Draws:
    """The random numbers of K networks in one step. Each call gives others.

    `keys` [K, 2] are the networks'; `before` and `taken`, [1] each, count the steps of earlier epochs and of this one.
    All are int64 on the device.
    """

    def __init__(self, keys: torch.Tensor, before: torch.Tensor, taken: torch.Tensor) -> None:
        self.keys, self.before, self.taken = keys, before, taken
        self.calls = 0

    def part(self, networks: slice) -> "Draws":
        """Those of some of the networks, which go on by themselves."""
        part = Draws(self.keys[networks], self.before, self.taken)
        part.calls = self.calls
        return part

    def uniform(self, shape: Sequence[int]) -> torch.Tensor:
        """Numbers [K, *shape] in [0, 1), multiples of 2⁻²⁴."""
        count = math.prod(shape)
        places = torch.arange(-(-count // 4), device=self.keys.device).expand(len(self.keys), -1)
        still, step = torch.zeros_like(places), self.before + self.taken
        counters = (places, still + self.calls, still + (step & WORD), still + (step >> 32))
        self.calls += 1
        words = torch.stack(philox(counters, (self.keys[:, :1], self.keys[:, 1:])), dim=2)
        return ((words.flatten(1)[:, :count] >> 8) * 2.0**-24).view(-1, *shape)

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        """Standard normal numbers [K, *shape] (Box & Muller 1958), each of two uniform ones."""
        lengths = (1 - self.uniform(shape)).log_().mul_(-2).sqrt_()
        return self.uniform(shape).mul_(2 * math.pi).cos_().mul_(lengths)


def keys(origins: Sequence[str], device: str) -> torch.Tensor:
    """The keys [K, 2] of trajectories, by where their random numbers come from."""
    drawn = [generator(origin, "key of the draws in a step").integers(0, 2**32, 2) for origin in origins]
    return torch.from_numpy(np.stack(drawn)).to(device)


def philox(counters: Sequence[torch.Tensor], key: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Four words for each counter of four words, by a key of two; all int64 that broadcast."""
    first, second, third, fourth = counters
    for turn in range(ROUNDS):
        high, low = _product(first, MULTIPLIERS[0])
        other_high, other_low = _product(third, MULTIPLIERS[1])
        first = other_high.bitwise_xor_(second).bitwise_xor_((key[0] + turn * WEYL[0]) & WORD)
        third = high.bitwise_xor_(fourth).bitwise_xor_((key[1] + turn * WEYL[1]) & WORD)
        second, fourth = other_low, low
    return first, second, third, fourth


def _product(word: torch.Tensor, multiplier: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The high and the low word of a product."""
    product = word * multiplier
    low = product & WORD
    return product.bitwise_right_shift_(32).bitwise_and_(WORD), low
