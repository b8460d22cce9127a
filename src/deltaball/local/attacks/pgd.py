"""Projected gradient ascent."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from deltaball.base.draws import generator
from deltaball.local.attacks.attack import Attack
from deltaball.local.attacks.gradients import annealing, differentiated, replace_where
from deltaball.local.balls import Ball
from deltaball.local.losses import Loss
from deltaball.local.notions import Notion
from deltaball.local.points import Points
from deltaball.local.references import Reference
from deltaball.plan.batches import IMAGES_MULTIPLE

# The length of PGD's path in radii. Its steps fall to 0 by a cosine: in every norm more is found than by equal steps of
# 2.5 radii in all (Madry et al. 2018).
TRAVEL = 10

# How often PGD counts the points that are still worth attacking, in steps; each time the device's host waits.
COUNT_EVERY = 4

# It goes on with those alone once they are fewer than this share: gathering them costs about a step.
WORTH_GATHERING = 0.75


# How often the way from a point to where a search ended is halved, where the outcome depends on how far the image is.
HALVINGS = 6


@dataclass(frozen=True)
class Pgd(Attack):
    """Projected gradient ascent (Madry et al. 2018), per ball and family of notions with the same reference and losses.

    Restart 0 starts from FGSM's point, so PGD is nowhere weaker; the others start at random images of the ball.
    Restart r ascends the family's loss r, in turn, by steps that fall from 20 radii / `steps` to 0: along signs of the
    gradient for L∞, the normalised gradient for L2, the steepest pixels for L1. Every iterate is judged, for each
    notion the worst is kept, and a point is left alone once nothing worse can be found for it: with or without
    `early_exit` the same is found.
    """

    steps: int = 40
    restarts: int = 2
    early_exit: bool = True

    def run(
        self, points: Points, asked: Mapping[Ball, Sequence[Notion]]
    ) -> Iterator[tuple[Ball, Sequence[Notion], torch.Tensor]]:
        for ball, notions in asked.items():
            families: dict[tuple[Reference, tuple[Loss, ...]], list[Notion]] = defaultdict(list)
            for notion in notions:
                families[points.reference(notion), notion.losses].append(notion)
            for (reference, losses), family in families.items():
                first = points.around(ball).steepest(points.direction(reference))
                search = Search(points, ball, family, first, reference)
                for restart in range(self.restarts):
                    search.current = search.random(restart) if restart else first.clone()
                    self._ascend(search, losses[restart % len(losses)])
                for notion, worst in zip(family, search.worst, strict=True):
                    yield ball, (notion,), worst

    def _ascend(self, search: "Search", loss: Loss) -> None:
        mean = TRAVEL * search.ball.delta / self.steps
        for step in range(self.steps):
            if self.early_exit and (step == 0 or step % COUNT_EVERY == 1) and not search.goes_on():
                return
            search.move(search.judged_gradient(loss), mean * 2 * annealing(step, self.steps))
        search.judge(search.points.model(search.current))
        if search.compares_distances:
            search.approach()


class Search:
    """The points that PGD still attacks, m ≤ n per network, and for each of its notions the worst images so far."""

    def __init__(
        self, points: Points, ball: Ball, notions: Sequence[Notion], first: torch.Tensor, reference: Reference
    ) -> None:
        self.points, self.ball, self.notions = points, ball, notions
        self.compares_distances = any(notion.entry.compares_distances for notion in notions)
        self.worst = [first.clone() for _ in notions]  # [K, n, h, w, c] each
        self.outcomes: list[torch.Tensor] = []  # of `worst`, [K n] each, once FGSM's point is judged
        networks, count = points.logits.shape[:2]
        # Which of the K × n points are left, [K m], and what the search needs of them, [K, m, ...].
        self.left = torch.arange(networks * count, device=points.x.device)
        self.reference, self.current = reference, first
        self._whole = reference
        self.around = points.around(ball)  # [n, ...] as long as all points are left

    def random(self, restart: int) -> torch.Tensor:
        """Where all restarts but 0 start."""
        images = _random_images(self.points, self.ball, restart)
        return images[self.left % len(images)].view(self.current.shape)

    def judged_gradient(self, loss: Loss) -> torch.Tensor:
        """The gradient of `loss` at the current images, which are judged by the way."""
        logits, gradient = differentiated(self.points.model, self.current, self.reference, loss)
        self.judge(logits)
        return gradient

    def judge(self, logits: torch.Tensor) -> None:
        """Keep what is worse than before, given the logits at the current images."""
        distance = logits.new_tensor(self.ball.delta)
        if self.compares_distances:
            distance = self.around.distance(self.current)
        outcomes = [notion.outcome(self.reference, logits, distance).flatten() for notion in self.notions]
        if not self.outcomes:
            self.outcomes = outcomes
            return
        for notion, kept, worst, outcome in zip(self.notions, self.outcomes, self.worst, outcomes, strict=True):
            before = kept[self.left]
            after = notion.worst(before, outcome)
            kept[self.left] = after
            replace_where(worst.flatten(0, 1), self.left, self.current.flatten(0, 1), after != before)

    def move(self, gradient: torch.Tensor, length: float) -> None:
        """A step of `length` along the gradient, and back into the ball."""
        self.current = self.around.returned(self.around.stepped(self.current, gradient, length))

    def approach(self) -> None:
        """Judge images on the way back to the points: those with the steepest slope may be near."""
        x, found = self.points.images.flatten(0, 1)[self.left].view(self.current.shape), self.current
        for halving in range(1, HALVINGS + 1):
            self.current = self.around.returned(torch.lerp(x, found, 2.0**-halving))
            self.judge(self.points.model(self.current))

    def goes_on(self) -> bool:
        """Leave the points alone for which nothing worse can be found; whether any others are left.

        Networks have different numbers of them but tensors the same of each: settled points fill up.
        """
        if not self.outcomes:
            return True
        networks, count = self.current.shape[:2]
        pairs = zip(self.notions, self.outcomes, strict=True)
        settled = torch.stack([notion.settled(outcomes[self.left]) for notion, outcomes in pairs]).all(0)
        settled = settled.view(networks, count)
        most = count - int(settled.sum(1).amin())
        kept = -(-most // IMAGES_MULTIPLE) * IMAGES_MULTIPLE
        if 0 < kept <= WORTH_GATHERING * count:
            unsettled = settled.to(torch.uint8).argsort(dim=1, stable=True)[:, :kept]
            rows = (torch.arange(networks, device=unsettled.device)[:, None] * count + unsettled).flatten()
            self.left = self.left[rows]
            self.reference = self._whole.chosen(self.left.view(networks, kept))
            self.current = self.current.flatten(0, 1)[rows].view(networks, kept, *self.current.shape[2:])
            self.around = self.points.around(self.ball).at(self.left.view(networks, kept) % len(self.points.x))
        return most > 0


def _random_images(points: Points, ball: Ball, restart: int) -> torch.Tensor:
    """[n, h, w, c]: from each point a random part of the way to the ball's furthest image in a random direction.

    All networks start from the same.
    """
    drawn = np.stack([_draws(key, restart, points.x[0].numel()) for key in points.keys])
    draws = torch.from_numpy(drawn).to(points.x.device)
    furthest = points.around(ball).steepest(draws[:, 1:].view(points.x.shape))
    return torch.lerp(points.x, furthest, draws[:, 0].view(-1, 1, 1, 1))


@lru_cache(maxsize=4096)
def _draws(key: int, restart: int, pixels: int) -> np.ndarray:
    """float32 [1 + pixels]: a uniform number and a normal vector for one point and restart."""
    draws = generator("pgd", key, restart)
    return np.concatenate([draws.random(1, dtype=np.float32), draws.standard_normal(pixels, dtype=np.float32)])
