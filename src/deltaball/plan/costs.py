"""What training and measuring take: amounts of work, and what a device needs for each. Light: no array library.

Time is taken to be linear in a few amounts with a physical meaning, UNITS. What one of each takes on a device, its
Rates, is measured by `deltaball calibrate` and kept beside the store; a device that was never measured has the rates
that ship with this package.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from deltaball.base.errors import InputError
from deltaball.base.files import written_whole
from deltaball.data.catalogue import DatasetFacts
from deltaball.networks import layers as kinds
from deltaball.networks.coders import Coders
from deltaball.networks.layers import Conv, Dense, Layer, Layers, Shape, rule_for
from deltaball.networks.support_vectors import EXPECTED, SupportVectors
from deltaball.networks.transposed import ConvTranspose, Reshape
from deltaball.study.autoencoders import AutoEncoder
from deltaball.study.descending import Descending
from deltaball.study.methods import TRAININGS
from deltaball.study.objectives import DEFAULT, GENERATOR_PASSES, OBJECTIVES, generator_of

# What is counted. A device's rates say how many seconds one of each takes.
UNITS = {
    "step": "of gradient descent, which some networks take together",
    "layer": "with weights, or a dropout, in such a step",
    "product": "dense layer of one network in a step",
    "convolution": "convolution of one network in a step",
    "product_flop": "of dense layers; a backward pass has twice those of a forward pass",
    "convolution_flop": "of convolutions, as if their filters were a multiple of LANES",
    "product_flop_bfloat16": "of dense layers where that is the precision of training",
    "convolution_flop_bfloat16": "of convolutions there",
    "point": "of the data put in order, and chosen, for one network",
    "pixel": "of such a point",
    "number": "that a layer with a kernel gives for it in a step; of others as IN_A_STEP has it",
    "weight": "of one network, changed in a step",
    "moment": "weight that Adam changes, beyond that",
    "mask": "weight that may be pruned, beyond that",
    "evaluated": "number that a layer with weights gives without a gradient",
    "checkpoint": "of one network, written to the store",
    "leapfrog": "step of chains that take it together",
    "chain_flop": "of Hamiltonian Monte Carlo",
    "compilation": "of a pack of chains",
}
# Of these, in which a GPU waits for the host or its kernels are too small to fill it: packs side by side overlap there.
# Not a convolution's own time: the rates that ship were measured with several of them at once.
WAITING = ("step", "layer", "product", "point", "checkpoint")

Work = Mapping[str, float]  # how many of each unit

# Filters that are computed at once, by a CPU's vectors and in a GPU's tiles: 5 take as long as 16.
LANES = 16
# What these take in a step, each of the numbers that they give as so many of those of layers with kernels: on the core
# that the shipped rates are of, 2 and 13 ns. Outside training the one is little, and the other nothing.
IN_A_STEP: Mapping[type[Layer], float] = {kinds.BatchNorm: 0.5, kinds.Dropout: 3.0}
# How often a minibatch's codes are compared, each with each: at seven scales with one another, and with normal ones.
COMPARED = 21

# Numbers that a layer gives, of which forward and backward pass profit from a CPU core's cache.
CACHED = 2_000_000


@dataclass(frozen=True)
class Rates:
    """What one of each unit takes on a device, in seconds, and where that was measured."""

    device: str  # cpu or cuda
    hardware: str
    measured: str  # when, and with which software
    seconds: Mapping[str, float]
    ratios: Mapping[str, float] = field(default_factory=dict)  # of each probe, its time by these rates / as measured
    shipped: bool = field(default=False, compare=False)

    def of(self, work: Work) -> float:
        """Seconds that work takes."""
        return sum(amount * self.seconds[unit] for unit, amount in work.items())


def path(store: Path, device: str) -> Path:
    """Where the rates of a device are kept, that are measured for the studies of a store."""
    return store / f"rates-{device}.json"


def read(store: Path, device: str) -> Rates:
    """The rates of a device ('cpu' or 'cuda') as they were measured for this store, or else as they ship.

    Raises InputError when the file is damaged or is none of rates of this device.
    """
    own = path(store, device)
    return _read(own, device, shipped=False) if own.exists() else shipped(device)


def shipped(device: str) -> Rates:
    """The rates of a device that come with this package."""
    return _read(path(Path(__file__).parent, device), device, shipped=True)


def _read(file: Path, device: str, shipped: bool) -> Rates:
    try:
        found = Rates(**json.loads(file.read_text(encoding="utf-8")), shipped=shipped)
        lacking = [unit for unit in UNITS if not _is_rate(found.seconds.get(unit))]
        problem = f"no seconds from 0 on for {lacking[0]}" if lacking else ""
        if found.device != device:
            problem = f"rates of {found.device}"
    except (ValueError, TypeError, AttributeError):  # ValueError: neither JSON nor text
        problem = "not a file of rates"
    if problem:
        raise InputError(
            f"{file}: {problem}; write it again with `deltaball calibrate` where jobs run, or delete it for the rates "
            "that ship with deltaball"
        )
    return found


def _is_rate(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def write(rates: Rates, store: Path) -> Path:
    """Keep measured rates for the studies of a store; returns where."""
    content = {name: value for name, value in asdict(rates).items() if name != "shipped"}
    with written_whole(path(store, rates.device)) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path(store, rates.device)


def taken_together(networks: int, layers: Layers, batch: int, device: str) -> int:
    """How many of a pack's networks take each step together: on a CPU, as many as its cache holds activations of."""
    if device == "cuda":
        return networks
    return min(networks, max(1, CACHED // (batch * sum(layers.activations))))


def training(
    method: str,
    axes: Mapping[str, Any],
    layers: Layers,
    facts: DatasetFacts,
    checkpoints: Sequence[Sequence[int]],
    device: str,
    coders: Coders | None = None,
) -> Work:
    """Training a pack of trajectories to their last checkpoints, with evaluating and writing all of these.

    `coders` are those of the auto-encoder that the objective names, if it names one.
    """
    if TRAININGS[method].averages_samples:
        return _sampling(axes, layers, facts, checkpoints, device)
    kept = sum(map(len, checkpoints))
    if not issubclass(TRAININGS[method], Descending):
        return total(
            passes(layers, kept * (facts.train + facts.test)),
            _paired(method, axes, layers, facts, checkpoints),
            {"checkpoint": kept},
        )
    each = [max(one) for one in checkpoints]
    descent = epochs(method, axes, layers, facts, each, device)
    evaluated = kept * (TRAININGS[method].images_each(axes, facts.train) + facts.test)
    evaluated += sum(each) * axes.get("validation", 0)
    coded = OBJECTIVES[axes.get("objective", DEFAULT)].coded
    seen = sum(each) * TRAININGS[method].images_each(axes, facts.train)
    return total(
        descent,
        coding(coders, *(seen * often for often in coded(axes))) if coders and coded else {},
        passes(layers, evaluated),
        _search(method, axes, layers, facts, len(each)),
        {"checkpoint": kept},
    )


def autoencoder(entry: AutoEncoder, facts: DatasetFacts) -> Work:
    """Training an auto-encoder, with evaluating it on all test images."""
    coders, batch = entry.coders(facts.shape), min(entry.batch_size, facts.train)
    steps = entry.epochs * (facts.train // batch)
    stepped = (_stepping(part, 1, steps, steps, steps * batch, moments=2) for part in coders.parts)
    compared = {"number": steps * COMPARED * batch**2 * (entry.latent + 2), "step": steps, "checkpoint": 1}
    return total(*stepped, compared, coding(coders, facts.test, facts.test))


def coding(coders: Coders, encoded: float, decoded: float) -> Work:
    """Passing so many images through an encoder, and so many codes through its decoder."""
    return total(passes(coders.encoder, encoded), *(passes(part, decoded) for part in coders.decoder))


def _paired(
    method: str, axes: Mapping[str, Any], layers: Layers, facts: DatasetFacts, checkpoints: Sequence[Sequence[int]]
) -> Work:
    """Training paired auto-encoders; nothing of what does not descend otherwise, which passes no image in steps."""
    own = TRAININGS[method]
    images = sum(own.images(axes, facts.train, max(one)) for one in checkpoints)
    steps = images / axes.get("batch_size", 1)  # each along one encoder and one decoder
    return {**_stepping(layers, 1, steps, steps, images, own.moments(axes)), "step": steps}


def _search(method: str, axes: Mapping[str, Any], layers: Layers, facts: DatasetFacts, networks: int) -> Work:
    """Looking for what trajectories train on; a pass moves the image too."""
    count = networks * TRAININGS[method].searching(axes, facts.train, layers)[0]
    return {**passes(layers, count), "pixel": count * math.prod(facts.shape)}


def epochs(
    method: str, axes: Mapping[str, Any], layers: Layers, facts: DatasetFacts, each: Sequence[int], device: str
) -> Work:
    """So many epochs of gradient descent for each network of a pack."""
    networks, batch, seen = len(each), axes["batch_size"], TRAININGS[method].images_each(axes, facts.train)
    steps = math.ceil(seen / batch)
    # Pruned networks are never parted.
    pruned = TRAININGS[method].is_pruning
    together = networks if pruned else taken_together(networks, layers, batch, device)
    pack_steps, own_steps, points = (
        max(each) * steps * math.ceil(networks / together),
        sum(each) * steps,
        sum(each) * seen,
    )
    counted = pack_steps, own_steps, points, TRAININGS[method].moments(axes)
    lower = "" if axes.get("precision", "float32") == "float32" else f"_{axes['precision']}"
    work = _stepping(layers, OBJECTIVES[axes.get("objective", DEFAULT)].passes(axes), *counted, lower)
    work |= {
        "step": pack_steps,
        "point": points,
        "pixel": points * math.prod(facts.shape),
        "mask": own_steps * layers.parameters * pruned,
    }
    generator = generator_of(axes, facts.shape)
    return total(work, _stepping(generator, GENERATOR_PASSES, *counted)) if generator else work


def _stepping(
    layers: Layers, passed: float, pack_steps: float, own_steps: float, points: float, moments: int, lower: str = ""
) -> dict[str, float]:
    """What steps take along layers that so many `points` pass, and each `passed` times forward and backward."""
    kinds = [cost.kind for cost in layer_costs(layers)]
    beside = [
        IN_A_STEP[type(layer)] * math.prod(layer.output(shape))
        for layer, shape in layers.within()
        if type(layer) in IN_A_STEP
    ]
    forward, weights = passes(layers, points * passed), own_steps * layers.parameters
    return {
        "layer": pack_steps * passed * (len(kinds) + len(beside)),
        "product": own_steps * passed * kinds.count("product"),
        "convolution": own_steps * passed * kinds.count("convolution"),
        f"product_flop{lower}": 3 * forward["product_flop"],
        f"convolution_flop{lower}": 3 * forward["convolution_flop"],
        "number": forward["evaluated"] + points * passed * sum(beside),
        "weight": weights,
        "moment": weights * moments / 2,  # those of Adam
    }


def _sampling(
    axes: Mapping[str, Any],
    layers: Layers,
    facts: DatasetFacts,
    checkpoints: Sequence[Sequence[int]],
    device: str,
) -> Work:
    seen, leapfrog = axes["train_points"] or facts.train, axes["leapfrog_steps"]
    transitions = [axes["burn_in"] + max(one) for one in checkpoints]
    # Gradients; then the held-out points after each transition, and the others after one that is averaged.
    images = sum(transitions) * (3 * leapfrog * seen + facts.test + seen / axes["thinning"])
    images += 3 * len(checkpoints) * axes["warm_epochs"] * seen
    return {
        # On a CPU chains take turns.
        "leapfrog": leapfrog * (sum(transitions) if device == "cpu" else max(transitions)),
        "chain_flop": images * layers.flop,
        "compilation": 1,
        "checkpoint": sum(map(len, checkpoints)),
    }


def passes(layers: Layers, images: float) -> Work:
    """Passing so many images (times networks) forward, without a gradient, many at a time."""
    costs = layer_costs(layers)
    products, convolutions = (
        sum(cost.macs for cost in costs if cost.kind == kind) for kind in ("product", "convolution")
    )
    flop = {"product_flop": 2 * images * products, "convolution_flop": 2 * images * convolutions}
    return {**flop, "evaluated": images * sum(cost.numbers for cost in costs)}


class LayerCost(NamedTuple):
    """What one image costs in a layer whose time counts."""

    kind: Literal["product", "convolution"]
    macs: int  # multiply-adds, as many as take their time
    numbers: int  # that the layer gives


def layer_costs(layers: Layers) -> list[LayerCost]:
    """Of the layers whose time counts. Raises InputError where it is not known what a layer costs."""
    costs = (rule_for(COSTS, type(layer), "estimate of costs")(layer, shape) for layer, shape in layers.within())
    return [cost for cost in costs if cost]


def _product(layer: Dense, shape: Shape) -> LayerCost:
    return LayerCost("product", layer.macs(shape), layer.outputs)


def _convolution(layer: Conv, shape: Shape) -> LayerCost:
    macs = layer.macs(shape) // layer.filters * math.ceil(layer.filters / LANES) * LANES
    return LayerCost("convolution", macs, math.prod(layer.output(shape)))


def _transposed(layer: ConvTranspose, shape: Shape) -> LayerCost:
    return LayerCost("convolution", layer.macs(shape), math.prod(layer.output(shape)))


def _kernels(layer: SupportVectors, shape: Shape) -> LayerCost:
    return LayerCost("product", layer.macs(shape), EXPECTED)


def _nothing(layer: Layer, shape: Shape) -> None:
    """Its time is in the rates of the layers before it."""


COSTS: Mapping[type[Layer], Callable[[Any, Shape], LayerCost | None]] = {
    Dense: _product,
    Conv: _convolution,
    SupportVectors: _kernels,
    ConvTranspose: _transposed,
    Reshape: _nothing,
    **dict.fromkeys(
        (
            kinds.Activation,
            kinds.LeakyReLU,
            kinds.Clamp,
            kinds.MaxPool,
            kinds.AveragePool,
            kinds.GlobalAveragePool,
            kinds.BatchNorm,
            kinds.GroupNorm,
            kinds.Scale,
            kinds.Dropout,
            kinds.Normalise,
            kinds.Standardise,
            kinds.Subsample,
            kinds.Residual,
            kinds.Flatten,
        ),
        _nothing,
    ),
}


def total(*works: Work) -> Work:
    """The sum of amounts of work."""
    return {unit: sum(one.get(unit, 0) for one in works) for unit in UNITS}


def share_within(ratios: Iterable[float], factor: float) -> float:
    """The share of ratios (of an estimate to the truth) that lie between 1 / factor and factor; 0 to 1."""
    ratios = list(ratios)
    return sum(1 / factor <= one <= factor for one in ratios) / len(ratios)
