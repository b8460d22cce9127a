"""The parts of tables that the jobs of shards leave, and whether each is what it should be. Light, like the plan.

The seal of a part says its shard, its kind, and a digest of what was asked. Parts of an earlier version have none; of
them only the networks are compared with the shard's.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from deltaball.base.files import remove
from deltaball.plan.networks import Shard
from deltaball.plan.plan import Plan
from deltaball.workflow import jobs, seals, stages

KINDS = ("trained", "measured", "outcomes")


def identity(plan: Plan, shard: Shard, kind: str) -> dict[str, str]:
    """What the seal of a part says."""
    return {"shard": shard.id, "part": kind, "asked": _asked(plan, shard)[kind]}


def problem(plan: Plan, shard: Shard, kind: str) -> str | None:
    """Why a part is not what it should be; None where it is, or is not there."""
    path = jobs.part(plan, shard.id, kind)
    if damaged := seals.damage(path):
        return damaged
    if not path.exists():
        return None
    said = seals.identity(path)
    if said is None:
        return _problem_without_seal(plan, shard, path)
    if (said.get("shard"), said.get("part")) != (shard.id, kind):
        whose = f"the part {said['part']} of shard {said['shard']}" if "part" in said else "another table"
        return f"{path} holds {whose}"
    return None


def remove_damaged(plan: Plan) -> Iterator[str]:
    """Remove the parts that are not what they should be, so that they are made again; says of each why."""
    for shard in plan.shards.values():
        there = [kind for kind in KINDS if jobs.part(plan, shard.id, kind).exists()]
        asked = _asked(plan, shard) if there else {}
        for kind in there:
            path, said = jobs.part(plan, shard.id, kind), problem(plan, shard, kind)
            if said:
                remove(path)
                yield f"{said}; it is made again"
            elif _answers(path) not in (None, asked[kind]):
                # It stays until its rule, which runs again for what is older than its input, has made another.
                os.utime(path, (0, 0))


def _asked(plan: Plan, shard: Shard) -> dict[str, str]:
    """A digest of what is asked of each kind of part of a shard."""
    measures = stages.measures_digest(plan, shard)
    return {"trained": stages.shard_digest(plan, shard), "measured": measures, "outcomes": measures}


def _answers(path: Path) -> str | None:
    """The digest of what was asked when a part was made; None where it does not say."""
    said = seals.identity(path)
    return said and said["asked"]


def _problem_without_seal(plan: Plan, shard: Shard, path: Path) -> str | None:
    import pyarrow.parquet  # only for parts of an earlier version, so that the Snakefile stays light

    try:
        ids = set(pyarrow.parquet.read_table(path, columns=["network_id"])["network_id"].to_pylist())
    except (OSError, ValueError) as problem:  # pyarrow's errors are ValueErrors
        return f"{path} is damaged ({' '.join(str(problem).split())})"
    strangers = ids - {network.id for network in plan.networks_of(shard.trajectories)}
    if strangers and not strangers.isdisjoint(network.id for network in plan.networks):
        return f"{path} holds networks of another shard"
    return None
