"""Shards trained and measured one after the other in one process, as many as fit in a time, without Snakemake."""

import contextlib
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from deltaball.base.errors import InputError
from deltaball.plan.networks import Shard
from deltaball.plan.plan import Plan
from deltaball.run.pace import Pace
from deltaball.store.store import Store
from deltaball.workflow import jobs

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


def by_chance(shards: Sequence[Shard]) -> list[Shard]:
    """Grid by grid in the order given, within a grid by the shards' ids, which are hashes.

    A plan has the shards of small networks first. A run that stopped amid them would leave tables of small networks.
    """
    place = {name: index for index, name in enumerate(dict.fromkeys(one.grid for one in shards))}
    return sorted(shards, key=lambda one: (place[one.grid], one.id))


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
    pace = Pace(plan, Store(plan.study.store))
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


def _done(shard: Shard, work: Callable[[str, Shard], None], pace: Pace) -> str | None:
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
