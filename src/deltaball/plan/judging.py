"""What judging points costs. Light, like the plan."""

import math
from typing import Any

from deltaball.networks.layers import Layers
from deltaball.plan.measures import Measure
from deltaball.study.judges import PGD_RESTARTS, PGD_STEPS

# Of exact answers: the share of points that neither PGD nor CROWN settles, and what branch and bound takes for each.
LEFT_OPEN, SOLVING_SECONDS = 0.25, 0.2


def passes(one: Measure, layers: Layers) -> float:
    """How many forward passes of one image judging a point takes, about. A gradient is worth three.

    PGD leaves a point alone once it is settled, and CROWN one that an attack has settled, so this is an upper bound.
    CROWN pulls every unit after the first layer back to the image, twice, and the rows it is asked for; float64 takes
    twice as long.
    """
    settings = dict(one.settings)
    match one.by:
        case "fgsm":
            return 4
        case "pgd" | "fmn":
            return 3 * settings["steps"] * settings.get("restarts", 1) + 40
        case "ibp":
            return 8
    pgd = 3 * PGD_STEPS * PGD_RESTARTS if one.by == "exact" else 0
    units = [math.prod(layer.output(shape)) for layer, shape in layers.walk() if layer.weights(shape)]
    rows = units[-1] ** 2 if one.notion in ("softmax_variation", "variation_above") else units[-1]
    return pgd + 2 * (2 * sum(units[1:-1]) + rows)


def shared(one: Measure) -> tuple[Any, ...]:
    """Measures for which this is equal are judged by one search."""
    match one.by:
        case "fgsm":
            return one.by, one.norm, one.delta
        case "pgd":
            return one.by, one.settings, one.norm, one.delta, one.notion == "class_change"
        case "fmn":
            return one.by, one.settings, one.norm
    return one.name, ()
