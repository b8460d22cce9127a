"""What makes quadratic bounds large: their slopes, curvatures, weights and centres, sought by Adam."""

import math
import time
from collections.abc import Callable, Sequence

import torch

from deltaball.local.quadratics import Chosen, Quadratics

# Steps of Adam at most, and between two looks at what is proven; where time is short, at least so many are planned.
STEPS, LOOK, FEWEST = 300, 25, 50

# Lengths of the first steps of slopes, log κ, log s and centres; they fall to this share.
RATES, LAST = (0.06, 0.06, 0.04, 0.1), 0.05


def exceeding(
    coarse: Quadratics,
    exactly: Quadratics,
    enough: torch.Tensor,
    deadline: float,
    others_count: bool = True,
) -> torch.Tensor:
    """The best lower bounds [B] that are found before `deadline` of processor time.

    What exceeds `enough` [B] is not improved further; what does not is -inf unless the `others_count`. Both are of the
    same rows: one to choose by, one that counts.
    """
    return improved(coarse, exactly, lambda found: found > enough, deadline, others_count)


def improved(
    coarse: Quadratics,
    exactly: Quadratics,
    enough: Callable[[torch.Tensor], torch.Tensor],
    deadline: float,
    others_count: bool = True,
) -> torch.Tensor:
    """The same, where `enough` tells of the bounds of all rows [B] which of these need not be larger, bool [B].

    Of a row that is not bounded yet it is given what seems to hold.
    """
    best = torch.full((len(coarse.rows),), -torch.inf, dtype=torch.float64, device=coarse.rows.device)
    found, left = best.clone(), torch.arange(len(best), device=best.device)
    chosen, vectors = coarse.started()
    moments = [[torch.zeros_like(part) for part in own] * 2 for own in chosen]
    step, planned, started = 0, STEPS, time.process_time()
    while len(left):
        now = time.process_time()
        last = step >= planned or now > deadline
        found[left] = torch.fmax(best[left], coarse.bounds(chosen, vectors).to(torch.float64))
        seen = enough(found)[left]
        if last and others_count:
            seen = torch.ones_like(seen)
        if seen.any():
            some = [Chosen(*(part[seen] for part in own)) for own in chosen]
            certain = torch.maximum(best[left[seen]], exactly.at(left[seen]).certain(some))
            best[left[seen]] = found[left[seen]] = certain
        if last:
            break
        kept = ~enough(found)[left]
        left, vectors, coarse = left[kept], [one[kept] for one in vectors], coarse.at(kept)
        chosen = [Chosen(*(part[kept] for part in own)) for own in chosen]
        moments = [[part[kept] for part in own] for own in moments]
        if step:
            affordable = (deadline - now) / (now - started) * step
            planned = int(max(min(STEPS, step + affordable), FEWEST))
        for _ in range(min(LOOK, planned - step) if len(left) else 0):
            if time.process_time() > deadline:
                break
            step += 1
            share = 1 - (1 - LAST) * step / planned
            vectors = coarse.turned(chosen, vectors)
            chosen, moments = _ascended(coarse, chosen, vectors, moments, step, share)
    return best


def _ascended(
    of: Quadratics,
    chosen: Sequence[Chosen],
    vectors: Sequence[torch.Tensor],
    moments: Sequence[list[torch.Tensor]],
    step: int,
    share: float,
) -> tuple[list[Chosen], list[list[torch.Tensor]]]:
    """One step of Adam, of so large a share of the first one's length."""
    with torch.enable_grad():
        free = [Chosen(*(part.detach().requires_grad_() for part in own)) for own in chosen]
        value, parts = of.bounds(free, vectors).sum(), [part for own in free for part in own]
        gradients = iter(torch.autograd.grad(value, parts, materialize_grads=True))
    length = share * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    moved, kept = [], []
    for own, before in zip(chosen, moments, strict=True):
        parts, after = [], []
        for place, (part, rate) in enumerate(zip(own, RATES, strict=True)):
            gradient = next(gradients)
            mean = before[place].lerp(gradient, 0.1)
            square = before[place + len(RATES)].lerp(gradient.square(), 0.001)
            parts.append(part + rate * length * mean / (square.sqrt() + 1e-12))
            after.append((mean, square))
        moved.append(Chosen(*parts))
        kept.append([mean for mean, _ in after] + [square for _, square in after])
    return moved, kept
