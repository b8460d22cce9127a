"""What a study would train, and what that costs, before any of it is spent."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from deltaball.base.errors import InputError
from deltaball.base.wording import estimated, size
from deltaball.plan import costs
from deltaball.plan.networks import Shard, Trajectory
from deltaball.plan.plan import Plan
from deltaball.run import preparing
from deltaball.store.store import Store
from deltaball.study.descending import Finetune
from deltaball.study.grids import count_matching
from deltaball.study.methods import METHODS, TRAININGS
from deltaball.workflow import resources

COLUMNS = (
    "grid",
    "networks",
    "in store",
    "trajectories",
    "packs",
    "shards",
    "training FLOP",
    "training",
    "measuring",
    "disk",
)


def in_store(plan: Plan, store: Store) -> set[str]:
    """The ids of the planned networks whose checkpoints are in the store."""
    return {one.id for one in plan.networks if store.has(one.trajectory_id, one.checkpoint)}


def lines(plan: Plan, store: Store) -> Iterator[str]:
    """The plan in words: a table of grids, what sharing saves, what the guarantee needs.

    FLOP and disk are exact; times are estimates of what the study's device takes, one job after the other.
    """
    guarantee, device = plan.study.guarantee, plan.study.compute.device
    yield f"study {plan.study.study}: {len(plan.networks):,} networks, {len(plan.measures)} measures, on {device}"
    yield from _table(plan, in_store(plan, store))
    pruned = [one for one in plan.networks if METHODS[one.method].is_pruning]
    if pruned:
        rounds = sum(TRAININGS[one.method].is_pruning for one in plan.trajectories.values())
        alone = sum(METHODS[one.method].trainings_alone(one.axes) for one in pruned)
        yield (
            f"pruning: {rounds:,} trainings of rounds and {len({one.trunk for one in pruned}):,} dense checkpoints "
            f"serve {len(pruned):,} networks; each alone would take {alone:,} trainings"
        )
    yield from _tuned(plan)
    coders = [one for dataset in plan.facts for one in plan.autoencoders(dataset)]
    if coders:
        seconds = 60 * sum(resources.autoencoding(plan, one).minutes for one in coders)
        yield f"auto-encoders: {len(coders)}, trained before what needs them: {estimated(seconds)}"
    each = "all estimates at once" if guarantee.simultaneous else "each estimate"
    for epsilon, confidence, samples in dict.fromkeys(
        (one.epsilon / one.highest, guarantee.confidence if guarantee.simultaneous else one.confidence, one.samples)
        for one in plan.measures
    ):
        yield f"guarantee: {samples} test points give ε = {epsilon:g} at {confidence:.4g} for {each} (Hoeffding)"
    yield from _measures(plan)
    yield from _absent(plan, store)
    yield from _evicted(plan)
    yield _jobs(plan)
    yield "times are estimates, of one device alone; a trajectory that grids share is counted in the first"
    yield _rates(plan)


def _tuned(plan: Plan) -> Iterator[str]:
    """What fine-tuning trains and looks for."""
    tuned = [one for one in plan.networks if one.method == "finetune"]
    rounds = [one for one in plan.trajectories.values() if one.method == "finetune"]
    if not tuned:
        return
    searches = {(one.parents[-1], one.axes["adversary"], one.axes["cap"], one.axes["lead"]): one for one in rounds}
    images = sum(Finetune.sought(one.axes, plan.facts[one.dataset].train) for one in searches.values())
    yield (
        f"fine-tuning: {len(rounds):,} trainings of rounds and {len({one.trunk for one in tuned}):,} networks of SGD "
        f"serve {len(tuned):,} networks; adversarial examples of {images:,} images are sought"
    )


def _rates(plan: Plan) -> str:
    """By which rates times are estimated."""
    rates, one = plan.rates, "one core of " if plan.study.compute.device == "cpu" else ""
    if rates.shipped:
        source = "they ship with deltaball; `deltaball calibrate` measures this machine"
    else:
        source = str(costs.path(plan.study.store, rates.device))
    return f"estimates are for {one}{rates.hardware}, measured {rates.measured}: {source}"


def _measures(plan: Plan) -> Iterator[str]:
    """How many networks each notion is judged on, by what, and at which δ's."""
    counts: dict[tuple[str, str, str, int], dict[str, None]] = defaultdict(dict)
    for one in plan.measures:
        networks = sum(count_matching(one.wanted, grid) for grid in plan.study.grids)
        threshold = "" if one.gamma is None else f" {one.gamma:g}"
        where, size = (one.kernel.words, "") if one.kernel else (f"{one.norm} of δ = ", f"{one.delta:g}")
        counts[f"{one.notion}{threshold}", where, one.label, networks][size] = None
    for (notion, where, judge, networks), sizes in counts.items():
        yield f"measure: {notion} in {where}{', '.join(sizes)} by {judge}: {networks:,} networks"
    for experiment in plan.experiments:
        (first, *_) = experiment.measures
        judges = " and ".join(dict.fromkeys(one.label for one in experiment.measures))
        draws = f"{experiment.draws} draws for each of {len(experiment.epsilons)} ε's"
        networks = f"{len(experiment.networks)} networks on all their test points"
        yield f"convergence: {draws}, {first.notion} by {judges}: {networks}"


def _absent(plan: Plan, store: Store) -> Iterator[str]:
    try:
        preparing.check_there(plan, store, plan.networks)
    except InputError as problem:
        yield f"{problem}; this plan goes by one of 32×32 pixels"


def _evicted(plan: Plan) -> Iterator[str]:
    """What passes through the disk and does not stay there."""
    shards = [shard for shard in plan.shards.values() if plan.evicts(shard)]
    if shards:
        packs = [sum(one.stored_bytes for one in pack) for shard in shards for pack in shard.packs]
        grids = ", ".join(dict.fromkeys(shard.grid for shard in shards))
        yield (
            f"disk: weights of {grids} are evicted once measured: {size(sum(packs))} in all, of which "
            f"each training job holds at most {size(max(packs))} at a time"
        )


def _table(plan: Plan, there: set[str]) -> Iterator[str]:
    rows = [COLUMNS]
    measuring = {identity: resources.measuring(plan, shard).minutes for identity, shard in plan.shards.items()}
    for grid in plan.study.grids:
        trajectories = [one for one in plan.trajectories.values() if one.grid == grid.name]
        shards = [one for one in plan.shards.values() if one.grid == grid.name]
        networks = [one.id for one in plan.networks if one.grid == grid.name]
        rows.append((grid.name, *_networks(networks, there), *_costs(plan, trajectories, shards, measuring)))
    total = _costs(plan, [*plan.trajectories.values()], [*plan.shards.values()], measuring)
    rows.append(("all", *_networks([one.id for one in plan.networks], there), *total))
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        yield "  ".join(cells)


def _networks(ids: list[str], there: set[str]) -> tuple[str, str]:
    return f"{len(ids):,}", f"{sum(identity in there for identity in ids):,}"


def _jobs(plan: Plan) -> str:
    asked = [
        stage(plan, shard) for shard in plan.shards.values() for stage in (resources.training, resources.measuring)
    ]
    if not asked:
        return "no job to run"
    longest = max(asked, key=lambda one: one.minutes).runtime()
    most = max(one.mem_mb() for one in asked)
    return (
        f"{len(asked)} jobs, half training (about {plan.study.compute.shard_minutes:g} min or less), half measuring; "
        f"each asks for {_ask(plan)}, at most {longest} and {most:,} MB, twice that on a retry"
    )


def _ask(plan: Plan) -> str:
    return "1 GPU and 2 CPUs" if resources.gpu(plan) else "1 CPU"


def shards(plan: Plan) -> Iterator[str]:
    """The shards, with what their two jobs ask a cluster for at the first attempt."""
    for shard in plan.shards.values():
        start = f"{shard.id}  {len(shard.packs)} packs  {shard.minutes:.1f} min"
        for name, stage in (("train", resources.training), ("measure", resources.measuring)):
            asked = stage(plan, shard)
            start += f"  {name}: {asked.runtime()}, {asked.mem_mb():,} MB"
        yield start


def _costs(
    plan: Plan, trajectories: list[Trajectory], shards: list[Shard], measuring: Mapping[str, float]
) -> tuple[str, ...]:
    return (
        f"{len(trajectories):,}",
        f"{sum(len(shard.packs) for shard in shards):,}",
        f"{len(shards):,}",
        f"{sum(one.flop for one in trajectories):.2e}",
        estimated(60 * sum(shard.minutes for shard in shards)),
        estimated(60 * sum(measuring[shard.id] for shard in shards)),
        size(sum(one.stored_bytes for shard in shards if not plan.evicts(shard) for one in shard.trajectories)),
    )
