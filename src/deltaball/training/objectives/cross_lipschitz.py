"""Cross-entropy, and how fast the differences of logits change with the image."""

import torch

from deltaball.networks.models import Layered
from deltaball.training.objectives.cross_entropy import cross_entropy
from deltaball.training.objectives.objective import Batch, Objective


class CrossLipschitz(Objective):
    """Cross-entropy + beta × Ω of the logits (Hein & Andriushchenko 2017, Equation 4; HEIN of papers 000 and 003).

    Ω = 1 / (n C²) Σᵢ Σ_{l,m} ‖∇f_l(xᵢ) - ∇f_m(xᵢ)‖², with C classes and all pairs of them, l = m too. `slopes: all`
    takes the gradient of every logit, for the inner sum is 2 C Σ_l ‖∇f_l‖² - 2 ‖Σ_l ∇f_l‖². `slopes: random` takes that
    of one combination of logits for each image, with random signs less their mean (Hutchinson): its mean over signs is
    Ω. In networks with batch normalisation an image's logits depend on its minibatch, and so do these gradients.
    """

    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        images = batch.images.detach().requires_grad_()
        logits = networks(images)
        slopes = _every_slope if self.axes["slopes"] == "all" else _random_slope
        penalty = slopes(logits, images, batch)
        return cross_entropy(logits, batch.labels) + batch.axes["beta"] * penalty


def _every_slope(logits: torch.Tensor, images: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Ω [K]."""
    classes = logits.shape[-1]
    squares, total = 0.0, 0.0
    for one in range(classes):
        slope = _slope(logits[..., one], images)
        squares, total = squares + _square(slope), total + slope
    return 2 * (classes * squares - _square(total)).mean(1) / classes**2


def _random_slope(logits: torch.Tensor, images: torch.Tensor, batch: Batch) -> torch.Tensor:
    """An estimate of Ω [K]. Σ_{l,m} ‖∇f_l - ∇f_m‖² = 2 C E ‖Σ_l (s_l - mean of s) ∇f_l‖² for random signs s."""
    signs = (2 * batch.draws.uniform(logits.shape[1:])).floor() * 2 - 1
    slope = _slope((logits * (signs - signs.mean(-1, keepdim=True))).sum(-1), images)
    return 2 * _square(slope).mean(1) / logits.shape[-1]


def _slope(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The gradient of values [K, n] by images [K, n, h, w, c], itself to be differentiated by the weights."""
    return torch.autograd.grad(values.sum(), images, create_graph=True)[0]


def _square(slope: torch.Tensor) -> torch.Tensor:
    """‖·‖² [K, n]."""
    return slope.flatten(2).square().sum(2)
