"""Attacks: perturbed points that are meant to violate robustness, for K networks × n points at once.

An attack only proposes; the base class judges. A proposal is brought into the ball, and its outcome comes from one
more forward pass on exactly the point that is handed back. The attacked class is the predicted one, never the label.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import product
from math import cos, pi
from typing import ClassVar

import numpy as np
import torch

from deltaball.local.neighbourhoods import Ball, LinfBall, Neighbourhood
from deltaball.local.notions import (
    ClassChange,
    Loss,
    Margin,
    Notion,
    SoftmaxVariation,
    VariationAbove,
    cross_entropy,
    margin,
    margin_loss,
)

Predict = Callable[[torch.Tensor], torch.Tensor]

# Images of a network come in multiples of 32: a matrix product of another size may round differently.
IMAGES_MULTIPLE = 32


@dataclass(frozen=True)
class Found:
    """What an attack found for K networks × n points, for one ball and notion."""

    perturbed: torch.Tensor  # [K, n, h, w, c] float32, in the ball and in [0, 1]: the worst point found
    outcome: torch.Tensor  # [K, n] float32, from a forward pass on exactly `perturbed`
    no_gradient: torch.Tensor  # [K, n] bool: the cross-entropy's gradient at the point is 0 in every pixel


class Points:
    """The n unperturbed points as K networks see them. One forward pass serves logits and gradients."""

    def __init__(self, predict: Predict, x: torch.Tensor, networks: int, keys: Sequence[int]) -> None:
        self.predict, self.x, self.keys = predict, x, keys
        self._leaf = x.expand(networks, *x.shape).clone().requires_grad_()
        self.images = self._leaf.detach()
        with torch.enable_grad():
            self._logits = predict(self._leaf)
        self.logits = self._logits.detach()
        self.around: Callable[[Ball], Neighbourhood] = cache(lambda ball: ball.around(x))

    def _gradient(self, loss: Loss) -> torch.Tensor:
        with torch.enable_grad():
            total = loss(self.logits, self._logits).sum()
        return torch.autograd.grad(total, self._leaf, retain_graph=True)[0]

    @cached_property
    def _cross_entropy_gradient(self) -> torch.Tensor:
        return self._gradient(cross_entropy)

    @cached_property
    def no_gradient(self) -> torch.Tensor:
        """[K, n]: whether the cross-entropy's gradient is 0 in every pixel, as float32 has it."""
        gradient = self._cross_entropy_gradient.flatten(-3)
        return (gradient.amax(-1) == 0) & (gradient.amin(-1) == 0)

    @cached_property
    def direction(self) -> torch.Tensor:
        """[K, n, h, w, c]: the gradient of the cross-entropy, and where that is 0, of the margin."""
        if not self.no_gradient.any():
            return self._cross_entropy_gradient
        return torch.where(
            self.no_gradient[..., None, None, None], self._gradient(margin_loss), self._cross_entropy_gradient
        )


class Attack(ABC):
    """A way to look for violations. Calling it judges whatever `run` proposes."""

    notions: ClassVar[tuple[type[Notion], ...]] = (ClassChange, SoftmaxVariation, VariationAbove)

    @torch.no_grad()
    def __call__(
        self,
        predict: Predict,
        x: torch.Tensor,
        networks: int,
        asked: Mapping[Ball, Sequence[Notion]],
        keys: Sequence[int],
    ) -> Iterator[tuple[Ball, Notion, Found]]:
        """What is found for each of the notions `asked` of a ball around the float32 images x [n, h, w, c] in [0, 1].

        `predict` maps images [K, n, h, w, c] to logits [K, n, classes], network k seeing images [k]. `keys` [n] are
        the points' own numbers, from which everything random is drawn. What is found for a point depends neither on
        the points and networks beside it (as long as n is a multiple of IMAGES_MULTIPLE), nor on the other balls and
        notions.
        """
        assert x.ndim == 4, f"images are [n, h, w, c], not {tuple(x.shape)}"
        assert x.dtype == torch.float32
        assert len(keys) == len(x)
        for notions in asked.values():
            assert all(isinstance(notion, self.notions) for notion in notions), f"{self} does not serve {notions}"
        points = Points(predict, x, networks, keys)
        for ball, served, candidate in self.run(points, asked):
            perturbed = _contained(candidate, points, ball)
            logits = predict(perturbed)
            distance = logits.new_tensor(ball.delta)
            if any(isinstance(notion, Margin) for notion in served):
                distance = points.around(ball).distance(perturbed)
            for notion in served:
                outcome = notion.outcome(points.logits, logits, distance)
                yield ball, notion, Found(perturbed, outcome, points.no_gradient)

    @abstractmethod
    def run(
        self, points: Points, asked: Mapping[Ball, Sequence[Notion]]
    ) -> Iterator[tuple[Ball, Sequence[Notion], torch.Tensor]]:
        """Candidates [K, n, h, w, c], each with the ball and the notions that it is for."""


def _contained(candidate: torch.Tensor, points: Points, ball: Ball) -> torch.Tensor:
    """The candidate [K, n, h, w, c], brought into the ball where it is not inside."""
    assert candidate.shape == points.images.shape
    around = points.around(ball)
    inside = around.contains(candidate)
    if not inside.all():
        # A NaN from a broken gradient is no perturbation; clamp would let it through.
        projected = around.project(torch.where(candidate.isnan(), points.images, candidate))
        candidate = torch.where(inside[..., None, None, None], candidate, projected)
        assert around.contains(candidate).all(), f"a perturbed point left {ball}"
    return candidate


class Fgsm(Attack):
    """The image of the ball that lies furthest along the gradient of the predicted class's cross-entropy.

    For L∞ x + δ sign(gradient) (Goodfellow et al. 2014; paper 004, Section 4.2). One gradient serves all balls. Where
    it is 0 in float32 (a saturated network) the margin's is taken.
    """

    def run(
        self, points: Points, asked: Mapping[Ball, Sequence[Notion]]
    ) -> Iterator[tuple[Ball, Sequence[Notion], torch.Tensor]]:
        for ball, notions in asked.items():
            yield ball, notions, points.around(ball).steepest(points.direction)


# The length of PGD's path in radii. Its steps fall to 0 by a cosine: in every norm more is found than by equal steps of
# 2.5 radii in all (Madry et al. 2018).
TRAVEL = 10
# How often PGD counts the points that are still worth attacking, in steps; each time the device's host waits.
COUNT_EVERY = 4
# It goes on with those alone once they are fewer than this share: gathering them costs about a step.
SHARE = 0.75


@dataclass(frozen=True)
class Pgd(Attack):
    """Projected gradient ascent (Madry et al. 2018), per ball and per family of notions with the same losses.

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
            families: dict[tuple[Loss, ...], list[Notion]] = defaultdict(list)
            for notion in notions:
                families[notion.losses].append(notion)
            first = points.around(ball).steepest(points.direction)
            for losses, family in families.items():
                search = Search(points, ball, family, first)
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
            search.move(search.judged_gradient(loss), mean * 2 * _annealed(step, self.steps))
        search.judge(search.points.predict(search.current))


class Search:
    """The points that PGD still attacks, m ≤ n per network, and for each of its notions the worst images so far."""

    def __init__(self, points: Points, ball: Ball, notions: Sequence[Notion], first: torch.Tensor) -> None:
        self.points, self.ball, self.notions = points, ball, notions
        self.worst = [first.clone() for _ in notions]  # [K, n, h, w, c] each
        self.outcomes: list[torch.Tensor] = []  # of `worst`, [K n] each, once FGSM's point is judged
        networks, count = points.logits.shape[:2]
        # Which of the K × n points are left, [K m], and what the search needs of them, [K, m, ...].
        self.left = torch.arange(networks * count, device=points.x.device)
        self.x, self.logits, self.current = points.images, points.logits, first
        around = points.around(ball)
        # [n, ...] as long as all points are left.
        self.bounds = around.bounds if isinstance(around, LinfBall) else None
        self.reach = _reach(ball, points.x[0].numel())

    def random(self, restart: int) -> torch.Tensor:
        """Where all restarts but 0 start."""
        images = _random_images(self.points, self.ball, restart)
        return images[self.left % len(images)].view(self.x.shape)

    def judged_gradient(self, loss: Loss) -> torch.Tensor:
        """The gradient of `loss` at the current images, which are judged by the way."""
        logits, gradient = _differentiated(self.points.predict, self.current, self.logits, loss)
        self.judge(logits)
        return gradient

    def judge(self, logits: torch.Tensor) -> None:
        """Keep what is worse than before, given the logits at the current images."""
        radius = logits.new_tensor(self.ball.delta)
        outcomes = [notion.outcome(self.logits, logits, radius).flatten() for notion in self.notions]
        if not self.outcomes:
            self.outcomes = outcomes
            return
        for notion, kept, worst, outcome in zip(self.notions, self.outcomes, self.worst, outcomes, strict=True):
            before = kept[self.left]
            after = notion.worst(before, outcome)
            kept[self.left] = after
            _replace(worst.flatten(0, 1), self.left, self.current.flatten(0, 1), after != before)

    def move(self, gradient: torch.Tensor, length: float) -> None:
        """A step of `length` along the gradient, and back into the ball."""
        moved = _stepped(self.ball.norm, self.current, gradient, length)
        if self.bounds is None:
            self.current = _retracted(self.ball.norm, moved, self.x, self.reach)
        else:
            self.current = moved.clamp_(*self.bounds)

    def goes_on(self) -> bool:
        """Leave the points alone for which nothing worse can be found; whether any others are left.

        Networks have different numbers of them but tensors the same of each: settled points fill up.
        """
        if not self.outcomes:
            return True
        networks, count = self.x.shape[:2]
        pairs = zip(self.notions, self.outcomes, strict=True)
        settled = torch.stack([notion.settled(outcomes[self.left]) for notion, outcomes in pairs]).all(0)
        settled = settled.view(networks, count)
        most = count - int(settled.sum(1).amin())
        kept = -(-most // IMAGES_MULTIPLE) * IMAGES_MULTIPLE
        if 0 < kept <= SHARE * count:
            chosen = settled.to(torch.uint8).argsort(dim=1, stable=True)[:, :kept]
            rows = (torch.arange(networks, device=chosen.device)[:, None] * count + chosen).flatten()
            self.left = self.left[rows]
            self.x, self.logits, self.current = (
                tensor.flatten(0, 1)[rows].view(networks, kept, *tensor.shape[2:])
                for tensor in (self.x, self.logits, self.current)
            )
            if self.bounds is not None:
                here = self.left.view(networks, kept) % len(self.points.x)
                self.bounds = tuple(bound[here] for bound in self.points.around(self.ball).bounds)
        return most > 0


# FMN: the share γ by which the radius shrinks and the step α, both annealed by a cosine (Pintor et al. 2021). Here α is
# a share of the radius, and a radius always grows to where the margin would be 0 if it were linear: simpler, not worse.
GAMMA, ALPHA = (0.05, 0.001), (0.5, 0.01)
# Radii along FGSM's direction, each half the one before, at which FMN looks for a start: in the norm, and in L∞ where
# every pixel moves.
HALVINGS = 10
BISECTIONS = 24


@dataclass(frozen=True)
class Fmn(Attack):
    """The closest image of another class: fast minimum-norm attack (Pintor et al. 2021, Algorithm 1) on the margin.

    Starts from FGSM's direction where that leads to another class, else from the point. A line search between the
    point and the closest image found then tightens it. The search knows no radius, so one serves all balls of a norm;
    a ball in which the image does not lie gets the point itself.
    """

    steps: int = 100
    notions = (ClassChange, Margin)

    def run(
        self, points: Points, asked: Mapping[Ball, Sequence[Notion]]
    ) -> Iterator[tuple[Ball, Sequence[Notion], torch.Tensor]]:
        closest = {norm: self._closest(points, norm) for norm in dict.fromkeys(ball.norm for ball in asked)}
        for ball, notions in asked.items():
            inside = points.around(ball).contains(closest[ball.norm])
            yield ball, notions, torch.where(inside[..., None, None, None], closest[ball.norm], points.images)

    def _closest(self, points: Points, norm: str) -> torch.Tensor:
        """[K, n, h, w, c]; the point itself where no other class was found."""
        x, reference = points.images, points.logits.argmax(-1, keepdim=True)
        rows = torch.arange(reference.numel(), device=x.device)
        closest, distance = x.clone(), x.new_full(x.shape[:2], torch.inf)

        def judge(images: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Lead of the point's class, and distance from the point; the closest is kept."""
            lead, length = margin(logits, reference), _length(norm, images - x)
            closer = ~(lead > 0) & (length < distance)
            _replace(closest.flatten(0, 1), rows, images.flatten(0, 1), closer.flatten())
            distance.copy_(torch.where(closer, length, distance))
            return lead, length

        largest = _length(norm, torch.ones_like(points.x[0])).item()
        for how, halving in product(dict.fromkeys((norm, "linf")), range(HALVINGS)):
            radius = {"linf": 1, "l2": largest, "l1": PIXELS}[how] / 2**halving
            images = _stepped(how, x, points.direction.clone(), radius).clamp_(0, 1)
            judge(images, points.predict(images))
        images, radius = closest.clone(), distance.clone()
        for step in range(self.steps):
            annealed = _annealed(step, self.steps)
            gamma, alpha = (end + (begin - end) * annealed for begin, end in (GAMMA, ALPHA))
            logits, gradient = _differentiated(points.predict, images, points.logits, margin_loss)
            lead, length = judge(images, logits)
            outwards = length + lead / _length(DUAL[norm], gradient)
            inwards = torch.minimum(radius * (1 - gamma), distance)
            radius = torch.where(lead > 0, outwards, inwards).clamp(max=largest)
            images = _retracted(norm, _stepped(norm, images, gradient, alpha * radius), x, radius)
        near, far = torch.zeros_like(distance), torch.ones_like(distance)
        for _ in range(BISECTIONS):
            middle = (near + far) / 2
            lead = margin(points.predict(torch.lerp(x, closest, _over_pixels(middle))), reference)
            near, far = torch.where(lead > 0, middle, near), torch.where(lead > 0, far, middle)
        return torch.lerp(x, closest, _over_pixels(far))


def _differentiated(
    predict: Predict, images: torch.Tensor, at_point: torch.Tensor, loss: Loss
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at images [K, m, h, w, c], and the gradient of `loss` there; but for the margin's, its scale is arbitrary.

    The loss is differentiated by the logits first: where it is flat (softmax saturates; the variation has no slope at
    the point itself) the margin's slope takes its place, and the scale keeps small slopes from vanishing on their
    way through the network.
    """
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        logits = predict(leaf)
        ahead = logits.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(at_point, ahead).sum(), ahead)
        if loss is not margin_loss:
            (instead,) = torch.autograd.grad(margin_loss(at_point, ahead).sum(), ahead)
            slope = torch.where((slope == 0).all(-1, keepdim=True), instead, slope)
            slope /= slope.abs().amax(-1, keepdim=True)
    (gradient,) = torch.autograd.grad(logits, leaf, slope)
    return logits.detach(), gradient.contiguous()


def _replace(kept: torch.Tensor, rows: torch.Tensor, new: torch.Tensor, where: torch.Tensor) -> None:
    """kept[rows] = new for those of the rows for which `where` holds."""
    if kept.is_cuda:  # the host need not know how many
        kept[rows] = torch.where(where[:, None, None, None], new, kept[rows])
    else:
        kept[rows[where]] = new[where]


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
    digest = hashlib.sha256(f"pgd {key} {restart}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return np.concatenate([generator.random(1, dtype=np.float32), generator.standard_normal(pixels, dtype=np.float32)])


# Steps and balls in float32, for iterates. What becomes of them is brought into the ball by its own `project`.

# In an L1 step: pixels that may move, those of the steepest gradient.
PIXELS = 8
# Pixels with less room than 1 over this rank lower.
ENOUGH_ROOM = 1e6
# Newton's steps towards the threshold by which an L1 ball shrinks a displacement; the rest is scaled away.
NEWTON = 3
# More than float32 loses in a sum over pixels, and half its spacing below 1, by which a pixel may be off.
SUM_ROUNDING, PIXEL_ROUNDING = 4e-6, 2.0**-25
TINY = torch.finfo(torch.float32).tiny
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


def _stepped(norm: str, images: torch.Tensor, gradient: torch.Tensor, length: float | torch.Tensor) -> torch.Tensor:
    """Images [..., h, w, c] plus the step of `length` (or [...]) in the norm that goes furthest along the gradient.

    May leave [0, 1], but for L1: there, pixels without room cannot move. Overwrites the gradient.
    """
    length = _over_pixels(length)
    match norm:
        case "linf":
            return gradient.sign_().mul_(length).add_(images)
        case "l2":
            flat = gradient.nan_to_num_(0.0, 0.0, 0.0).flatten(-3)
            # Scaled first, for squares overflow and vanish.
            flat /= torch.maximum(flat.amax(-1), -flat.amin(-1)).clamp(min=TINY)[..., None]
            size = torch.linalg.vector_norm(flat, dim=-1).clamp(min=TINY)
            return gradient.mul_(length / _over_pixels(size)).add_(images)
        case "l1":
            return _sparsely_stepped(images, gradient.nan_to_num_(0.0, 0.0, 0.0), length)


def _sparsely_stepped(images: torch.Tensor, gradient: torch.Tensor, length: float | torch.Tensor) -> torch.Tensor:
    """Spend the length on the pixels of steepest gradient first, each as far as [0, 1] lets it."""
    flat, slope = images.flatten(-3), gradient.flatten(-3)
    sign = slope.sign()
    room = (0.5 - flat).mul_(sign).add_(0.5)
    # 0 where a pixel cannot move, its slope elsewhere.
    score = room.mul_(ENOUGH_ROOM).clamp_(max=1).mul_(slope).abs_()
    chosen = score.topk(min(PIXELS, flat.shape[-1]), -1).indices
    sign, value = sign.gather(-1, chosen), flat.gather(-1, chosen)
    room = torch.where(sign > 0, 1 - value, torch.where(sign < 0, value, 0.0))
    length = length.flatten(-3) if isinstance(length, torch.Tensor) else length
    spent = torch.minimum((length - (room.cumsum(-1) - room)).clamp(min=0), room)
    return flat.scatter_add(-1, chosen, sign * spent).view_as(images)


def _retracted(norm: str, images: torch.Tensor, x: torch.Tensor, radius: float | torch.Tensor) -> torch.Tensor:
    """Images clipped to [0, 1], then drawn towards x until within the radius (or [...]) of it; overwrites them.

    Inside the ball and [0, 1] but for rounding; for L2 and L1 not quite the closest image.
    """
    displacement = images.clamp_(0, 1).sub_(x)
    if norm == "linf":
        radius = _over_pixels(radius)
        return displacement.clamp_(-radius, radius).add_(x)
    if norm == "l1":
        # Soft thresholding (Duchi et al. 2008): the threshold is where a convex, piecewise linear sum meets the radius.
        size = displacement.abs().flatten(-3)
        shrunk, threshold = size.clone(), torch.zeros_like(size[..., 0])
        for _ in range(NEWTON):
            over = (shrunk.sum(-1) - radius).clamp(min=0)
            threshold += over / shrunk.sign_().sum(-1).clamp(min=1)
            torch.sub(size, threshold[..., None], out=shrunk).relu_()
        displacement = displacement.sign_().mul_(shrunk.view_as(displacement))
    shrink = (radius / _length(norm, displacement).clamp(min=TINY)).clamp(max=1)
    return displacement.mul_(_over_pixels(shrink)).add_(x)


def _reach(ball: Ball, pixels: int) -> float:
    """A radius so much smaller than the ball's that what float32 takes for inside is inside."""
    off = PIXEL_ROUNDING * (pixels if ball.norm == "l1" else pixels**0.5)
    return max(ball.delta * (1 - SUM_ROUNDING) - off, 0.0)


def _annealed(step: int, steps: int) -> float:
    """From 1 at step 0 to 0 at `steps`, by a cosine; 1/2 on average."""
    return (1 + cos(pi * step / steps)) / 2


def _length(norm: str, displacement: torch.Tensor) -> torch.Tensor:
    """The float32 norm of displacements [..., h, w, c]."""
    flat = displacement.flatten(-3)
    match norm:
        case "linf":
            return torch.maximum(flat.amax(-1), -flat.amin(-1))
        case "l2":
            return torch.linalg.vector_norm(flat, dim=-1)
        case "l1":
            return flat.abs().sum(-1)


def _over_pixels(number: float | torch.Tensor) -> float | torch.Tensor:
    return number[..., None, None, None] if isinstance(number, torch.Tensor) else number


def attack(name: str, **settings: int) -> Attack:
    """The attack that a study calls `name`: fgsm, pgd (steps, restarts) or fmn (steps)."""
    return {"fgsm": Fgsm, "pgd": Pgd, "fmn": Fmn}[name](**settings)
