"""How far a logit computed in float32 may be from the real one."""

import torch

from deltaball.local.balls import Neighbourhood
from deltaball.local.certificates.stages import Bounds, Stage

UNIT = 2.0**-24  # unit roundoff of float32

DEVIATIONS = 6  # standard deviations that are allowed for


def rounding_of_stages(stages: list[Stage], around: Neighbourhood, bounds: Bounds) -> torch.Tensor:
    """How far a logit computed in float32 may be from the real one, anywhere in the ball: float64 [K, n, classes].

    Six standard deviations of a model, not a proof: roundings are independent and of mean zero, so that a sum of m
    products is off by √m u Σ|w x| (Higham & Mary 2019, "A new approach to probabilistic rounding error analysis"), and
    a layer adds the variances of its inputs' errors. What is constant within its bounds and so far beyond passes no
    error on: a ReLU that is surely off gives 0 in float32 too. Infinite or NaN where a sum may overflow. `bounds` are
    those of `crown.bounded`.
    """
    size, variance = (around.centre + around.box[1]).clamp(max=1), None
    for index, stage in enumerate(stages):
        terms = stage.magnitudes(size) + stage.bias.abs()[:, None]
        own = (stage.fan_in + 1) * (UNIT * terms) ** 2
        own = torch.where(terms < torch.finfo(torch.float32).max, own, torch.inf)
        variance = own if variance is None else own + stage.scattered(variance)
        if stage.activation:
            low, high = bounds[index]
            reach = DEVIATIONS * variance.sqrt()
            constant = stage.curve.constant(low - reach, high + reach)
            # Below 1 a unit in the last place is at most 2 u.
            variance = stage.curve.steepest**2 * variance + (stage.curve.last_places * 2 * UNIT) ** 2
            variance = stage.largest(variance.masked_fill(constant, 0.0))
            size = torch.maximum(stage.activated(low).abs(), stage.activated(high).abs())
    return DEVIATIONS * variance.sqrt()
