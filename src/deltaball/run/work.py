"""What the jobs of a shard do: train it, measure it. The only room in which training and estimation meet."""

import contextlib
import importlib
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from deltaball.base.errors import InputError, system_message
from deltaball.base.statuses import FAILED
from deltaball.plan.measures import Measure
from deltaball.plan.networks import Shard, Trajectory
from deltaball.plan.plan import Plan
from deltaball.run.libraries import prepare_jax, prepare_torch
from deltaball.run.streams import side_by_side, waves
from deltaball.study.methods import METHODS
from deltaball.training.progress import Progress
from deltaball.workflow import jobs

if TYPE_CHECKING:
    from deltaball.data.datasets import Dataset
    from deltaball.store.store import Store


def train(job: jobs.Job, tries_left: int) -> None:
    """Train what the store lacks of the job's shard, and write its part of networks.parquet.

    Raises InputError for a network that fails, unless no try is left: then its rows say so.
    """
    planned, shard = job.plan, job.shard
    from deltaball.tables import frames

    store, _ = _trained(job)
    table = frames.trained(planned, shard.trajectories, store, job.failures)
    job.judged(tries_left, made=int((table["status"] != FAILED).sum()))
    frames.write(table, jobs.part(planned, shard.id, "trained"))


def measure(job: jobs.Job, tries_left: int) -> None:
    """Measure what the store lacks of the job's shard, and write its parts of robustness and outcomes.

    Raises InputError as `train` does.
    """
    planned, shard = job.plan, job.shard
    from deltaball.estimation import estimates
    from deltaball.tables import frames

    # Whatever the store lost since it was trained (a damaged file) is trained again first.
    store, dataset = _trained(job)
    measuring = _Measuring(planned, shard, dataset, store)
    there = [place for place in measuring.asked if store.has(*place)]
    computed = sum(job.isolated(pack, measuring) for pack in planned.packed(there))
    print(f"shard {shard.id}: computed {computed:,} outcomes (network × measure × point)", flush=True)
    robustness, outcomes = estimates.estimates(planned, shard.trajectories, store)
    job.judged(tries_left, made=len(robustness))
    estimates.check_complete(planned, shard.trajectories, store, outcomes, job.failures)
    frames.write(outcomes, jobs.part(planned, shard.id, "outcomes"))
    frames.write(robustness, jobs.part(planned, shard.id, "measured"))


@contextlib.contextmanager
def on_device(job: jobs.Job) -> Iterator[None]:
    """Hold a device for a job, with torch (and JAX, for chains) ready for it; the record learns which."""
    from deltaball.run import devices

    kind, asked = job.plan.study.compute.device, time.monotonic()
    with devices.held() if kind == "cuda" else contextlib.nullcontext():
        job.waited = time.monotonic() - asked
        torch = prepare_torch(kind)
        if any(METHODS[one.method].on_jax for one in job.shard.trajectories):
            prepare_jax()
        job.device = torch.cuda.get_device_name() if kind == "cuda" else platform.machine()
        try:
            yield
        except OSError as problem:
            raise InputError(f"shard {job.shard.id}: {system_message(problem)}") from None
        finally:
            if kind == "cuda":
                job.device_memory_mb = round(torch.cuda.max_memory_allocated() / 2**20)


def _trained(job: jobs.Job) -> tuple["Store", "Dataset"]:
    """The store with everything of a shard trained, and its data; trains nothing that is there already.

    What failed for good when the shard was trained is not tried again by the job that measures it.
    """
    from deltaball.store.store import EvictedError, Store

    planned, shard = job.plan, job.shard
    store, facts = Store(planned.study.store), planned.facts[shard.dataset]
    if not store.has_dataset(facts):  # the store was emptied, or the study moved here, since it was prepared
        from deltaball.data import datasets

        store.save_dataset(datasets.load(facts.name, Path(planned.study.data)))
    dataset = store.load_dataset(facts)

    settled = _given_up(job) if job.stage == "measure" else set()
    trunks = _trunks(planned, shard)
    if planned.evicts(shard):
        measuring = _Measuring(planned, shard, dataset, store)
        complete = [one.id for one in shard.trajectories if measuring.is_complete([one])]
        for identity in complete:  # a job may have been killed between measuring and letting go
            store.evict(identity)
        settled.update(complete)
    packs = [pack for whole in shard.packs if (pack := tuple(one for one in whole if one.id not in settled))]
    progress = Progress(*_ahead(planned, [*trunks, *packs], store))

    def train(pack: Sequence[Trajectory]) -> int:
        return _trained_pack(planned, pack, dataset, store, progress)

    def train_and_evict(pack: Sequence[Trajectory]) -> int:  # what the disk has to hold is the weights of a pack
        trained = train(pack)
        try:
            measuring(pack)
        except EvictedError:  # another job of this shard was first, in this very moment
            train(pack)
            measuring(pack)
        for one in pack:
            store.evict(one.id)
        return trained

    device, work = planned.study.compute.device, train_and_evict if planned.evicts(shard) else train
    side_by_side(trunks, partial(job.isolated, work=train), device, progress)
    together = partial(side_by_side, work=partial(job.isolated, work=work), device=device, progress=progress)
    trained = sum(together(wave) for wave in waves(packs))
    progress.close()
    networks = sum(store.has(one.id, step) for one in shard.trajectories for step in one.checkpoints)
    print(f"shard {shard.id}: trained {trained} networks, found {networks - trained} in the store", flush=True)
    return store, dataset


def _given_up(job: jobs.Job) -> set[str]:
    """The trajectories that failed when the shard was trained."""
    from deltaball.tables import frames

    path = jobs.part(job.plan, job.shard.id, "trained")
    table = frames.read(path) if path.exists() else None
    failed = set() if table is None else {*table["network_id"][table["status"] == FAILED]}
    return {one.trajectory_id for one in job.plan.networks if one.id in failed}


def _ahead(planned: Plan, packs: Iterable[Sequence[Trajectory]], store: "Store") -> tuple[int, float]:
    """How many networks the store lacks of packs, and how many sample-steps they will take."""
    networks, sample_steps = 0, 0.0
    for one in chain.from_iterable(packs):
        missing = [step for step in one.checkpoints if not store.has(one.id, step)]
        if missing:
            networks += len(missing)
            reached = max((step for step in store.steps(one.id) if step < missing[0]), default=0)
            each = METHODS[one.method].images_each(one.axes, planned.facts[one.dataset].train)
            sample_steps += each * (missing[-1] - reached)
    return networks, sample_steps


def _trained_pack(
    planned: Plan, pack: Sequence[Trajectory], dataset: "Dataset", store: "Store", progress: Progress
) -> int:
    """Train what the store lacks of a pack, and first of what it starts from; returns how many of the pack."""
    lacking = [one for one in pack if not all(store.has(one.id, at) for at in one.checkpoints)]
    lost = [parent for one in lacking for parent in one.parents if not store.has(*parent)]
    for parents in planned.packed(lost):
        _trained_pack(planned, parents, dataset, store, progress)
    room = importlib.import_module(METHODS[pack[0].method].room)
    return room.train(pack, planned.layers(pack[0]), dataset, store, planned.study.compute.device, progress)


def _trunks(planned: Plan, shard: Shard) -> list[tuple[Trajectory, ...]]:
    """Packs of the dense checkpoints that the shard's pruned networks are compared with, where others train them."""
    own = {one.id for one in shard.trajectories}
    trunks = {one.trunk for one in planned.networks_of(shard.trajectories) if one.trunk and one.trunk[0] not in own}
    return planned.packed(trunks)


class _Measuring:
    """What is to be measured of a shard's networks and the trunks they are compared with; called on a pack of them."""

    def __init__(self, planned: Plan, shard: Shard, dataset: "Dataset", store: "Store") -> None:
        from deltaball.estimation import measuring, points

        self.room, self.planned, self.store = measuring, planned, store
        self.asked, self.seed = _asked(planned, shard), planned.study.guarantee.seed
        samples = max((count for wanted in self.asked.values() for count in wanted.values()), default=0)
        self.images = dataset.x_test[points.draw_points(dataset.facts, samples, self.seed)]

    def _asked_of(self, pack: Sequence[Trajectory]) -> dict[tuple[str, int], dict[Measure, int]]:
        places = [(one.id, step) for one in pack for step in one.checkpoints]
        return {place: self.asked[place] for place in places if place in self.asked}

    def is_complete(self, pack: Sequence[Trajectory]) -> bool:
        """Whether all of a pack is there and was measured before, so that its weights are not needed."""
        there = all(self.store.has(one.id, step) for one in pack for step in one.checkpoints)
        return there and self.room.is_complete(self._asked_of(pack), self.seed, self.store)

    def __call__(self, pack: Sequence[Trajectory]) -> int:
        device, layers = self.planned.study.compute.device, self.planned.layers(pack[0])
        chains = METHODS[pack[0].method].averages_samples
        return self.room.measure(self._asked_of(pack), layers, self.images, self.seed, self.store, device, chains)


def _asked(planned: Plan, shard: Shard) -> dict[tuple[str, int], dict[Measure, int]]:
    """What is to be measured of each checkpoint of a shard, and on how many points.

    Not every checkpoint is a network (a round of pruning on the way is none), and trunks are compared with.
    """
    asked: dict[tuple[str, int], dict[Measure, int]] = {}
    for network in planned.networks_of(shard.trajectories):
        wanted = planned.asked_of(network)
        for place in [(network.trajectory_id, network.checkpoint), *([network.trunk] if network.trunk else [])]:
            known = asked.setdefault(place, {})
            known |= {one: max(count, known.get(one, 0)) for one, count in wanted.items()}
    return {place: wanted for place, wanted in asked.items() if wanted}
