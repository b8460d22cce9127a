"""A study trained and measured in one process, without Snakemake, as much of it as fits in a time."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deltaball.base.errors import InputError, alternatives
from deltaball.plan import loading
from deltaball.plan.networks import Shard
from deltaball.plan.plan import Plan, plan
from deltaball.run import devices, libraries, limited
from deltaball.store.store import Store
from deltaball.study.methods import TRAININGS
from deltaball.workflow import claims, jobs, launch, products

if TYPE_CHECKING:
    from deltaball.run.pieces import Piece


def run(
    study: Path, grids: Sequence[str], device: str | None, time_limit: str | None, sample: int | None = None
) -> None:
    """Train and measure the networks of these grids (all if none is named) on a device.

    With `sample`, only so many networks of each grid are meant, drawn by chance. The tables that come of it are merged
    with those of the study's folder, and what these have already is left out. Raises InputError when a shard failed.
    """
    began = time.monotonic()
    limit = limited.seconds(time_limit) if time_limit else None
    planned = _planned(study, device, limit)
    asked = _asked(planned, grids, sample)
    folder, device = planned.study.folder, planned.study.compute.device
    # One device for all jobs, because CUDA is started once.
    with claims.claim(), devices.held(device):
        libraries.prepare_torch(device)
        launch.check_writable(folder)
        launch.tell(products.remove_damaged(planned))
        # They import torch, which had to be prepared.
        from deltaball.run import autoencoding, completeness, merging, preparing

        there = [merging.own_piece(planned)] if (folder / "networks.parquet").exists() else []
        to_do = asked & merging.lacking(planned, there[0]) if there else asked
        planned = replace(planned, first=planned.with_steps(to_do))
        shards = [shard for shard in planned.shards.values() if any(one.id in to_do for one in shard.trajectories)]
        shards = limited.by_chance(shards)
        wanted = [network for shard in shards for network in planned.networks_of(shard.trajectories)]
        preparing.check_there(planned, Store(planned.study.store), wanted)
        for name in sorted({one.dataset for one in wanted}):
            if planned.autoencoders(name):
                autoencoding.prepare(planned, preparing.prepared(planned, name))
        # Keras takes its backend when it is imported.
        if any(TRAININGS[one.method].on_jax for shard in shards for one in shard.trajectories):
            libraries.prepare_jax()
        # Reading the tables took this long, and so may writing them.
        reserve = 2 * (time.monotonic() - began) + 1
        trained, ended, estimates = [], limited.Ended(), completeness.estimates_there(planned)
        try:
            limited.run(planned, shards, partial(_job, planned, trained), ended, limit and limit - reserve, began)
        finally:
            said = merging.merge(planned, study, [*there, *_new(planned, trained, ended)])
            print(f"{said}, {len(completeness.estimates_there(planned) - estimates)} of them new")
    if ended.left:
        print(f"{len(ended.left)} of {len(shards)} shards are left; the same command goes on from here")
    if ended.failed:
        raise InputError(f"{len(ended.failed)} shards failed, {next(iter(ended.failed))} first; see {folder / 'logs'}")
    if not ended.left:
        completeness.check(planned, {one.id for one in planned.networks if one.trajectory_id in asked})


def _planned(study: Path, device: str | None, limit: float | None) -> Plan:
    """The plan for a device, in shards of which several fit in the limit."""
    whole = loading.planned(study)
    changed = {"device": device or whole.study.compute.device, "shard_minutes": limited.shard_minutes(whole, limit)}
    return plan(whole.study.model_copy(update={"compute": whole.study.compute.model_copy(update=changed)}))


def _asked(planned: Plan, grids: Sequence[str], sample: int | None) -> set[str]:
    """The ids of the trajectories that hold what is asked for."""
    known = [grid.name for grid in planned.study.grids]
    for name in grids:
        if name not in known:
            raise InputError(f"--grids {name}: the study has no such grid; {alternatives(name, known)}")
    if sample is not None and sample < 1:
        raise InputError(f"--sample {sample}: should be a number of networks of each grid, such as 400")
    most = len(planned.networks) if sample is None else sample
    return {one for name in grids or known for one in planned.drawn(name, most)}


def _job(planned: Plan, trained: list[Shard], stage: str, shard: Shard) -> None:
    """Do one stage of a shard, and tell its log; what is trained joins `trained`."""
    log = jobs.log(planned, stage, shard.id)
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a") as said,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        jobs.recorded(planned, stage, shard) as job,
        devices.ready(job),
    ):
        from deltaball.run import work

        {"train": work.train, "measure": work.measure}[stage](job, tries_left=0)
    if stage == "train":
        trained.append(shard)


def _new(planned: Plan, trained: Sequence[Shard], ended: limited.Ended) -> list["Piece"]:
    """What this run adds to the tables."""
    from deltaball.run import pieces

    parts = [pieces.of_shard(planned, shard) for shard in trained]
    failures = {
        network.id: f"its shard failed: {reason}"
        for shard, reason in ended.failed.items()
        for network in planned.networks_of(planned.shards[shard].trajectories)
    }
    return [*parts, pieces.of_failures(failures)]
