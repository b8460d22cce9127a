"""What a shard needs: checkpoints to train, in packs that may begin one after another, and outcomes to measure."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from deltaball.plan.measures import Measure
from deltaball.plan.networks import CheckpointId, Shard, Trajectory
from deltaball.plan.plan import Plan
from deltaball.plan.together import Pack, waves
from deltaball.store.store import Store
from deltaball.study.methods import TRAININGS


@dataclass(frozen=True)
class Needs:
    """What a job trains, unless the store has it."""

    trunks: list[Pack]  # dense checkpoints that other shards train, and that pruned networks are compared with
    waves: list[list[Pack]]  # of the shard; what is pruned comes in a later wave than what it is pruned from
    networks: int  # that the store lacks
    sample_steps: float  # that these will take: one is one image in one step of one network


def needs(plan: Plan, shard: Shard, store: Store, settled: Collection[str]) -> Needs:
    """What a job on a shard trains; nothing of the trajectories that are `settled`, by id."""
    trunks = _trunks(plan, shard)
    packs = [pack for whole in shard.packs if (pack := tuple(one for one in whole if one.id not in settled))]
    return Needs(trunks, waves(packs), *_lacking(plan, [*trunks, *packs], store))


def asked(plan: Plan, shard: Shard) -> dict[CheckpointId, dict[Measure, int]]:
    """What is to be measured of each checkpoint of a shard, and on how many points.

    Not every checkpoint is a network (a round of pruning on the way is none), and trunks are compared with.
    """
    samples: dict[CheckpointId, dict[Measure, int]] = {}
    for network in plan.networks_of(shard.trajectories):
        wanted = plan.asked_of(network)
        own = network.trajectory_id, network.checkpoint
        for checkpoint in [own, *([network.trunk] if network.trunk else [])]:
            known = samples.setdefault(checkpoint, {})
            known |= {measure: max(count, known.get(measure, 0)) for measure, count in wanted.items()}
    return {checkpoint: wanted for checkpoint, wanted in samples.items() if wanted}


def _trunks(plan: Plan, shard: Shard) -> list[Pack]:
    own = {one.id for one in shard.trajectories}
    trunks = {one.trunk for one in plan.networks_of(shard.trajectories) if one.trunk and one.trunk[0] not in own}
    return plan.packed(trunks)


def _lacking(plan: Plan, packs: Iterable[Sequence[Trajectory]], store: Store) -> tuple[int, float]:
    """How many networks the store lacks of packs, and how many sample-steps they will take."""
    networks, sample_steps = 0, 0.0
    for one in chain.from_iterable(packs):
        missing = [step for step in one.checkpoints if not store.has(one.id, step)]
        if missing:
            networks += len(missing)
            reached = max((step for step in store.steps(one.id) if step < missing[0]), default=0)
            each = TRAININGS[one.method].images_each(one.axes, plan.facts[one.dataset].train)
            sample_steps += each * (missing[-1] - reached)
            # A step is worth three forward passes.
            sample_steps += (
                TRAININGS[one.method].searching(one.axes, plan.facts[one.dataset].train, plan.layers(one))[0] / 3
            )
    return networks, sample_steps
