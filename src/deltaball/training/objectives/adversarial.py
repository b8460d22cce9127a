"""Training on perturbed images: drawn at random, or found by an attack inside the step."""

import torch
from torch.nn import functional

from deltaball.local import logics
from deltaball.local.logics import LOGICS, Situation
from deltaball.networks.models import Layered
from deltaball.study.constraints import parsed
from deltaball.study.objectives import LABEL
from deltaball.training.objectives.cross_entropy import cross_entropy, cross_entropy_each
from deltaball.training.objectives.inner import Raised, ascended, gaussian, noisy
from deltaball.training.objectives.objective import Batch, Objective

# How far from an image TRADES and MART begin, as a share of the radius: at the image itself their loss has no slope.
BEGINNING = 0.01


class Augmented(Objective):
    """The mean cross-entropy of the images and of copies of them: noisy, or moved by one step of FGSM.

    Paper 001, Section 4's data augmentation, and with Gaussian noise that of paper 003, which leaves open how many
    images are noisy and whether they are clipped; here half are with one copy, and they are. Copies are made anew in
    every step, and of the training images.
    """

    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        copies, radius = self.axes["copies"], batch.axes["radius"]
        total = cross_entropy(networks(batch.images), batch.labels)
        for _ in range(copies):
            total = total + cross_entropy(networks(self._copy(networks, batch, radius)), batch.labels)
        return total / (1 + copies)

    def _copy(self, networks: Layered, batch: Batch, radius: torch.Tensor) -> torch.Tensor:
        if self.axes["noise"] == "gaussian":
            return gaussian(batch, radius)
        images = noisy(batch, radius)
        if self.axes["noise"] == "uniform":
            return images
        return ascended(networks, batch, radius, 1, _label(batch), images)


class Adversarial(Objective):
    """The cross-entropy at images that an attack found (Madry et al. 2018, Equation 2.1).

    The attack starts at random and raises the cross-entropy of the label, or, `against` a constraint, what violates it:
    paper 001 calls it adversarial training against standard robustness.
    """

    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        against, radius = self.axes["against"], batch.axes["radius"]
        if against == LABEL:
            raised = _label(batch)
        else:
            original = networks.fixed()(batch.images).detach()
            raised = violating(against, LOGICS["dl2"], batch, original)
        attacked = ascended(networks, batch, radius, self.axes["attack_steps"], raised, noisy(batch, radius))
        return cross_entropy(networks(attacked), batch.labels)


class Constrained(Objective):
    """alpha × cross-entropy + beta × the loss of a constraint at images that violate it (paper 001, Section 2).

    f(x0) is part of what is differentiated, as in the authors' code. The attack raises the constraint's loss less its
    negation's, which has a slope everywhere; the authors' stops where the constraint is barely violated.
    """

    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        constraint, logic, radius = self.axes["constraint"], LOGICS[self.axes["logic"]], batch.axes["radius"]
        original = networks(batch.images)
        raised = violating(constraint, logic, batch, original.detach())
        attacked = ascended(networks, batch, radius, self.axes["attack_steps"], raised, noisy(batch, radius))
        situation = Situation(networks(attacked), original, attacked, batch.images, batch.labels)
        violation = logics.loss(parsed(constraint), situation, logic).mean(1)
        return batch.axes["alpha"] * cross_entropy(original, batch.labels) + batch.axes["beta"] * violation


class Trades(Objective):
    """Cross-entropy + beta × the divergence of the softmax at attacked images from that at the images.

    Zhang et al. 2019, "Theoretically principled trade-off between robustness and accuracy", Equation 5, as their code
    has it: KL(p(x0) ‖ p(x)), which the attack raises too.
    """

    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        original = networks(batch.images)
        attacked = _diverging(self, networks, batch, original.detach())
        divergence = _divergence(original, networks(attacked)).mean(1)
        return cross_entropy(original, batch.labels) + batch.axes["beta"] * divergence


class Mart(Objective):
    """Boosted cross-entropy at attacked images + beta × the divergence there, weighted by 1 - p(label at the image).

    Wang et al. 2020, "Improving adversarial robustness requires revisiting misclassified examples", Equation 9.
    """

    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        radius, labels = batch.axes["radius"], batch.labels[..., None]
        attacked = ascended(
            networks, batch, radius, self.axes["attack_steps"], _label(batch), _beginning(batch, radius)
        )
        original, moved = networks(batch.images), networks(attacked)
        others = moved.log_softmax(-1).scatter(-1, labels, -torch.inf).amax(-1)
        # log(1 - p) of the likeliest other class; p rounds to 1 where it is certain.
        margin = torch.log1p(-others.exp().clamp(max=1 - 1e-6))
        boosted = cross_entropy_each(moved, batch.labels) - margin
        doubt = 1 - original.softmax(-1).gather(-1, labels).squeeze(-1)
        return (boosted + batch.axes["beta"][:, None] * doubt * _divergence(original, moved)).mean(1)


def violating(constraint: str, logic: logics.Logic, batch: Batch, original: torch.Tensor) -> Raised:
    """What an attack raises to violate a constraint; `original` [K, n, classes] are the logits at the images."""
    formula = parsed(constraint)
    return lambda logits, images: logics.opposed(
        formula, Situation(logits, original, images, batch.images, batch.labels), logic
    )


def _label(batch: Batch) -> Raised:
    return lambda logits, images: cross_entropy_each(logits, batch.labels)


def _diverging(objective: Objective, networks: Layered, batch: Batch, original: torch.Tensor) -> torch.Tensor:
    radius = batch.axes["radius"]
    return ascended(
        networks,
        batch,
        radius,
        objective.axes["attack_steps"],
        lambda logits, images: _divergence(original, logits),
        _beginning(batch, radius),
    )


def _beginning(batch: Batch, radius: torch.Tensor) -> torch.Tensor:
    return noisy(batch, BEGINNING * radius)


def _divergence(original: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    """KL(softmax of the first ‖ softmax of the second), [K, n]."""
    return functional.kl_div(moved.log_softmax(-1), original.log_softmax(-1), reduction="none", log_target=True).sum(-1)
