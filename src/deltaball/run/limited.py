"""Shards trained and measured one after the other in one process, as many as fit in a time, without Snakemake."""

import contextlib
import re
import signal
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deltaball.base.errors import InputError
from deltaball.plan.networks import Shard
from deltaball.plan.plan import Plan
from deltaball.store.store import Store
from deltaball.workflow import jobs, resources

STARTING_SECONDS = 2.0  # of a job, whatever its size
SHARDS_PER_LIMIT = 8  # shards are cut so small that about so many fit in the limit


class OutOfTime(BaseException):
    """The limit has come. No Exception, so that no network is blamed for it."""


@dataclass
class Ended:
    """What became of the shards of a run, by id."""

    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # stopped at the limit, or not begun
    failed: dict[str, str] = field(default_factory=dict)  # with the reason


def seconds(limit: str) -> float:
    """A time such as 9m, 90s or 1h30m in seconds. Raises InputError for anything else."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", limit)
    total = (
        sum(int(count or 0) * unit for count, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    )
    if not total:
        raise InputError(f"--time-limit {limit}: should be a time such as 9m, 90s or 1h30m")
    return float(total)


def shard_minutes(plan: Plan, limit: float | None) -> float:
    """How large shards should be, so that several fit in the limit (in seconds)."""
    own = plan.study.compute.shard_minutes
    return own if limit is None else min(own, limit / 60 / SHARDS_PER_LIMIT)


def run(
    plan: Plan,
    shards: Sequence[Shard],
    work: Callable[[str, Shard], None],
    ended: Ended,
    limit: float | None = None,
    began: float | None = None,
) -> None:
    """Do `work` on each shard, stage by stage, within `limit` seconds of `began` (a time.monotonic(), now if None).

    A shard is begun if it fits by the plan's estimate, corrected by what this run measured so far; what is larger is
    left for a smaller one. If nothing fitted, the first is begun all the same: what it reaches stays in the store. At
    the limit, whatever is under way is stopped. A shard that fails stops no other. `ended` is kept up to date.
    """
    began = time.monotonic() if began is None else began
    pace = _Pace(plan, Store(plan.study.store))
    ended.left = [one.id for one in shards]
    with contextlib.suppress(OutOfTime), _alarm(limit, began) as remaining:
        while ended.left:
            waiting = [plan.shards[one] for one in ended.left]
            fitting = (one for one in waiting if pace.of_shard(one) <= remaining())
            shard = next(fitting, None if ended.done or ended.failed else waiting[0])
            if shard is None:
                break
            reason = _done(shard, work, pace)
            ended.left.remove(shard.id)
            if reason:
                ended.failed[shard.id] = reason
            else:
                ended.done.append(shard.id)
            print(
                f"{shard.id}: {reason or 'trained and measured'} "
                f"({len(shards) - len(ended.left)} of {len(shards)} shards, {time.monotonic() - began:.0f} s)",
                flush=True,
            )


def _done(shard: Shard, work: Callable[[str, Shard], None], pace: "_Pace") -> str | None:
    """Do both stages; returns why the shard failed, if it did."""
    for stage in jobs.STAGES:
        try:
            with pace.measured(stage, shard):
                work(stage, shard)
        except InputError as problem:
            return str(problem)
        except Exception as problem:
            traceback.print_exc()
            return " ".join(f"{type(problem).__name__}: {problem}".split())
    return None


@contextlib.contextmanager
def _alarm(limit: float | None, began: float) -> Iterator[Callable[[], float]]:
    """Raise OutOfTime in the block when the limit has come; gives the seconds that are left."""
    if limit is None:
        yield lambda: float("inf")
        return

    def ring(*_: Any) -> None:
        raise OutOfTime("stopped: out of time")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, began + limit - time.monotonic()))
    try:
        yield lambda: began + limit - time.monotonic()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Pace:
    """How long jobs take: the plan's estimate, times what jobs of their kind took of it so far."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self.estimated: dict[Any, float] = defaultdict(float)
        self.took: dict[Any, float] = defaultdict(float)

    def of_shard(self, shard: Shard) -> float:
        """Seconds that what is left of a shard will take."""
        return sum(self._seconds(stage, shard) for stage in jobs.STAGES)

    @contextlib.contextmanager
    def measured(self, stage: str, shard: Shard) -> Iterator[None]:
        """Learn from a job that the block does."""
        estimate, started = self._estimate(stage, shard), time.monotonic()
        yield
        if estimate:
            kind = self._kind(stage, shard)
            self.estimated[kind] += estimate
            self.took[kind] += time.monotonic() - started

    def _seconds(self, stage: str, shard: Shard) -> float:
        estimate, kind = self._estimate(stage, shard), self._kind(stage, shard)
        # Of a kind that has not been met, what any other took of its estimate.
        known = [self.took[one] / self.estimated[one] for one in self.estimated if one == kind or one[0] == kind[0]]
        factor = self.took[kind] / self.estimated[kind] if kind in self.estimated else max(known, default=1.0)
        return STARTING_SECONDS + factor * estimate

    def _estimate(self, stage: str, shard: Shard) -> float:
        if stage == "measure":
            return 60 * resources.measuring(self.plan, shard).minutes
        packs = [[left for one in pack if (left := self._left(one))] for pack in shard.packs]
        return sum(self.plan.seconds(pack) for pack in packs if pack)

    def _left(self, one: Any) -> Any:
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
