"""The parts of tables that the jobs of shards leave, and whether each is what it should be. Light, like the plan.

A part says whose it is in the metadata of its parquet file: its shard, its kind, and a digest of what was asked. Beside
it stands a checksum of the file's bytes, in which its own 64 characters count as zeros. Parts of an earlier version
say nothing; of them only the networks are compared with the shard's.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from deltaball.base.files import remove
from deltaball.plan.networks import Shard
from deltaball.plan.plan import Plan
from deltaball.workflow import jobs, stages

KINDS = ("trained", "measured", "outcomes")
MAGIC = b"PAR1"  # how every parquet file begins and ends
BLANK = "0" * 64
LABEL = re.compile(rb"sha256=([0-9a-f]{64}) (\{[^{}]*\})")


def blank_label(plan: Plan, shard: Shard, kind: str) -> str:
    """What a part says of itself, to be put in the file's metadata; `sealed` fills the checksum in."""
    identity = {"shard": shard.id, "part": kind, "asked": _asked(plan, shard)[kind]}
    return f"sha256={BLANK} {json.dumps(identity, sort_keys=True)}"


def sealed(content: bytes) -> bytes:
    """A file's bytes that have a blank label, with their checksum in it."""
    start, end = list(LABEL.finditer(content))[-1].span(1)
    return content[:start] + hashlib.sha256(content).hexdigest().encode() + content[end:]


def problem(plan: Plan, shard: Shard, kind: str) -> str | None:
    """Why a part is not what it should be; None where it is, or is not there."""
    path = jobs.part(plan, shard.id, kind)
    if path.is_dir():
        return f"{path} is a folder"
    if not path.exists():
        return None
    content = path.read_bytes()
    if len(content) < 2 * len(MAGIC) or not content.startswith(MAGIC) or not content.endswith(MAGIC):
        return f"{path} is damaged (it is cut, or no table)"
    labels = list(LABEL.finditer(content))
    if not labels and not any(piece in content for piece in (b"sha256=", b'"asked"')):
        return _problem_without_label(plan, shard, path)
    if not labels:
        return f"{path} is damaged (it does not say whose it is)"
    start, end = labels[-1].span(1)
    blank = content[:start] + BLANK.encode() + content[end:]
    if hashlib.sha256(blank).hexdigest().encode() != labels[-1][1]:
        return f"{path} is damaged (its checksum does not fit)"
    said = json.loads(labels[-1][2])
    if (said["shard"], said["part"]) != (shard.id, kind):
        return f"{path} holds the part {said['part']} of shard {said['shard']}"
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
    labels = list(LABEL.finditer(path.read_bytes()))
    return json.loads(labels[-1][2])["asked"] if labels else None


def _problem_without_label(plan: Plan, shard: Shard, path: Path) -> str | None:
    import pyarrow.parquet  # only for parts of an earlier version, so that the Snakefile stays light

    try:
        ids = set(pyarrow.parquet.read_table(path, columns=["network_id"])["network_id"].to_pylist())
    except (OSError, ValueError) as problem:  # pyarrow's errors are ValueErrors
        return f"{path} is damaged ({' '.join(str(problem).split())})"
    strangers = ids - {network.id for network in plan.networks_of(shard.trajectories)}
    if strangers and not strangers.isdisjoint(network.id for network in plan.networks):
        return f"{path} holds networks of another shard"
    return None
