"""Branch and bound as a certificate: what it proves of softmaxes where attacks and CROWN leave a gap.

Softmaxes that fall are bounded by quadratic functions first (`falling`), and no further: splits prove little more of
them in the same time. Of a network of few units they prove more, and do all of it.

Differences of logits are bounded as far as the outcome needs that is to be proven: a little beyond what PGD finds, or
the notion's threshold. Of a class j whose softmax is to stay above F: Σᵢ exp(zᵢ - zⱼ) ≤ 1 / F - 1 over i ≠ j, which
holds if each difference stays below a number of its own and these add up to no more. Each number lies between what a
few steps of gradients reach and what CROWN proves, all at the same share of the way. Of a class whose softmax is to
stay below H: log Σᵢ exp(zᵢ - zⱼ) ≥ log(1 / H - 1), a convex function above its tangents (`certificates.softmax`), of
which one counts, at the point or at PGD's image, where the softmax is larger.

What the time allows counts, even if it is less than what was to be proven.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.branching import FEW, GROUP, Group, search
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.certificates.differences import logit_bounds
from deltaball.local.certificates.softmax import of_differences, rounding, summing_to_one
from deltaball.local.falling import Falls, lowest
from deltaball.local.forms import forms_of, hidden_units, refuse
from deltaball.local.judge import Judge, Verdict
from deltaball.local.notions import Notion, VariationAbove
from deltaball.local.points import filled
from deltaball.local.quadratics import taken
from deltaball.local.references import Reference
from deltaball.networks.models import Layered
from deltaball.study.judges import PGD

# Of the time, at most, goes to softmaxes that fall, by quadratic bounds; splits prove little more of them in this time
# unless the network has few units.
FALLS = 0.9

WITHIN = 0.01  # of a softmax variation: so far beyond what PGD finds a proof need not be better

# How far on the way from there to what CROWN proves a proof is asked for, one after the other in equal time; and how
# far beyond counts as reached.
SHARES = (0.5, 0.25, 0.0)
REACHED = 0.02

# Of what differences may add up to, the part that is left to those that are far from it.
FAR = 0.4

HALVINGS = 30  # of the share of the way that is sought
NEAREST = 0.05  # such a share at least: what gradients reach is not all

# Classes that are looked at as those that fall, steps to each other one, the longest in radii, and images at once.
FALLING, CLIMBS, LONGEST, CLIMBING = 2, 4, 2.0, 2048

SLACK = 0.1  # of a row, in logits: so much less than an image shows is enough to prove


class Targets(NamedTuple):
    """What is to be proven of n points: a class's falling asks of R rows, its rising of one."""

    rows: torch.Tensor  # float64 [n, R, classes]
    above: torch.Tensor  # float64 [n, R]; -inf where nothing is asked
    weights: torch.Tensor  # float64 [n, classes, classes]: the tangents of log Σᵢ exp(zᵢ - zⱼ), [n, j, i]


@dataclass(frozen=True)
class Branched(Judge):
    """Branch and bound of softmaxes; `seconds` for each point that is left, all of them together."""

    seconds: float = 1.0

    @torch.no_grad()
    def __call__(
        self,
        model: Layered,
        x: torch.Tensor,
        asked: Mapping[Ball, Sequence[Notion]],
        keys: Sequence[int],
        labels: torch.Tensor | None = None,
    ) -> Iterator[tuple[Ball, Notion, Verdict]]:
        for ball, notions in asked.items():
            refuse(ball)
            for notion in notions:
                certified = [self._certified(model.one(k), x, ball, notion, keys) for k in range(len(model))]
                yield ball, notion, Verdict(torch.stack(certified))

    def _certified(
        self, network: Layered, x: torch.Tensor, ball: Ball, notion: Notion, keys: Sequence[int]
    ) -> torch.Tensor:
        """Outcomes [n] for one network."""
        padded = filled(len(x))
        ((_, _, attacked),) = Pgd(**PGD)(network, x[padded], {ball: [notion]}, [keys[index] for index in padded])
        found, images = attacked.outcome[0, : len(x)], attacked.perturbed[0, : len(x)]
        reference = Reference.output(network(x))
        bounds = logit_bounds(network, x, ball, "crown", None, softmax=True)
        outcome = notion.certified(reference, bounds)[0]
        apart = ((outcome - found).abs() > WITHIN) & bounds.softmax[0].isfinite().flatten(1).all(1)
        left = apart.nonzero()[:, 0]
        own, seconds, decided = _of_points(bounds, left), self.seconds, isinstance(notion, VariationAbove)
        quadratic = quadratic_form(network, ball, x[left])
        if quadratic is not None:
            level = (torch.full_like(found, notion.gamma) if decided else found + WITHIN)[left]
            deadline = time.process_time() + FALLS * seconds * len(left)
            own = fallen(network, quadratic, x[left], ball, own, level.double(), deadline)
            outcome[left] = notion.certified(reference.chosen(left[None]), own)[0]
            kept = (outcome[left] - found[left]).abs() > WITHIN
            left, own, seconds = left[kept], _of_points(own, kept), (1 - FALLS) * seconds
        for share in (0.0,) if decided else SHARES:
            if not len(left):
                break
            held_against = reference.chosen(left[None])
            seen = torch.stack([held_against.logits[0], network(images[left])[0]]).double()
            level = found[left] + WITHIN
            level = level + share * (outcome[left] - level)
            level = torch.full_like(level, notion.gamma) if decided else level
            falling = seen[0].topk(min(FALLING, seen.shape[-1])).indices
            reached = climbed(network, x[left], ball, falling) if quadratic is None else None
            wanted = targets(seen, reached, own, level.double())
            own = improved(
                own, wanted, tightened(network, x[left], ball, wanted, seconds / (1 if decided else len(SHARES)))
            )
            outcome[left] = notion.certified(held_against, own)[0]
            # What was too much to prove needs no more to be asked.
            kept = (outcome[left] <= level + REACHED) & (outcome[left] - found[left] > WITHIN)
            left, own = left[kept], _of_points(own, kept)
        return outcome


def _of_points(bounds: LogitBounds, some: torch.Tensor) -> LogitBounds:
    return LogitBounds(bounds.differences[:, some], softmax=bounds.softmax[:, some])


def quadratic_form(model: Layered, ball: Ball, x: torch.Tensor) -> Layered | None:
    """The network as quadratic bounds take it; None where they do not, or where splits prove more."""
    form, *_ = forms_of(model)
    return taken(model, form, ball.around(x)) if hidden_units(form()) > FEW and len(x) else None


def fallen(
    model: Layered,
    quadratic: Layered,
    x: torch.Tensor,
    ball: Ball,
    bounds: LogitBounds,
    level: torch.Tensor,
    deadline: float,
) -> LogitBounds:
    """Bounds [1, n] by what quadratic bounds prove, too, of softmaxes that may fall by more than `level` [n]."""
    least, most = bounds.softmax[0].unbind(-1)
    floor = floors(model(x)[0].double().softmax(-1), level)
    point, label = ((floor > 0) & ~(least >= floor)).nonzero(as_tuple=True)
    falls = Falls(point, label, floor[point, label], -bounds.differences[0, point, label])
    found = lowest(model, quadratic, x, ball, falls, deadline)
    least = least.index_put((point, label), torch.maximum(least[point, label], found))
    return LogitBounds(bounds.differences, softmax=summing_to_one(least, most)[None])


def floors(now: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """How low softmaxes may be [n, classes] whose change from `now` is to be no more than `level` [n]."""
    return now - level[:, None] + rounding(2 * now)


def targets(seen: torch.Tensor, reached: torch.Tensor | None, bounds: LogitBounds, level: torch.Tensor) -> Targets:
    """What proves that no softmax changes by more than `level` [n] in the balls that `bounds` [1, n] are of.

    `seen` are float64 logits [2, n, classes] at the points and at images of their balls, and `reached` [n, j, i] what
    zᵢ - zⱼ is at some image; without it nothing is asked of falling. Asked is what the bounds do not prove, and of a
    class that rises what the others' falling does not.
    """
    now, classes = seen[0].softmax(-1), seen.shape[-1]
    lowest, highest = bounds.softmax[0].unbind(-1)
    floor = floors(now, level)
    ceiling = (level[:, None] + now - rounding(now)) / (1 + rounding(torch.ones_like(now)))
    falls = (floor > 0) & ~(lowest >= floor) & (reached is not None)
    others_floor = torch.where(falls, floor, lowest.nan_to_num(0)).clamp(min=0)
    left_by_others = 1 - (others_floor.sum(-1, keepdim=True) - others_floor)
    rises = (ceiling < 1) & ~(torch.minimum(highest, left_by_others) <= ceiling + WITHIN / 2)

    identity = torch.eye(classes, dtype=torch.float64, device=seen.device)
    leads = (identity[:, None] - identity).expand(len(now), -1, -1, -1)  # [n, j, i, classes]
    above = torch.full_like(bounds.differences[0], -torch.inf)
    if reached is not None:
        most = exponents(reached, -bounds.differences[0], (1 / floor.clamp(min=1e-300) - 1).log())
        asked = falls[..., None] & ~identity.bool() & (most < -bounds.differences[0])
        above = above.where(~asked, -most)

    # Tangents at the image of the two at which the softmax is larger.
    larger = (seen[1].softmax(-1) > now)[..., None]
    chosen = torch.where(larger, seen[1][:, None], seen[0][:, None])
    weights = chosen.masked_fill(identity.bool(), -torch.inf).softmax(-1)
    limit = (1 / ceiling.clamp(1e-300, 1) - 1).log() - entropy(weights)
    rising = torch.where(rises, limit, -torch.inf)
    rows = torch.cat([leads.flatten(1, 2), weights - identity], 1)
    return Targets(rows, torch.cat([above.flatten(1), rising], 1), weights)


def exponents(reached: torch.Tensor, proven: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Numbers t [n, j, i] at a share of the way from `reached` to `proven`, with log Σᵢ exp(tᵢ), i ≠ j, up to `total`.

    The share is the same for all i, and never less than `NEAREST`, even if that is too much for the total [n, j]. What
    counts for little is left where it counts for little.
    """
    own = torch.eye(proven.shape[-1], dtype=torch.bool, device=proven.device)
    least, largest = torch.full_like(total, NEAREST), torch.ones_like(total)
    way, far = proven - reached, torch.minimum(proven, (total + math.log(FAR / len(own)))[..., None])
    for _ in range(HALVINGS):
        middle = (least + largest) / 2
        shares = torch.maximum(reached + middle[..., None] * way, far)
        fits = shares.masked_fill(own, -torch.inf).logsumexp(-1) <= total
        least, largest = torch.where(fits, middle, least), torch.where(fits, largest, middle)
    return torch.maximum(reached + least[..., None] * way, far)


@torch.no_grad()
def climbed(model: Layered, x: torch.Tensor, ball: Ball, first: torch.Tensor) -> torch.Tensor:
    """How large zᵢ - zⱼ is at an image of each ball around x [n, h, w, c], float64 [n, j, i].

    For each i of each j of `first` [n, m], by a few steps of gradients; of other j at the points.
    """
    logits = model(x)[0]
    found = (logits[:, None] - logits[..., None]).double()
    classes = logits.shape[-1]
    point, j, i = (
        torch.arange(len(x), device=x.device)[:, None, None].expand(*first.shape, classes).flatten(),
        first[..., None].expand(*first.shape, classes).flatten(),
        torch.arange(classes, device=x.device).expand(*first.shape, classes).flatten(),
    )
    for some in torch.arange(len(point), device=x.device).split(CLIMBING):
        chosen, around = (point[some], j[some], i[some]), ball.around(x).at(point[some])
        images = x[chosen[0]][None]
        for step in range(CLIMBS + 1):
            with torch.enable_grad():
                leaf = images.detach().requires_grad_()
                given = model(leaf)[0]
                height = given.gather(1, chosen[2][:, None]) - given.gather(1, chosen[1][:, None])
                (gradient,) = torch.autograd.grad(height.sum(), leaf)
            found[chosen] = torch.maximum(found[chosen], height[:, 0].detach().double())
            if step < CLIMBS:
                images = around.returned(around.stepped(images, gradient, LONGEST * ball.delta / (step + 1)))
    return found


def entropy(weights: torch.Tensor) -> torch.Tensor:
    """−Σ w ln w over the last axis, of weights that sum to 1; a weight of 0 adds nothing."""
    return -torch.special.xlogy(weights, weights).sum(-1)


def improved(bounds: LogitBounds, asked: Targets, reached: torch.Tensor) -> LogitBounds:
    """Bounds [1, n] by what is proven of the rows, too: lower bounds [n, R] of them in float32, inf where not asked."""
    classes = bounds.differences.shape[-1]
    falling, rising = reached.masked_fill(reached == torch.inf, -torch.inf).split([classes**2, classes], -1)
    differences = torch.maximum(bounds.differences, falling.unflatten(-1, (classes, classes))[None])
    lowest, highest = of_differences(differences).unbind(-1)
    lowest = torch.maximum(lowest, bounds.softmax[..., 0])
    tangents = 1 / (1 + (rising + entropy(asked.weights)).exp())
    highest = torch.minimum(torch.minimum(highest, bounds.softmax[..., 1]), tangents)
    return LogitBounds(differences, softmax=summing_to_one(lowest, highest))


def tightened(model: Layered, x: torch.Tensor, ball: Ball, wanted: Targets, seconds: float) -> torch.Tensor:
    """Lower bounds [n, R] of the rows in the balls around x [n, h, w, c], as float32 logits give them.

    They stop at what is wanted, and at a little less than what an image gives, and after so many seconds for each
    point. Infinite where nothing is asked.
    """
    forms = forms_of(model)
    groups = [
        _Tightening(model, forms, x[some], ball, wanted.rows[some], wanted.above[some])
        for some in (slice(first, first + GROUP) for first in range(0, len(x), GROUP))
    ]
    search(groups, seconds)
    return torch.cat([torch.stack([one.reached() for one in group.searches]).amax(0) for group in groups])


class _Tightening(Group):
    """Rows that are bounded as far as images allow."""

    partly = True

    def judge(self, points: torch.Tensor, images: torch.Tensor) -> None:
        """What an image gives cannot be proven away."""
        given = torch.einsum("brc,bc->br", self.rows[points], self.model(images)[0].double())
        given = torch.where(given <= self.above[points], given - SLACK, torch.inf)
        places = points[:, None].expand_as(given)
        least = torch.full_like(self.above, torch.inf).scatter_reduce(0, places, given.nan_to_num(torch.inf), "amin")
        self.above = torch.minimum(self.above, least)

    def proven(self, point: int) -> None:
        self.closed[point] = True

    def least(self, points: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        beyond = torch.einsum("brc,bc->br", self.rows[points], logits.double()) - self.above[points]
        return beyond.amin(-1)
