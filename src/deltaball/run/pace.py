"""How long jobs will take: the plan's estimates, corrected by what this run measured so far."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from deltaball.plan.networks import Shard, Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Store
from deltaball.workflow import jobs, resources

STARTING_SECONDS = 2.0  # of a job, whatever its size


class Pace:
    """The plan's estimate, times what jobs of their kind took of it so far."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self.estimated: dict[Any, float] = defaultdict(float)
        self.took: dict[Any, float] = defaultdict(float)

    def of_shard(self, shard: Shard) -> float:
        """Seconds that what is left of a shard will take."""
        return sum(self._corrected(stage, shard) for stage in jobs.STAGES)

    @contextlib.contextmanager
    def measured(self, stage: str, shard: Shard) -> Iterator[None]:
        """Learn from a job that the block does."""
        estimate, started = self.estimate(stage, shard), time.monotonic()
        yield
        if estimate:
            kind = self._kind(stage, shard)
            self.estimated[kind] += estimate
            self.took[kind] += time.monotonic() - started

    def estimate(self, stage: str, shard: Shard) -> float:
        """Seconds that a job will take by the plan, of what the store lacks."""
        if stage == "measure":
            return 60 * resources.measuring(self.plan, shard).minutes
        packs = [[left for one in pack if (left := self._left(one))] for pack in shard.packs]
        return 60 * self.plan.minutes(pack for pack in packs if pack)

    def _corrected(self, stage: str, shard: Shard) -> float:
        estimate, kind = self.estimate(stage, shard), self._kind(stage, shard)
        # Of a kind that has not been met, what any other took of its estimate.
        known = [self.took[one] / self.estimated[one] for one in self.estimated if one == kind or one[0] == kind[0]]
        factor = self.took[kind] / self.estimated[kind] if kind in self.estimated else max(known, default=1.0)
        return STARTING_SECONDS + factor * estimate

    def _left(self, one: Trajectory) -> Trajectory | None:
        """What the store lacks of a trajectory, about; None when it lacks nothing."""
        missing = [step for step in one.checkpoints if not self.store.has(one.id, step)]
        if not missing:
            return None
        reached = max((step for step in one.checkpoints if step < missing[0]), default=0)
        return replace(one, checkpoints=tuple(step - reached for step in missing))

    @staticmethod
    def _kind(stage: str, shard: Shard) -> tuple[str, str, str]:
        first = shard.trajectories[0]
        return stage, first.architecture, first.method
