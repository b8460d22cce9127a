"""The parts of tables that the jobs of shards leave: written so that each says whose it is, checked when read."""

from collections.abc import Iterable

import pandas as pd
import pyarrow.parquet

from deltaball.base.files import remove, written_whole
from deltaball.plan.networks import Shard
from deltaball.plan.plan import Plan
from deltaball.tables import frames, sealing
from deltaball.workflow import jobs, parts


def write(table: pd.DataFrame, plan: Plan, shard: Shard, kind: str) -> None:
    """Write a shard's part of a table, whole or not at all; `kind` is of `workflow.parts.KINDS`."""
    with written_whole(jobs.part(plan, shard.id, kind)) as temporary:
        sealing.to_file(table, temporary, parts.identity(plan, shard, kind))


def read(plan: Plan, shard: Shard, kind: str, columns: Iterable[str] = ()) -> pd.DataFrame | None:
    """A shard's part of a table; None where it is not there. One that is not what it should be is named and removed."""
    path, damage = jobs.part(plan, shard.id, kind), parts.problem(plan, shard, kind)
    if damage:
        print(f"{damage}; it is made again", flush=True)
        remove(path)
    if not path.exists():
        return None
    table = frames.read(path, columns)
    if kind == "measured" and "points_seed" not in pyarrow.parquet.read_schema(path).names:
        # Of an earlier version, whose jobs ran again when the seed was changed.
        table["points_seed"] = plan.study.guarantee.seed
    return table
