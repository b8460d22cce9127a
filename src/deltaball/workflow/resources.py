"""What a shard's jobs ask for: time, memory, a GPU, CPUs; estimated from the plan. Light, like the plan.

An estimate that is too low costs a retry, which asks for twice as much and finds in the store what was finished. One
that is too high waits longer in a queue.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deltaball.plan import costs
from deltaball.plan.autoencoders import AutoEncoding
from deltaball.plan.batches import EVALUATION_BATCH, IMAGES_AT_ONCE, IMAGES_MULTIPLE
from deltaball.plan.judging import passes, shared
from deltaball.plan.measures import Measure
from deltaball.plan.networks import Shard, Trajectory
from deltaball.plan.plan import Plan
from deltaball.study.descending import Finetune
from deltaball.study.judges import JUDGES
from deltaball.study.methods import TRAININGS, Svm
from deltaball.study.objectives import generator_of

# Of it 1.5 is how far the estimate itself may be off (benchmarks/costs.py), and 2 how much slower than the machine that
# the rates are from another one may be, or one whose disk and memory others use too.
SAFETY = 3

STARTING_MINUTES = 10  # importing torch from a network disk, loading data, waiting for a device

# Memory of the host in MB. A process that has imported everything has 300 MB on a CPU, and malloc keeps what was freed
# in pieces between; with CUDA's context, about 3 GB.
PROCESS_MB = {"cpu": 540, "cuda": 3500}

MEMORY_SAFETY = 1.5

FLOAT = 4  # bytes

ADAM = 5  # numbers that each weight takes in training: itself, its gradient, its update, its two moments


@dataclass(frozen=True)
class Request:
    """What one job asks for. On a retry, attempt 2 and on, twice the time and memory of the attempt before."""

    minutes: float  # estimated, without any safety
    megabytes: float  # estimated, of the host's memory

    def runtime(self, attempt: int = 1) -> str:
        """Wall time as Snakemake reads it: with its unit, because versions read bare integers differently."""
        return f"{math.ceil((SAFETY * self.minutes + STARTING_MINUTES) * 2 ** (attempt - 1))}m"

    def mem_mb(self, attempt: int = 1) -> int:
        """Memory, rounded up to 100 MB."""
        return 100 * math.ceil(MEMORY_SAFETY * self.megabytes * 2 ** (attempt - 1) / 100)


def gpu(plan: Plan) -> int:
    """How many GPUs a job asks for that trains or measures."""
    return int(plan.study.compute.device == "cuda")


def cpus(plan: Plan) -> int:
    """How many CPUs a job asks for that trains or measures: one thread of its own, and one of CUDA's beside it."""
    return 1 + gpu(plan)


def training(plan: Plan, shard: Shard) -> Request:
    """What training a shard asks for, and measuring it too where its weights are evicted."""
    mine = _request(plan, shard.dataset, shard.minutes, max(_training_bytes(plan, pack) for pack in shard.packs))
    if not plan.evicts(shard):
        return mine
    then = measuring(plan, shard)
    return Request(mine.minutes + then.minutes, max(mine.megabytes, then.megabytes))


def measuring(plan: Plan, shard: Shard) -> Request:
    """What measuring a shard asks for. Training again what the store lost is not in it: for that there are retries."""
    seconds = 0.0
    asked: dict[str, Counter[Measure]] = defaultdict(Counter)
    for network in plan.networks_of(shard.trajectories):
        # A posterior mean takes a pass per sample.
        average = TRAININGS[network.method].averaged(network.axes, network.checkpoint)
        asked[network.trajectory_id].update({one: samples * average for one, samples in plan.asked_of(network).items()})
    for trajectory in shard.trajectories:
        layers = plan.layers(trajectory)
        forward = forward_seconds(plan, trajectory)
        needed: dict[Any, float] = defaultdict(float)  # passes, of what is done once for several measures
        for one, samples in asked[trajectory.id].items():
            work = shared(one)
            needed[work] = max(needed[work], samples * passes(one, layers))
            seconds += samples * JUDGES[one.judge].beside(dict(one.settings), layers)
        seconds += sum(needed.values()) * forward
    seconds += sum(_decoding_seconds(plan, [asked[one.id] for one in pack], shard.dataset) for pack in shard.packs)
    near = any(one.kernel and one.kernel.entry.of_images for wanted in asked.values() for one in wanted)
    # The order of all training images around each point, and their distances.
    known = 2 * FLOAT * IMAGES_AT_ONCE["cpu"] * plan.facts[shard.dataset].train if near else 0
    return _request(
        plan, shard.dataset, seconds / 60, known + max(_measuring_bytes(plan, pack) for pack in shard.packs)
    )


def autoencoding(plan: Plan, training: AutoEncoding) -> Request:
    """What training an auto-encoder asks for."""
    entry, facts = training.entry, plan.facts[training.entry.dataset]
    minutes = plan.rates.of(costs.autoencoder(entry, facts)) / 60
    coders = entry.coders(facts.shape)
    numbers = sum(layers.parameters for layers in coders.parts)
    # Each map, what is enlarged of it, and the gradients of both.
    passing = 4 * sum(sum(layers.activations) for layers in coders.parts)
    batch = max(entry.batch_size, EVALUATION_BATCH)
    # Differences of codes, each with each, and their squares: of all comparisons of a step, or of one in evaluating.
    compared = 2 * entry.latent * max(costs.COMPARED * entry.batch_size**2, batch**2)
    return _request(plan, entry.dataset, minutes, FLOAT * (ADAM * numbers + batch * passing + compared))


def _decoding_seconds(plan: Plan, asked: Iterable[Mapping[Measure, int]], dataset: str) -> float:
    """What decoding takes of the images that kernels on the manifold draw: once for all networks of a pack."""
    samples: Counter[tuple[Any, ...]] = Counter()
    for wanted in asked:
        for one, count in wanted.items():
            if one.kernel and one.kernel.entry.of_codes:
                key = dict(one.kernel.parameters)["autoencoder"], shared(one), dict(one.settings)["draws"]
                samples[key] = max(samples[key], count)
    coders = {one.entry.label: one.entry.coders(plan.facts[dataset].shape) for one in plan.autoencoders(dataset)}
    return sum(
        plan.rates.of(costs.coding(coders[label], count, count * draws)) for (label, _, draws), count in samples.items()
    )


def forward_seconds(plan: Plan, trajectory: Trajectory) -> float:
    """What a pass of one image, that an attack also moves, takes."""
    pixels = math.prod(plan.facts[trajectory.dataset].shape)
    return plan.rates.of({**costs.passes(plan.layers(trajectory), 1), "pixel": pixels})


def _request(plan: Plan, dataset: str, minutes: float, workspace: float) -> Request:
    device = plan.study.compute.device
    facts = plan.facts[dataset]
    # The file as it is read, and the arrays.
    data = 2 * FLOAT * math.prod(facts.shape) * (facts.train + facts.test)
    return Request(minutes, PROCESS_MB[device] + (data + workspace) / 1e6)


def _training_bytes(plan: Plan, pack: tuple[Trajectory, ...]) -> float:
    """Weights, gradients, the update, the initial weights, Adam's moments twice; a batch with its gradients."""
    one = pack[0]
    copies = 4 + 2 * TRAININGS[one.method].moments(one.axes)
    if TRAININGS[one.method].averages_samples:  # drawn since its last checkpoint, as float32 and as it is written
        copies += 2 * one.checkpoints[-1]
    if plan.study.compute.device == "cuda":  # the host has what goes to the store and what comes from there
        return FLOAT * len(pack) * copies * (one.parameters + one.beside) + _besides(plan, one)
    sizes, generator = plan.layers(one).activations, generator_of(one.axes, plan.facts[one.dataset].shape)
    passing = sum(sizes) + (sum(generator.activations) if generator else 0)
    step = one.axes.get("batch_size", 0) * (sizes[0] + 3 * passing)
    # Without gradients, a layer's input and its output are all that is kept.
    evaluation = EVALUATION_BATCH * 3 * max(sizes)
    return FLOAT * len(pack) * (copies * (one.parameters + one.beside) + max(step, evaluation)) + _besides(plan, one)


def _besides(plan: Plan, one: Trajectory) -> float:
    """What a method holds besides weights and a batch."""
    points = plan.facts[one.dataset].train
    return TRAININGS[one.method].workspace(one.axes, points, plan.layers(one)) + _augmented_bytes(plan, one)


def _augmented_bytes(plan: Plan, one: Trajectory) -> float:
    """The training images once more with the examples behind them, and on a CPU what the search for these holds."""
    if TRAININGS[one.method] is not Finetune:
        return 0
    facts, sizes = plan.facts[one.dataset], plan.layers(one).activations
    images = 2 * math.prod(facts.shape) * TRAININGS[one.method].images_each(one.axes, facts.train)
    at_once = IMAGES_AT_ONCE["cpu"] if plan.study.compute.device == "cpu" else 0
    return FLOAT * (images + at_once * (4 * sizes[0] + 3 * sum(sizes)))


def _measuring_bytes(plan: Plan, pack: tuple[Trajectory, ...]) -> float:
    one = pack[0]
    networks = sum(len(trajectory.checkpoints) for trajectory in pack)
    if TRAININGS[one.method].averages_samples:  # one network at a time, all its samples
        networks = one.checkpoints[-1]
    if TRAININGS[one.method] is Svm:  # in float32 and in float64
        return 3 * one.stored_bytes
    if plan.study.compute.device == "cuda":
        return FLOAT * 2 * networks * one.parameters
    sizes = plan.layers(one).activations
    images = max(IMAGES_AT_ONCE["cpu"], IMAGES_MULTIPLE * networks)
    return FLOAT * (3 * networks * one.parameters + images * (4 * sizes[0] + 3 * sum(sizes)))
