"""How low a softmax falls in a ball, by quadratic bounds of as many differences of logits as matter.

softmax j is 1 / (1 + Σᵢ exp(zᵢ - zⱼ)), i ≠ j. Each difference is bounded as far as it counts in the sum, all of a
softmax's in one ascent, which ends where the sum is small enough. These bounds alone let each difference be at its own
worst at a different image. So the two largest are bounded together, too, as are the two after them: below
W (z₁ - zⱼ) + (1 - W) (z₂ - zⱼ) ≤ b the sum of their exponentials, which is convex, is largest at a vertex, where one of
both differences is at its own bound and the other one as large as b allows.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from deltaball.local.balls import Ball
from deltaball.local.branching import GROUP
from deltaball.local.certificates.enclosures import enclosed
from deltaball.local.coupling import improved
from deltaball.local.quadratics import quadratics
from deltaball.networks.models import Layered

MINOR = 0.03  # of what the sum may be, a term that is left as it is

PAIRS = 2  # of differences that are bounded together
WEIGHT = 0.65  # W, of the larger difference of a pair

LARGEST = 700.0  # exponent in float64

ALONE = 0.75  # of the time, at most, goes to single differences


class Falls(NamedTuple):
    """Softmaxes that may fall, C of them."""

    point: torch.Tensor  # [C]
    label: torch.Tensor  # [C] j
    floor: torch.Tensor  # float64 [C]: a larger bound is not asked for
    highest: torch.Tensor  # float64 [C, classes]: what is known not to be exceeded by zᵢ - zⱼ in float32

    def at(self, some: slice) -> "Falls":
        return Falls(*(part[some] for part in self))


@torch.no_grad()
def lowest(
    model: Layered, network: Layered, x: torch.Tensor, ball: Ball, falls: Falls, deadline: float
) -> torch.Tensor:
    """Lower bounds [C] of softmaxes in the balls around x [n, h, w, c], of what float32 logits give.

    `network` is the `model` in a form that quadratic bounds take. After `deadline` of processor time nothing more is
    proven.
    """
    groups = [falls.at(slice(first, first + GROUP)) for first in range(0, len(falls.point), GROUP)]
    found = [falls.floor[:0]]
    for index, group in enumerate(groups):
        now = time.process_time()
        if now < deadline:
            until = now + (deadline - now) / (len(groups) - index)
            found.append(_Falling(model, network, x, ball, group).lowest(until))
        else:
            found.append(1 / group.highest.exp().sum(-1))
    return torch.cat(found)


class _Falling:
    """Some softmaxes that are bounded together."""

    def __init__(self, model: Layered, network: Layered, x: torch.Tensor, ball: Ball, falls: Falls) -> None:
        self.network, self.falls, self.around = network, falls, ball.around(x[falls.point])
        self.error = enclosed(model, self.around, "crown").error[0]
        self.highest = falls.highest.clone()
        self.identity = torch.eye(self.highest.shape[1], dtype=torch.float64, device=x.device)
        self.own = self.identity[falls.label]

    def lowest(self, deadline: float) -> torch.Tensor:
        """Lower bounds [C]."""
        now = time.process_time()
        self._alone(now + ALONE * (deadline - now))
        return 1 / (self.highest.exp().sum(-1) - self._spared(deadline))

    def _alone(self, deadline: float) -> None:
        """Lower the bounds of single differences."""
        case, other = (self._matters(self.highest) & (self.own == 0)).nonzero(as_tuple=True)

        def enough(lower: torch.Tensor) -> torch.Tensor:
            bounds = self._lowered(case, other, lower)
            return self._small(bounds.exp().sum(-1))[case] | ~self._matters(bounds)[case, other]

        rows = self.own[case] - self.identity[other]
        self.highest = self._lowered(case, other, self._certain(case, rows, enough, deadline))

    def _lowered(self, case: torch.Tensor, other: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
        """The bounds of all differences, by lower bounds [B] of zⱼ - zᵢ."""
        bounds = self.highest.clone()
        bounds[case, other] = torch.minimum(bounds[case, other], -lower)
        return bounds

    def _spared(self, deadline: float) -> torch.Tensor:
        """How much [C] smaller the sums are, as two differences are not at their bounds together."""
        bounds, matters = self.highest, self._matters(self.highest)
        order = bounds.masked_fill(self.own == 1, -torch.inf).argsort(-1, descending=True)
        pairs = min(PAIRS, (len(self.identity) - 1) // 2)
        both = order[:, : 2 * pairs].unflatten(-1, (pairs, 2))  # [C, pairs, 2]
        alone = bounds[:, None].expand(-1, pairs, -1).gather(-1, both)
        found, total = torch.full_like(alone[..., 0], -torch.inf), bounds.exp().sum(-1)
        asked = matters.gather(1, both[..., 1]) & ~self._small(total)[:, None]
        case, pair = asked.nonzero(as_tuple=True)
        if not len(case) or time.process_time() > deadline:
            return torch.zeros_like(total)
        first, second = both[case, pair].unbind(-1)
        rows = self.own[case] - WEIGHT * self.identity[first] - (1 - WEIGHT) * self.identity[second]

        def enough(lower: torch.Tensor) -> torch.Tensor:
            spared = torch.zeros_like(total).index_add(0, case, excluded(alone[case, pair], -lower))
            return self._small(total - spared)[case]

        found[case, pair] = self._certain(case, rows, enough, deadline)
        return excluded(alone, -found).sum(-1)

    def _certain(
        self,
        case: torch.Tensor,
        rows: torch.Tensor,
        enough: Callable[[torch.Tensor], torch.Tensor],
        deadline: float,
    ) -> torch.Tensor:
        """Lower bounds of rows [B, classes] of cases [B], of what float32 logits give."""
        lower = improved(*quadratics(self.network, self.around, case, rows), enough, deadline)
        return (lower - (rows.abs() * self.error[case]).sum(-1)).nan_to_num(-torch.inf)

    def _small(self, total: torch.Tensor) -> torch.Tensor:
        """Which sums [C] are small enough."""
        return total * self.falls.floor <= 1

    def _matters(self, bounds: torch.Tensor) -> torch.Tensor:
        """Which terms [C, classes] are no small part of what their sum may be."""
        return bounds.exp() * self.falls.floor[:, None] > MINOR


def excluded(alone: torch.Tensor, both: torch.Tensor) -> torch.Tensor:
    """By how much exp(a) + exp(b) stays below its value at the bounds `alone` [..., 2] of a and b.

    `both` [...] is a bound of W a + (1 - W) b. Zero where it excludes nothing.
    """
    weights = alone.new_tensor([WEIGHT, 1 - WEIGHT])
    beyond = ((alone * weights).sum(-1) - both).nan_to_num(0.0).clamp(min=0)
    # A sum that overflows is no bound with less in it either.
    return (alone.clamp(max=LARGEST).exp() * -torch.expm1(-beyond[..., None] / weights)).amin(-1)
