"""What judging points costs, and which measures are judged together. Light, like the plan."""

from typing import Any

from deltaball.networks.layers import Layers
from deltaball.plan.measures import Measure
from deltaball.study.judges import JUDGES
from deltaball.study.notions import NOTIONS


def passes(measure: Measure, layers: Layers) -> float:
    """How many forward passes of one image judging a point takes, about.

    PGD leaves a point alone once it is settled, and CROWN one that an attack has settled, so this is an upper bound.
    """
    return JUDGES[measure.judge].passes(dict(measure.settings), layers, NOTIONS[measure.notion])


def shared(measure: Measure) -> tuple[Any, ...]:
    """Measures for which this is equal are judged by one search."""
    measure = measure.search
    notion = NOTIONS[measure.notion]
    against = "label" if notion.needs_labels else "output"
    values = {
        "norm": measure.norm,
        "delta": measure.delta,
        "kernel": measure.kernel,
        "reads": notion.reads,
        "reference": against,
    }
    shares = JUDGES[measure.judge].shares
    return (measure.judge, measure.settings, *(values[name] for name in shares)) if shares else (measure.name, ())
