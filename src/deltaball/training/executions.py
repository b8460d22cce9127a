"""Which execution of a step is the fastest on a GPU: a short trial, once per convolutions, kept in the store.

On a CPU there is one, because what a stopwatch chose there would round otherwise the next time.
"""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from deltaball.base.files import written_whole
from deltaball.networks.layers import Conv, Layers, Shape
from deltaball.training.graphs import CAPTURING, LANES
from deltaball.training.steps import Execution, Members, Recipe, Steps

STEPS = 32  # of a trial, after as many that warm up

# Numbers of unfolded convolutions, above which their windows are not tried: eight packs have a GPU's memory.
MOST_WINDOWS = 2**28


def candidates(layers: Layers, networks: int, batch: int, device: str) -> list[Execution]:
    """The executions that a device may take."""
    if device == "cpu" or not _tried(layers):
        return [Execution()]
    lanes = [Execution(lanes=min(networks, LANES))] if networks > 1 else []
    unfolded = [Execution("unfolded")] if _windows(layers) * batch * networks <= MOST_WINDOWS else []
    return [Execution(), *lanes, Execution("grouped"), *unfolded]


def _windows(layers: Layers) -> int:
    """Numbers in the windows that the largest convolution sees of an image."""
    sizes = [
        math.prod(layer.output(shape)) // layer.filters * layer.size**2 * shape[2]
        for layer, shape in _convolutions(layers)
    ]
    return max(sizes, default=0)


def _convolutions(layers: Layers) -> list[tuple[Conv, Shape]]:
    return [(layer, shape) for layer, shape in layers.within() if isinstance(layer, Conv)]


def fastest(recipe: Recipe, members: Members, images: torch.Tensor, labels: torch.Tensor, folder: Path) -> Execution:
    """The fastest execution for a pack, by the trial that `folder` has on file, or by one now.

    The other arguments are those of `Steps`. A candidate that fails in the trial (it may need more memory than there
    is) is passed over. Raises what the last one raised if all fail.
    """
    possible = candidates(recipe.layers, len(members), recipe.batch_size, images.device.type)
    if len(possible) == 1:
        return possible[0]
    subject = {
        # Executions differ in nothing but these.
        "convolutions": _tried(recipe.layers),
        "batch": recipe.batch_size,
        "precision": recipe.precision,
        "networks": len(members),
        "device": torch.cuda.get_device_name() if images.is_cuda else images.device.type,
        "torch": torch.__version__,
    }
    path = folder / f"{hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()[:16]}.json"
    known = _read(path)
    if known in possible:
        return known
    seconds = _trial(possible, recipe, members, images, labels)
    best = min(seconds, key=seconds.__getitem__)
    timed = [{**asdict(one), "seconds per step": taken} for one, taken in seconds.items()]
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps({**subject, "fastest": asdict(best), "trial": timed}, indent=1) + "\n")
    return best


def _tried(layers: Layers) -> list[str]:
    """The layers that executions compute differently, in the words of a trial's file."""
    return [TRIED[type(layer)](layer, shape) for layer, shape in layers.within() if type(layer) in TRIED]


def _convolution(layer: Conv, shape: Shape) -> str:
    # Trials on file are found again by these words.
    height, width, channels = shape
    other = f", stride={layer.stride}, padding={layer.padding}" if (layer.stride, layer.padding) != (1, "same") else ""
    words = f"height={height}, width={width}, size={layer.size}, inputs={channels}, outputs={layer.filters}"
    return f"Conv({words}{other}{'' if layer.bias else ', bias=False'})"


TRIED = {Conv: _convolution}


def _read(path: Path) -> Execution | None:
    """What a trial before found; None where there is no file of one, or it cannot be used any more."""
    try:
        return Execution(**json.loads(path.read_text())["fastest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _trial(
    possible: Sequence[Execution], recipe: Recipe, members: Members, images: torch.Tensor, labels: torch.Tensor
) -> dict[Execution, float]:
    """Seconds per step of each execution that works, at least one."""
    seconds: dict[Execution, float] = {}
    for one in possible:
        try:
            seconds[one] = seconds_per_step(recipe, members, images, labels, one)
        except RuntimeError as problem:
            print(f"{one} fails here: {problem}".splitlines()[0], flush=True)
            if one == possible[-1] and not seconds:
                raise
        if images.is_cuda:
            # What its graphs reserved; torch lets it go by itself, but not while another thread captures.
            with CAPTURING:
                torch.cuda.empty_cache()
    return seconds


def seconds_per_step(
    recipe: Recipe, members: Members, images: torch.Tensor, labels: torch.Tensor, execution: Execution
) -> float:
    """What a step takes, tried with copies of the pack's weights and moments."""
    some = STEPS * recipe.batch_size
    steps = Steps(recipe, _copied(members), images[:some], labels[:some], execution)
    networks, points = steps.order.shape
    order, rates = np.tile(np.arange(points), (networks, 1)), torch.zeros(networks)
    beside = order if members.generators else None
    steps.epoch(order, rates, 0, beside)
    began = _now(images)
    steps.epoch(order, rates, 0, beside)
    return (_now(images) - began) / steps.rates.shape[1]


def _copied(members: Members) -> Members:
    weights, moments = ([one.clone() for one in many] for many in (members.weights, members.moments))
    generators = members.generators and _copied(members.generators)
    return replace(members, weights=weights, moments=moments, generators=generators)


def _now(images: torch.Tensor) -> float:
    if images.is_cuda:
        torch.cuda.current_stream().synchronize()
    return time.perf_counter()
