"""What the jobs of a shard do: what is needed is trained, then measured, and becomes rows of the tables.

The only room in which training and estimation meet. To be imported when torch is prepared (`devices.ready`).
"""

from collections.abc import Collection, Sequence
from functools import partial

from deltaball.data.datasets import Dataset
from deltaball.plan.networks import Trajectory
from deltaball.run import preparing, rows
from deltaball.run.measurer import Measurer
from deltaball.run.needs import needs
from deltaball.run.streams import side_by_side
from deltaball.run.trainer import Trainer
from deltaball.store.store import EvictedError, Store
from deltaball.training.progress import Progress
from deltaball.workflow.jobs import Job


def train(job: Job, tries_left: int) -> None:
    """Train what the store lacks of the job's shard, and write its part of networks.parquet.

    Raises InputError for a network that fails, unless no try is left: then its rows say so.
    """
    store, dataset = _opened(job)
    _train(job, store, dataset)
    rows.write_trained(job, store, tries_left)


def measure(job: Job, tries_left: int) -> None:
    """Measure what the store lacks of the job's shard, and write its parts of robustness and outcomes.

    Raises InputError as `train` does.
    """
    store, dataset = _opened(job)
    retrain_lost(job, store, dataset)
    _measure(job, store, dataset)
    rows.write_measured(job, store, tries_left)


def retrain_lost(job: Job, store: Store, dataset: Dataset) -> None:
    """Train again what the store lost since the shard was trained: the one way from measuring back into training.

    Lost are damaged and deleted files, and weights that were let go before a measure was added. What failed for good
    when the shard was trained is not tried again.
    """
    _train(job, store, dataset, given_up=rows.given_up(job))


def _opened(job: Job) -> tuple[Store, Dataset]:
    """The store and the data of a job."""
    # The store may have been emptied or damaged, or the study may have moved here, since the data were prepared.
    return Store(job.plan.study.store), preparing.prepared(job.plan, job.shard.dataset)


def _train(job: Job, store: Store, dataset: Dataset, given_up: Collection[str] = ()) -> None:
    """Train what the store lacks of a shard; where its weights do not stay, measure each pack and let it go."""
    plan, shard, device = job.plan, job.shard, job.plan.study.compute.device
    measurer = _measurer(job, store, dataset) if plan.evicts(shard) else None
    settled = {*given_up, *(_let_go(shard.trajectories, measurer, store) if measurer else ())}
    needed = needs(plan, shard, store, settled)
    progress = Progress(needed.networks, needed.sample_steps)
    trainer = Trainer(plan, dataset, store, progress)
    # Of weights that do not stay, the disk has to hold those of the packs under way.
    do = partial(_train_and_let_go, trainer=trainer, measurer=measurer, store=store) if measurer else trainer
    side_by_side(needed.trunks, partial(job.isolated, work=trainer), device, progress)
    trained = sum(side_by_side(wave, partial(job.isolated, work=do), device, progress) for wave in needed.waves)
    progress.close()
    networks = sum(store.has(one.id, step) for one in shard.trajectories for step in one.checkpoints)
    print(f"shard {shard.id}: trained {trained} networks, found {networks - trained} in the store", flush=True)


def _let_go(trajectories: Sequence[Trajectory], measurer: Measurer, store: Store) -> list[str]:
    """Evict what is completely measured: a job may have been killed between measuring and letting go."""
    complete = [one.id for one in trajectories if measurer.is_complete([one])]
    for identity in complete:
        store.evict(identity)
    return complete


def _train_and_let_go(pack: Sequence[Trajectory], trainer: Trainer, measurer: Measurer, store: Store) -> int:
    trained = trainer(pack)
    try:
        measurer(pack)
    except EvictedError:  # another job of this shard was first, in this very moment
        trainer(pack)
        measurer(pack)
    for one in pack:
        store.evict(one.id)
    return trained


def _measure(job: Job, store: Store, dataset: Dataset) -> None:
    measurer = _measurer(job, store, dataset)
    packs = measurer.trained()
    progress = measurer.progress(packs)
    computed = sum(job.isolated(pack, measurer) for pack in packs)
    progress.close()
    print(f"shard {job.shard.id}: computed {computed:,} outcomes (network × measure × point)", flush=True)


def _measurer(job: Job, store: Store, dataset: Dataset) -> Measurer:
    """What measures the job's shard, and notes in its record what that takes."""
    measurer = Measurer(job.plan, job.shard, dataset, store)
    measurer.judging = job.judging
    return measurer
