"""Packs of trajectories that are trained together, and shards of packs."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from deltaball.plan.networks import Shard, Trajectory
from deltaball.plan.together import PACK_NETWORKS, Alone, Together

# How many numbers a pack may stack: parameters of all its networks together. A CPU core's cache holds about
# a million floats; a GPU is filled by more.
PACK_PARAMETERS = {"cpu": 2_000_000, "cuda": 64_000_000}


def shards(
    trajectories: Iterable[Trajectory],
    alone: Callable[[Sequence[Trajectory]], Alone],
    minutes: float,
    device: str,
    most: Callable[[Trajectory], int] = lambda _: PACK_NETWORKS,
) -> Iterator[Shard]:
    """Each grid's packs, cut to jobs of about so many minutes; `alone` estimates what a pack takes."""
    by_grid: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        by_grid.setdefault(trajectory.grid, []).append(trajectory)
    for members in by_grid.values():
        current: list[tuple[Trajectory, ...]] = []
        together, taken = Together(device), 0.0
        for pack in packs(members, device, most):
            own = alone(pack)
            together.add(pack, own)
            if current and together.minutes > minutes:
                yield _shard(current, taken)
                current, together = [], Together(device)
                together.add(pack, own)
            current.append(pack)
            taken = together.minutes
        if current:
            yield _shard(current, taken)


def packs(
    members: Iterable[Trajectory], device: str, most: Callable[[Trajectory], int] = lambda _: PACK_NETWORKS
) -> Iterator[tuple[Trajectory, ...]]:
    """Trajectories of one shape together, as many as a device profits from; `most` says how many it has memory for."""
    ordered = sorted(members, key=lambda one: (one.shape, one.id))
    for _, group in groupby(ordered, key=lambda one: one.shape):
        alike = list(group)
        size = max(1, min(PACK_NETWORKS, PACK_PARAMETERS[device] // _numbers(alike[0]), most(alike[0])))
        for start in range(0, len(alike), size):
            yield tuple(alike[start : start + size])


def _numbers(one: Trajectory) -> int:
    return one.parameters + one.beside


def _shard(packs: list[tuple[Trajectory, ...]], minutes: float) -> Shard:
    content = json.dumps(sorted([one.id, *one.checkpoints] for pack in packs for one in pack))
    first = packs[0][0]
    identity = f"{first.grid}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"
    return Shard(identity, first.grid, first.dataset, tuple(packs), minutes)
