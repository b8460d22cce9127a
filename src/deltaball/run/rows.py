"""From the store to the rows of the tables: each job writes its shard's, and the shards' become the study's.

Estimation, and torch with it, is imported where it is needed: networks are collected without.
"""

from collections.abc import Mapping

import pandas as pd

from deltaball.base.errors import InputError
from deltaball.base.statuses import FAILED
from deltaball.plan.plan import Plan
from deltaball.run import pieces, superseding
from deltaball.store.store import Store
from deltaball.tables import frames, outcomes, parts
from deltaball.workflow import jobs, products
from deltaball.workflow.jobs import Job


def write_trained(job: Job, store: Store, tries_left: int) -> None:
    """Write a shard's part of networks.parquet. Raises InputError where the job is to be tried again."""
    table = frames.trained(job.plan, job.shard.trajectories, store, job.failures)
    job.check_failures(tries_left, made=int((table["status"] != FAILED).sum()))
    parts.write(table, job.plan, job.shard, "trained")


def write_measured(job: Job, store: Store, tries_left: int) -> None:
    """Write a shard's parts of robustness and outcomes. Raises InputError where the job is to be tried again."""
    from deltaball.estimation import estimates

    robustness, values = estimates.estimates(job.plan, job.shard.trajectories, store)
    job.check_failures(tries_left, made=len(robustness))
    estimates.check_complete(job.plan, job.shard.trajectories, store, values, job.failures)
    parts.write(values, job.plan, job.shard, "outcomes")
    parts.write(robustness, job.plan, job.shard, "measured")


def given_up(job: Job) -> set[str]:
    """The trajectories that failed when the job's shard was trained, by id."""
    table = parts.read(job.plan, job.shard, "trained")
    if table is None:
        return set()
    failed = {*table["network_id"][table["status"] == FAILED]}
    return {network.trajectory_id for network in job.plan.networks if network.id in failed}


def collect_networks(plan: Plan) -> str:
    """Write networks.parquet; returns what it holds, in words.

    A network that failed now, and was trained before, stays as it was: nothing known is replaced by nothing. Raises
    InputError when a shard's part is not there.
    """
    path = plan.study.folder / "networks.parquet"
    trained = _parts(plan, "trained")
    earlier = _earlier(plan, trained)
    if earlier:
        stays = earlier["networks"]["network_id"]
        trained = [*(table[~table["network_id"].isin(stays)] for table in trained), earlier["networks"]]
    table = frames.networks(plan, trained)
    frames.write(table, path)
    return f"{path}: {len(table)} networks ({status_counts(table)})"


def collect_robustness(plan: Plan) -> str:
    """Write robustness.parquet and what is derived from outcomes; returns and raises as `collect_networks` does."""
    from deltaball.estimation import convergence, curves

    folder = plan.study.folder
    earlier = _earlier(plan, _parts(plan, "trained"))
    table = frames.robustness(plan, [*_parts(plan, "measured"), *([earlier["robustness"]] if earlier else [])])
    kept = frames.outcomes(plan, [*_parts(plan, "outcomes"), *([earlier["outcomes"]] if earlier else [])])
    found = outcomes.rounded(plan, kept)
    frames.write(found, folder / "outcomes.parquet")
    frames.write(curves.curves(plan, found), folder / "curves.parquet")
    frames.write(convergence.convergence(plan, found), folder / "convergence.parquet")
    frames.write(table, folder / "robustness.parquet")
    return f"{folder / 'robustness.parquet'}: {len(table)} estimates"


def _earlier(plan: Plan, trained: list[pd.DataFrame]) -> Mapping[str, pd.DataFrame] | None:
    """What the tables, as they were when the run began, say of networks that failed now; None where that is nothing."""
    failed = {identity for table in trained for identity in table["network_id"][table["status"] == FAILED]}
    folder = products.known(plan)
    if not failed or not (folder / "networks.parquet").exists():
        return None
    try:
        piece = superseding.current(plan, pieces.of_folder(folder, own=True))
    except InputError as problem:
        print(f"{problem}; nothing is taken from there", flush=True)
        return None
    stays = failed & pieces.finished([piece])
    found = {name: table[table["network_id"].isin(stays)] for name, table in piece.tables.items()}
    measures = {one.name for one in plan.measures} | {one.name for each in plan.experiments for one in each.measures}
    return {
        name: table[table["measure"].isin(measures)] if "measure" in table else table for name, table in found.items()
    }


def status_counts(networks: pd.DataFrame) -> str:
    """How many networks have which status, in words."""
    return ", ".join(f"{count} {status}" for status, count in networks["status"].value_counts().items())


def _parts(plan: Plan, kind: str) -> list[pd.DataFrame]:
    found = {shard.id: parts.read(plan, shard, kind) for shard in plan.shards.values()}
    # Snakemake has seen every part; but a job that another Snakemake left behind may be writing its own anew.
    missing = [jobs.part(plan, identity, kind) for identity, table in found.items() if table is None]
    if missing:
        raise InputError(f"{missing[0]} is not there, nor {len(missing) - 1} more; run again, or `deltaball collect`")
    return list(found.values())
