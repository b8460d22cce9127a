"""Certificates: lower bounds of differences of logits over a whole ball, for K networks × n points × rows at once.

``ibp`` is interval bound propagation (Gowal et al. 2018, "On the effectiveness of interval bound propagation for
training verifiably robust models"). ``crown`` is backward linear bound propagation (Zhang et al. 2018, "Efficient
neural network robustness certification with general activation functions"): every activation is enclosed by two lines
over the bounds of its input, a linear function of the logits is pulled back through them to the image, and its minimum
over the ball is exact. What is decided by intervals is not bounded again by CROWN.

Proven: the bounds hold in real arithmetic for the network whose weights are the stored float32 numbers, at every point
of the ball. Trusted: the float64 rounding of the bounds themselves; and that the forward pass in float32, which attacks
see, stays as close to the real one as `rounding` estimates, an allowance that `differences` subtracts: it sums in
float32 in whatever order (no TF32, no Winograd or Fourier convolution), with tanh and sigmoid correct to 4 units in the
last place. Without an allowance rounding alone breaks certificates (Jia & Rinard 2020, "Exploiting verified neural
networks via floating point numerical error"). The worst case over all roundings would be some hundred times the
estimate and would cost certificates; the estimate is still some forty times what is observed.
"""

import torch

from deltaball.local.balls import Ball, Neighbourhood
from deltaball.local.certificates.enclosures import enclosed, widest
from deltaball.local.certificates.stages import ELEMENTS
from deltaball.networks.models import Layered


@torch.no_grad()
def differences(model: Layered, x: torch.Tensor, ball: Ball, by: str, every: bool) -> torch.Tensor:
    """float64 [K, n, classes, classes]: entry [i, j] ≤ the minimum of logit i - logit j over the ball.

    x is [n, h, w, c], shown to every network, or [K, n, h, w, c]; `by` is ibp or crown. Unless `every`, only the row
    of the class predicted at the point is computed and the others are -inf. All are NaN, which no notion certifies,
    where a network's weights are not finite or its float32 forward pass might overflow.
    """
    networks, points, (classes,) = len(model), x.shape[-4], model.layers.output
    lower = torch.empty((networks, points, classes, classes), dtype=torch.float64, device=x.device)
    pairs = max(1, ELEMENTS[x.device.type] // (widest(model) * (classes - 1) * (classes if every else 1)))
    several, some = max(1, pairs // points), min(pairs, points)
    for k in range(0, networks, several):
        part = model.part(slice(k, k + several))
        for n in range(0, points, some):
            seen = (x[k : k + several] if x.ndim == 5 else x)[..., n : n + some, :, :, :]
            predicted = None if every else part(seen).argmax(-1)
            lower[k : k + several, n : n + some] = _differences(part, ball.around(seen), by, predicted, classes)
    return lower


def _differences(
    model: Layered, around: Neighbourhood, by: str, predicted: torch.Tensor | None, classes: int
) -> torch.Tensor:
    """`differences` of a chunk; `predicted` [K, n] are the classes whose row is asked (None: all)."""
    device, networks, points = around.x.device, len(model), around.x.shape[-4]
    indices = torch.arange(classes, device=device)
    if predicted is None:
        pairs = torch.cartesian_prod(indices, indices)
        first, second = pairs[pairs[:, 0] != pairs[:, 1]].T[:, None, None].expand(-1, networks, points, -1)
    else:
        second = indices[:-1] + (indices[:-1] >= predicted[..., None])
        first = predicted[..., None].expand_as(second)
    identity = torch.eye(classes, dtype=torch.float64, device=device)
    enclosure = enclosed(model, around, by)
    lower, error = enclosure.lower(identity[first] - identity[second]), enclosure.error
    lower = lower - error.gather(-1, first) - error.gather(-1, second)
    every = torch.full((networks, points, classes**2), -torch.inf, dtype=torch.float64, device=device)
    every = every.scatter(-1, first * (classes + 1), 0.0).scatter(-1, first * classes + second, lower)
    broken = ~error.isfinite().all(-1, keepdim=True)
    return every.masked_fill(broken, torch.nan).unflatten(-1, (classes, classes))
