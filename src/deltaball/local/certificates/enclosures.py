"""What certificates know of networks over balls: the logits' lower bounds, and how far float32 may be off."""

import math

import torch

from deltaball.local.certificates.crown import bounded, by_intervals, of_rows
from deltaball.local.certificates.layered import fused, stages_of
from deltaball.local.certificates.layerwise import by_layers
from deltaball.local.certificates.passages import Enclosure
from deltaball.local.certificates.rounding import rounding_of_stages
from deltaball.local.neighbourhoods import Neighbourhood
from deltaball.networks.models import Layered


def enclosed(model: Layered, around: Neighbourhood, by: str) -> Enclosure:
    """Bounds by ibp, crown or alpha_crown. Points and networks are not chunked, rows of earlier layers are.

    By alpha_crown the bounds of hidden units and of rows are each made as large as their choice of lines allows within
    `optimised.STEPS` steps, and never below crown's. Raises InputError where a layer has no rule.
    """
    if by == "alpha_crown":
        usual, best = enclosed(model, around, "crown"), by_layers(model, around, by)

        def larger(rows: torch.Tensor) -> torch.Tensor:
            lower = usual.lower(rows)
            # What is ascended has no gradient of its own; crown's serves whoever asks which rows are better.
            return lower + (best.lower(rows.detach()) - lower.detach()).clamp(min=0)

        return usual._replace(lower=larger)
    return _by_stages(model, around, by) if fused(model.layers) else by_layers(model, around, by)


def widest(model: Layered) -> int:
    """How many numbers per point and row are bounded at once at most."""
    if fused(model.layers):
        return max(math.prod(model.layers.shape), *(stage.units for stage in stages_of(model)))
    return max(model.layers.activations)


def _by_stages(model: Layered, around: Neighbourhood, by: str) -> Enclosure:
    stages = stages_of(model)
    around = stages[0].arranged(around)
    bounds, relaxations = bounded(stages, around, by)
    several = by == "crown" and any(stage.activation and stage.curve.others for stage in stages)
    others = bounded(stages, around, by, others=True)[1] if several else None

    def lower(rows: torch.Tensor) -> torch.Tensor:
        found = by_intervals(stages, around, bounds, rows)
        if by == "crown":
            found = torch.maximum(found, of_rows(stages, relaxations, around, rows))
        return found if others is None else torch.maximum(found, of_rows(stages, others, around, rows))

    return Enclosure(lower, rounding_of_stages(stages, around, bounds))
