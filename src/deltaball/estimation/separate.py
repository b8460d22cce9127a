"""Classifiers with a transfer for each corruption: what is measured under one corruption is f∘T of this one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from deltaball.estimation.outcomes import Told
from deltaball.estimation.stored import Judged
from deltaball.networks.models import Model
from deltaball.plan.measures import Measure
from deltaball.study.kernels import ChosenKernel


def singles(measure: Measure) -> dict[str, Measure]:
    """By corruption, the measure of it alone; of several in turn each has its share of the images that are drawn."""
    names = measure.kernel.entry.corruptions
    if len(names) == 1:
        return {names[0]: measure}
    settings = tuple((key, value // len(names) if key == "draws" else value) for key, value in measure.settings)
    return {name: replace(measure, kernel=ChosenKernel(name), settings=settings) for name in names}


def by_corruption(
    measures: Sequence[Measure],
    network: Callable[[str], Model],
    judged: Callable[[Model, Sequence[Measure]], Mapping[Measure, Judged]],
    told: Told,
) -> dict[Measure, Judged]:
    """Outcomes [1, n] of measures under corruptions, of `network` (corruption) as `judged` finds them.

    Of several corruptions in turn they are the means of those under each: the images are the same.
    """
    parts = {measure: singles(measure) for measure in measures}
    found: dict[Measure, Judged] = {}
    for name in dict.fromkeys(name for own in parts.values() for name in own):
        asked = list(dict.fromkeys(own[name] for own in parts.values() if name in own))
        found |= judged(network(name), asked)
    whole = {}
    for measure, own in parts.items():
        of_each = [found[one] for one in own.values()]
        mean = np.mean([one.outcomes for one in of_each], 0, dtype=np.float64).astype(np.float32)
        whole[measure] = of_each[0] if len(of_each) == 1 else Judged(mean)
        told(measure, mean.size)
    return whole
