"""Certificates: bounds of logits and of their differences over a whole ball, for K networks × n points × rows at once.

``ibp`` is interval bound propagation (Gowal et al. 2018, "On the effectiveness of interval bound propagation for
training verifiably robust models"). ``crown`` is backward linear bound propagation (Zhang et al. 2018, "Efficient
neural network robustness certification with general activation functions"): every activation is enclosed by two lines
over the bounds of its input, a linear function of the logits is pulled back through them to the image, and its minimum
over the ball is exact. What is decided by intervals is not bounded again by CROWN.

Proven: the bounds hold in real arithmetic for the network whose weights are the stored float32 numbers, at every point
of the ball. Trusted: the float64 rounding of the bounds themselves; and that the forward pass in float32, which attacks
see, stays as close to the real one as `rounding` estimates, an allowance that `logit_bounds` subtracts: it sums in
float32 in whatever order (no TF32, no Winograd or Fourier convolution), with tanh and sigmoid correct to 4 units in the
last place. Without an allowance rounding alone breaks certificates (Jia & Rinard 2020, "Exploiting verified neural
networks via floating point numerical error"). The worst case over all roundings would be some hundred times the
estimate and would cost certificates; the estimate is still some forty times what is observed.
"""

import torch

from deltaball.local.balls import Ball, Neighbourhood
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.certificates.enclosures import enclosed, widest
from deltaball.local.certificates.slopes import steepest
from deltaball.local.certificates.softmax import bounded_softmax
from deltaball.local.certificates.stages import ELEMENTS
from deltaball.networks.models import Layered
from deltaball.study.notions import NEAREST


@torch.no_grad()
def differences(model: Layered, x: torch.Tensor, ball: Ball, by: str, every: bool) -> torch.Tensor:
    """The differences of `logit_bounds`; unless `every`, only the row of the class predicted at the point."""
    return logit_bounds(model, x, ball, by, None if every else model(x).argmax(-1)).differences


@torch.no_grad()
def logit_bounds(
    model: Layered,
    x: torch.Tensor,
    ball: Ball,
    by: str,
    classes: torch.Tensor | None,
    logits: bool = False,
    slopes: bool = False,
    softmax: bool = False,
) -> LogitBounds:
    """Bounds over the ball of differences of logits, and of `logits`, their `slopes` and their `softmax` if asked.

    x is [n, h, w, c], shown to every network, or [K, n, h, w, c]; `by` is ibp or crown. With `classes` [K, n] only
    their rows of differences are computed and the others are -inf; None is all rows, which `softmax` needs. All are
    NaN, which no notion certifies, where a network's weights are not finite or its float32 forward pass might overflow.
    """
    networks, points, (count,) = len(model), x.shape[-4], model.layers.output
    rows = (count - 1) * (count if classes is None else 1) + (2 * count if logits else 0) + (2 * count if slopes else 0)
    pairs = max(1, ELEMENTS[x.device.type] // (widest(model) * rows))
    several, some = max(1, pairs // points), min(pairs, points)
    parts = []
    for k in range(0, networks, several):
        part = model.part(slice(k, k + several))
        of_networks = []
        for n in range(0, points, some):
            seen = (x[k : k + several] if x.ndim == 5 else x)[..., n : n + some, :, :, :]
            own = None if classes is None else classes[k : k + several, n : n + some]
            of_networks.append(_bounds(part, ball.around(seen), by, own, logits, slopes, softmax, count))
        parts.append(LogitBounds.joined(of_networks, 1))
    return LogitBounds.joined(parts, 0)


def _bounds(
    model: Layered,
    around: Neighbourhood,
    by: str,
    classes: torch.Tensor | None,
    logits: bool,
    slopes: bool,
    softmax: bool,
    count: int,
) -> LogitBounds:
    """`logit_bounds` of a chunk of a network with `count` classes."""
    device, networks, points = around.x.device, len(model), around.x.shape[-4]
    indices = torch.arange(count, device=device)
    if classes is None:
        pairs = torch.cartesian_prod(indices, indices)
        first, second = pairs[pairs[:, 0] != pairs[:, 1]].T[:, None, None].expand(-1, networks, points, -1)
    else:
        second = indices[:-1] + (indices[:-1] >= classes[..., None])
        first = classes[..., None].expand_as(second)
    identity = torch.eye(count, dtype=torch.float64, device=device)
    rows = identity[first] - identity[second]
    if logits:
        rows = torch.cat([rows, torch.cat([identity, -identity]).expand(networks, points, -1, -1)], -2)
    enclosure = enclosed(model, around, by)
    lower, error = enclosure.lower(rows), enclosure.error
    broken = ~error.isfinite().all(-1, keepdim=True)
    lower, own = lower.split([first.shape[-1], lower.shape[-1] - first.shape[-1]], -1)
    lower = lower - error.gather(-1, first) - error.gather(-1, second)
    every = torch.full((networks, points, count**2), -torch.inf, dtype=torch.float64, device=device)
    every = every.scatter(-1, first * (count + 1), 0.0).scatter(-1, first * count + second, lower)
    differences = every.masked_fill(broken, torch.nan).unflatten(-1, (count, count))
    bounds = LogitBounds(differences)
    if logits:
        lowest, highest = ((side - error).masked_fill(broken, torch.nan) for side in own.chunk(2, -1))
        bounds = bounds._replace(lower=lowest, upper=-highest)
    if slopes:
        steep = steepest(model, around, by, NEAREST) + 2 * error / NEAREST
        bounds = bounds._replace(slopes=steep.masked_fill(broken, torch.nan))
    if softmax:
        bounds = bounds._replace(softmax=bounded_softmax(enclosure, differences))
    return bounds
