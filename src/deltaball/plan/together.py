"""Packs that a device trains together: how many at a time, in which order, how long it takes. Light: no array library.

A GPU trains small packs side by side, each on a stream of its own, because one of them does not fill it. The model of
what that takes is simple. A pack alone takes so many seconds. In some of them the device *waits*: for the host, for
the store, or because kernels are too small to fill it (`costs.WAITING`). Meanwhile others use it, as many as are
trained at a time. In the rest the pack *fills* the device, and what several need of that adds up. No pack is faster
than alone.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from deltaball.plan.networks import Trajectory
from deltaball.study.methods import TRAININGS

PACK_NETWORKS = 64

# Packs that a job trains at a time, at most, and no more networks than a full pack has.
SIDE_BY_SIDE = {"cpu": 1, "cuda": 8}

Pack = tuple[Trajectory, ...]


def at_a_time(packs: Sequence[Sequence[Trajectory]], device: str) -> int:
    """How many of these packs a device trains at a time."""
    # JAX has the GPU to itself, and a pack of chains fills it.
    if any(TRAININGS[one.method].on_jax for pack in packs for one in pack):
        return 1
    return _at_a_time(max(map(len, packs), default=1), device)


def _at_a_time(networks: int, device: str) -> int:
    return max(1, min(SIDE_BY_SIDE[device], PACK_NETWORKS // networks))


def waves(packs: Iterable[Pack]) -> list[list[Pack]]:
    """Packs so that what is pruned comes in a later wave than what it is pruned from; `packs` are in such an order."""
    in_order: list[list[Pack]] = []
    wave_of: dict[str, int] = {}
    for pack in packs:
        wave = _wave(pack, wave_of)
        in_order += [[] for _ in range(wave + 1 - len(in_order))]
        in_order[wave].append(pack)
    return in_order


def _wave(pack: Sequence[Trajectory], wave_of: dict[str, int]) -> int:
    """The wave of a pack, which joins `wave_of`."""
    parents = (parent for one in pack for parent, _ in one.parents)
    wave = max((wave_of[parent] + 1 for parent in parents if parent in wave_of), default=0)
    wave_of |= dict.fromkeys((one.id for one in pack), wave)
    return wave


class Alone(NamedTuple):
    """What a pack takes alone on a device."""

    seconds: float
    waiting: float  # of them, seconds in which others may use the device


class Together:
    """What packs take together, one after another added in an order in which they may be trained."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.in_turn = 0.0  # minutes
        self.wave_of: dict[str, int] = {}
        self.waves: list[_Wave] = []

    def add(self, pack: Sequence[Trajectory], alone: Alone) -> None:
        """Train one pack more."""
        self.in_turn += alone.seconds / 60
        wave = _wave(pack, self.wave_of)
        self.waves += [_Wave(self.device) for _ in range(wave + 1 - len(self.waves))]
        self.waves[wave].add(pack, alone)

    @property
    def minutes(self) -> float:
        """Estimated minutes of them all."""
        if SIDE_BY_SIDE[self.device] == 1:
            return self.in_turn
        return sum(wave.seconds for wave in self.waves) / 60


class _Wave:
    """Packs of which none needs another one."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.filling = self.waiting = self.longest = 0.0
        self.largest, self.in_turn = 1, False

    def add(self, pack: Sequence[Trajectory], alone: Alone) -> None:
        self.filling += alone.seconds - alone.waiting
        self.waiting += alone.waiting
        self.longest = max(self.longest, alone.seconds)
        self.largest = max(self.largest, len(pack))
        self.in_turn |= TRAININGS[pack[0].method].on_jax

    @property
    def seconds(self) -> float:
        many = 1 if self.in_turn else _at_a_time(self.largest, self.device)
        return max(self.longest, self.filling + self.waiting / many)
