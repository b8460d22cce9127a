"""Which way of computing a step is the fastest on a GPU: a short trial, once per convolutions, kept in the store.

On a CPU there is one way, because what a stopwatch chose there would round otherwise the next time.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from deltaball.base.files import written_whole
from deltaball.networks.layers import Conv, Layers
from deltaball.training.steps import Recipe, Steps, Way

STEPS = 32  # of a trial, after as many that warm up
LANES = 8


def candidates(layers: Layers, networks: int, device: str) -> list[Way]:
    """The ways that a device may take."""
    if device == "cpu" or not any(isinstance(layer, Conv) for layer in layers):
        return [Way()]
    lanes = [Way(lanes=min(networks, LANES))] if networks > 1 else []
    return [Way(), *lanes, Way("grouped"), Way("unfolded")]


def fastest(
    recipe: Recipe,
    weights: Sequence[torch.Tensor],
    moments: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    folder: Path,
) -> Way:
    """The fastest way for a pack, by the trial that `folder` has on file, or by one now; arguments as of `Steps`.

    A way that fails in the trial (it may need more memory than there is) is none. Raises what the last one raised if
    all fail.
    """
    open_to = candidates(recipe.layers, len(weights[0]), images.device.type)
    if len(open_to) == 1:
        return open_to[0]
    subject = {
        # The ways differ in nothing but these.
        "convolutions": [repr(layer) for layer in recipe.layers if isinstance(layer, Conv)],
        "batch": recipe.batch_size,
        "precision": recipe.precision,
        "networks": len(weights[0]),
        "device": torch.cuda.get_device_name() if images.is_cuda else images.device.type,
        "torch": torch.__version__,
    }
    path = folder / f"{hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()[:16]}.json"
    known = _read(path)
    if known in open_to:
        return known
    seconds: dict[Way, float] = {}
    for way in open_to:
        try:
            seconds[way] = _trial(recipe, weights, moments, masks, images, labels, way)
        except RuntimeError as problem:
            print(f"{way} fails here: {problem}".splitlines()[0], flush=True)
            if way == open_to[-1] and not seconds:
                raise
    best = min(seconds, key=seconds.__getitem__)
    timed = [{**asdict(way), "seconds per step": found} for way, found in seconds.items()]
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps({**subject, "fastest": asdict(best), "trial": timed}, indent=1) + "\n")
    return best


def _read(path: Path) -> Way | None:
    """What a trial before found; None where there is no file of one, or no more."""
    try:
        return Way(**json.loads(path.read_text())["fastest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _trial(
    recipe: Recipe,
    weights: Sequence[torch.Tensor],
    moments: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    way: Way,
) -> float:
    """Seconds of a step, taken with copies of the pack's weights."""
    some = STEPS * recipe.batch_size
    copies = [[one.clone() for one in many] for many in (weights, moments)]
    steps = Steps(recipe, *copies, masks, images[:some], labels[:some], way)
    networks, points = steps.order.shape
    order, rates = np.tile(np.arange(points), (networks, 1)), torch.zeros(networks)
    steps.epoch(order, rates, 0)
    began = _now(images)
    steps.epoch(order, rates, 0)
    return (_now(images) - began) / steps.rates.shape[1]


def _now(images: torch.Tensor) -> float:
    if images.is_cuda:
        torch.cuda.current_stream().synchronize()
    return time.perf_counter()
