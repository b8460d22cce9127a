"""Attacks: perturbed points that are meant to violate robustness, for K networks × n points at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn import functional

from deltaball.local.neighbourhoods import LinfBall

Predict = Callable[[torch.Tensor], torch.Tensor]


class Attack(ABC):
    """A way to look for violations. Calling it projects and re-checks whatever `run` proposes."""

    def __call__(
        self, predict: Predict, x: torch.Tensor, networks: int, balls: Sequence[LinfBall]
    ) -> Iterator[torch.Tensor]:
        """For each ball, perturbed images [K, n, h, w, c] inside it, around images x [n, h, w, c].

        `predict` maps images [K, n, h, w, c] to logits [K, n, classes], network k seeing images [k]. The attacked
        class is the predicted one, never the label.
        """
        assert x.ndim == 4, f"images are [n, h, w, c], not {tuple(x.shape)}"
        start = x.expand(networks, *x.shape)
        for ball, candidate in zip(balls, self.run(predict, start, balls), strict=True):
            assert candidate.shape == start.shape
            # A NaN from a broken gradient is no perturbation; clamp would let it through.
            projected = ball.project(torch.where(candidate.isnan(), start, candidate), x)
            assert ball.contains(projected, x).all(), f"a perturbed point left {ball}"
            yield projected

    @abstractmethod
    def run(self, predict: Predict, x: torch.Tensor, balls: Sequence[LinfBall]) -> Iterator[torch.Tensor]:
        """One candidate [K, n, h, w, c] per ball, from points x already repeated to [K, n, h, w, c]."""


class Fgsm(Attack):
    """x + δ sign(∇ₓ cross-entropy of the predicted class) (Goodfellow et al. 2014; paper 004, Section 4.2).

    One gradient serves all balls. Where the gradient is zero in float32 (a saturated network) the point stays put.
    """

    def run(self, predict: Predict, x: torch.Tensor, balls: Sequence[LinfBall]) -> Iterator[torch.Tensor]:
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            logits = predict(leaf)
            predicted = logits.detach().argmax(-1)
            loss = functional.cross_entropy(logits.flatten(0, 1), predicted.flatten(), reduction="sum")
            (gradient,) = torch.autograd.grad(loss, leaf)
        direction = gradient.sign()
        for ball in balls:
            yield x + ball.delta * direction


def attack(name: str) -> Attack:
    """The attack that a study calls `name`."""
    return {"fgsm": Fgsm}[name]()
