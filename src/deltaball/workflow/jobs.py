"""The record of every job of a study: where it ran, what it took, how it ended, which networks failed in it.

One file per run of a job, `jobs/STAGE/SHARD/RUN.STATUS.json`, undeclared to Snakemake. A run that is killed leaves
`running`. Merged results have the records of all their runs in one file, a line of JSON each. Light: the Snakefile
reads the records.
"""

import contextlib
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import deltaball
from deltaball.base import hardware, signals
from deltaball.base.errors import InputError, OutsideError
from deltaball.base.files import written_whole
from deltaball.plan.networks import Shard, Trajectory
from deltaball.plan.plan import Plan

STAGES = ("train", "measure")
PARTS = {"train": "trained", "measure": "measured"}  # by which part table a stage of a shard is known to be done
# How a run of a job ended.
RUNNING = "running"  # not yet, or it was killed
DONE = "done"
PARTIAL = "partial"  # it made its tables, in which some networks are `failed`
FAILED = "failed"  # it made none
MERGED_RECORDS = "jobs.jsonl"  # beside merged tables
SHOWN = 20

# By measure and network: of so many test points, the seconds of a CPU's work, or of holding a GPU.
Judging = dict[str, dict[str, tuple[int, float]]]


@dataclass
class Job:
    """What a running job keeps for its record; made by `recorded`."""

    plan: Plan
    stage: str
    shard: Shard
    failures: dict[str, str] = field(default_factory=dict)  # by trajectory
    device: str = ""
    device_memory_mb: float | None = None
    waited: float = 0.0  # for a device
    judging: Judging = field(default_factory=dict)

    def isolated(self, pack: Sequence[Trajectory], work: Callable[[Sequence[Trajectory]], int]) -> int:
        """`work` on a pack. Where it raises, on its halves, down to the network that fails; the others go on.

        So a pack that is too large for the memory is halved, too. A disk that is full or gone, a GPU that is lost
        (raised as OSError) or a damaged file is no network's failure. Returns the sum of what `work` returns.
        """
        if not pack:
            return 0
        try:
            return work(pack)
        except (OSError, OutsideError):
            raise
        except Exception as problem:
            if type(problem).__name__ == "AcceleratorError":  # torch's, which this light room does not import
                raise OSError(f"the GPU failed: {f'{problem}'.splitlines()[0]}") from problem
            reason = " ".join(f"{type(problem).__name__}: {problem}".split())
            if isinstance(problem, InputError):
                reason = str(problem)
            elif reason not in self.failures.values():
                traceback.print_exc()
        if len(pack) > 1:
            print(f"a pack of {len(pack)} failed ({reason}); trying its halves", flush=True)
            middle = len(pack) // 2
            return self.isolated(pack[:middle], work) + self.isolated(pack[middle:], work)
        print(f"shard {self.shard.id}: {self.stage} of {pack[0].id} failed: {reason}", flush=True)
        self.failures[pack[0].id] = reason
        return 0

    def check_failures(self, tries_left: int, made: int) -> None:
        """Raise InputError if the job should be tried again as a whole, or if it `made` nothing of what it should."""
        if not self.failures:
            return
        identity, reason = next(iter(self.failures.items()))
        count = f"{len(self.failures)} trajectories failed"
        if tries_left or not made:
            raise InputError(f"shard {self.shard.id}: {self.stage}: {count}, {identity} first: {reason}")
        print(f"shard {self.shard.id}: {count}; their networks stay `failed` until the study is run again", flush=True)


@contextlib.contextmanager
def recorded(plan: Plan, stage: str, shard: Shard) -> Iterator[Job]:
    """Record a run of a job, from its beginning, so that a run that is killed is known too."""
    job = Job(plan, stage, shard)
    started, begun, cpu = datetime.now(UTC), time.monotonic(), time.process_time()
    facts = _beginning(job, started)
    run = f"{started:%Y%m%dT%H%M%S%f}-{facts['host']}-{os.getpid()}"
    _write(plan, run, RUNNING, facts)
    status, reason = FAILED, None
    try:
        # A scheduler's SIGTERM, of a time limit for example, ends the job as an exception does: with its record.
        with signals.heeded():
            yield job
        status = PARTIAL if job.failures else DONE
    except BaseException as problem:
        reason = " ".join(f"{problem}".split()) or type(problem).__name__
        raise
    finally:
        facts |= _end(job, time.monotonic() - begun, time.process_time() - cpu, reason)
        with contextlib.suppress(OSError) if status == FAILED else contextlib.nullcontext():
            _write(plan, run, status, facts)
            _path(plan, run, RUNNING, facts).unlink()


def _beginning(job: Job, started: datetime) -> dict[str, Any]:
    # A tree that is run where it lies has no version that is installed.
    versions = ", ".join(
        [f"deltaball {deltaball.__version__}", *(f"{name} {version(name)}" for name in ("torch", "numpy"))]
    )
    return {
        "stage": job.stage,
        "shard": job.shard.id,
        "grid": job.shard.grid,
        "dataset": job.shard.dataset,
        "host": socket.gethostname(),
        "processor": processor(),
        "code": commit(),
        "started": started.isoformat(timespec="seconds"),
        "software": f"Python {platform.python_version()}, {versions}",
    }


def _end(job: Job, wall: float, cpu: float, reason: str | None) -> dict[str, Any]:
    """What is known of a run when it ends; `wall` and `cpu` are the seconds that it took."""
    on_cpu = job.plan.study.compute.device == "cpu"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "device": job.device,
        "wall_seconds": round(wall, 2),
        "device_seconds": round(cpu if on_cpu else wall - job.waited, 2),
        "memory_mb": round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
        "device_memory_mb": job.device_memory_mb,
        "reason": reason,
        "failures": job.failures,
        "judging": {
            measure: {identity: (points, round(seconds, 4)) for identity, (points, seconds) in members.items()}
            for measure, members in job.judging.items()
        },
    }


def commit() -> str | None:
    """The git commit of the code that runs, `-dirty` if it was changed since; None for code that is in no clone."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    with contextlib.suppress(OSError):  # no git
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=False)
        named = [*git, "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
        done = subprocess.run(named, capture_output=True, text=True, check=False)
        if tracked.returncode == done.returncode == 0:
            return done.stdout.strip()
    return None


def processor() -> str:
    """The model of this machine's CPU and how many cores it has."""
    return f"{hardware.processor()}, {os.cpu_count()} cores"


def _write(plan: Plan, run: str, status: str, facts: dict[str, Any]) -> None:
    with written_whole(_path(plan, run, status, facts)) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n")


def _path(plan: Plan, run: str, status: str, facts: dict[str, Any]) -> Path:
    return plan.study.folder / "jobs" / facts["stage"] / facts["shard"] / f"{run}.{status}.json"


def partial_runs(plan: Plan) -> Counter[tuple[str, str]]:
    """How often a (stage, shard) ended with failed networks in its tables.

    A rule that is told the number runs again after every such end, and not after one that went well.
    """
    paths = (plan.study.folder / "jobs").glob("*/*/*.partial.json")
    return Counter((path.parts[-3], path.parts[-2]) for path in paths)


def records(plan: Plan) -> list[dict[str, Any]]:
    """Every run of every job of a study, as `records_in` has them."""
    return records_in(plan.study.folder)


def records_in(*folders: Path) -> list[dict[str, Any]]:
    """Every run of every job of results folders, the oldest first; `status` is `running` too where a job was killed."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for record in _kept(folder / MERGED_RECORDS) + _left(folder / "jobs"):
            known = found.get(record["run"])
            if known is None or known["status"] == RUNNING:
                found[record["run"]] = record
    return [found[run] for run in sorted(found)]


def lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as they are kept beside merged tables."""
    return "".join(json.dumps(one, sort_keys=True) + "\n" for one in records)


def _kept(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [one for one in found if _is_record(one)]


def _left(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in folder.glob("*/*/*.json"):
        # A job that ends meanwhile replaces its file; and what no job wrote is no record.
        with contextlib.suppress(OSError, ValueError, TypeError):
            run, status, _ = path.name.rsplit(".", 2)
            found.append({**json.loads(path.read_text()), "run": run, "status": status})
    return [one for one in found if _is_record(one)]


def _is_record(found: Any) -> bool:
    """Whether JSON is what `recorded` writes, as far as its readers rely on it."""
    if not isinstance(found, dict) or found.get("status") not in (RUNNING, DONE, PARTIAL, FAILED):
        return False
    texts = all(isinstance(found.get(name), str) for name in ("run", "stage", "shard", "grid", "dataset", "started"))
    numbers = ("wall_seconds", "device_seconds", "memory_mb", "device_memory_mb")
    numeric = all(isinstance(found.get(name), int | float | None) for name in numbers)
    ended = found["status"] == RUNNING or isinstance(found.get("failures"), dict)
    return texts and numeric and ended


def part(plan: Plan, shard: str, kind: str) -> Path:
    """A shard's part of a table: `trained`, `measured` or `outcomes`."""
    return plan.study.folder / "shards" / f"{shard}.{kind}.parquet"


def log(plan: Plan, stage: str, shard: str) -> Path:
    """What a job of a shard says."""
    return plan.study.folder / "logs" / stage / f"{shard}.log"


def unfinished(plan: Plan) -> dict[tuple[str, str], str]:
    """Why each (stage, shard) whose job was tried has no table."""
    last = {(one["stage"], one["shard"]): one for one in records(plan)}
    found = {}
    for stage in STAGES:
        for shard in plan.shards:
            one = last.get((stage, shard))
            if one and one["status"] in (RUNNING, FAILED) and not part(plan, shard, PARTS[stage]).exists():
                silent = "its job ended without a word: killed, out of memory, or its node was lost"
                found[stage, shard] = one["reason"] if one["status"] == FAILED else silent
    return found


def lost(plan: Plan) -> dict[str, str]:
    """Why each network has no row whose shard was to be trained and was not, by id."""
    return {
        network.id: f"its shard failed: {reason}"
        for (stage, shard), reason in unfinished(plan).items()
        if stage == "train"
        for network in plan.networks_of(plan.shards[shard].trajectories)
    }


def summary(plan: Plan, succeeded: bool = False) -> Iterator[str]:
    """What failed, why, and which log says more; nothing when nothing failed.

    A run that `succeeded` made all that was asked of it, which need not be every shard.
    """
    failed = unfinished(plan)
    for (stage, shard), reason in list(failed.items())[:SHOWN]:
        yield f"{stage} of shard {shard} failed: {reason} (log: {log(plan, stage, shard)})"
    if len(failed) > SHOWN:
        yield f"and {len(failed) - SHOWN} more"
    last = {(one["stage"], one["shard"]): one for one in records(plan)}
    for (stage, shard), one in last.items():
        if one["status"] == PARTIAL and shard in plan.shards:
            reasons = Counter(one["failures"].values()).most_common(1)
            yield (
                f"{stage} of shard {shard}: {len(one['failures'])} trajectories failed: {reasons[0][0]} "
                f"(log: {log(plan, stage, shard)})"
            )
    waiting = sum(
        not part(plan, shard, PARTS[stage]).exists() and (stage, shard) not in failed
        for stage in STAGES
        for shard in plan.shards
    )
    if waiting and not succeeded:
        yield f"{waiting} jobs were not tried, because they need what failed or the run stopped before"
