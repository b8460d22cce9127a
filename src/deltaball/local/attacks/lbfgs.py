"""The closest image of another class by L-BFGS-B: the first of attacks, and the baseline of paper 002."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, minimize
from torch.nn import functional

from deltaball.local.attacks.closest import Nearest, NearestViolation
from deltaball.local.attacks.confirming import Confirming
from deltaball.local.balls import GEOMETRY
from deltaball.local.losses import margin
from deltaball.local.points import Points
from deltaball.local.references import Reference

# Of the minimiser, as Tabacof and Valle have them: how many steps it remembers, and how many images it may look at.
REMEMBERED, LOOKS = 15, 150
# It ends where a step gains less than this share. With scipy's own 2e-9 it looks at six times as many images on MNIST,
# and what it finds is as far away (medians of the ratios: 0.995 to 0.999).
GAINED = 1e-4

# C begins here and is raised by such factors until the minimum is not of the target, or C is as large as float32 bears;
# then it is bisected until it is known to so much, or, where that is more, to such a share.
FIRST, FACTOR, LARGEST, WIDTH, SHARE = 0.01, 10.0, 1e8, 0.001, 0.001


@dataclass(frozen=True)
class Lbfgs(NearestViolation):
    """The attack of Szegedy et al. 2014 as in Tabacof and Valle 2016 ("Exploring the space of adversarial images").

    L-BFGS-B minimises C ‖r‖₂² + the cross-entropy of a target class at x + r, in [0, 1], for the largest C at which the
    minimum is of the target; each search begins at the last minimum that was. Targets, α and rounding are those of
    `LinearRegion`. Of all minima of a target the closest in the ball's norm counts.

    It takes one point of one network after the other.
    """

    alpha: float = 0.0
    targets: int = 1
    rounded_to: int = 0

    def nearest(self, points: Points, norm: str, reference: Reference, lead: float) -> Nearest:
        images = points.images.clone()
        leads = margin(reference.logits, reference.classes)
        for k in range(len(points.model)):
            confirming = Confirming(points.model.one(k), max(lead, self.alpha), self.rounded_to)
            found: dict[int, torch.Tensor] = {}  # by key, for points that fill up repeat others
            for place, key in enumerate(points.keys):
                if key not in found:
                    x, kept = points.x[place], int(reference.classes[k, place])
                    others = points.logits[k, place].argsort(descending=True).tolist()
                    others = [one for one in others if one != kept][: self.targets] if leads[k, place] > 0 else []
                    minima = [x, *(image for target in others for image in _minima(confirming, x, target))]
                    lengths = GEOMETRY[norm].length(torch.stack(minima) - x)
                    lengths[0] = torch.inf
                    found[key] = minima[int(lengths.argmin())]
                images[k, place] = found[key]
        return Nearest(images)


def _minima(confirming: Confirming, x: torch.Tensor, target: int) -> Iterator[torch.Tensor]:
    """The minima [h, w, c] that were of the target, of all C that were tried."""
    begin, low, high = x, 0.0, FIRST
    while high < LARGEST:
        minimum = confirming.first(_minimum(confirming, x, target, high, begin)[None], target)
        if minimum is None:
            break
        yield minimum
        begin, low, high = minimum, high, high * FACTOR
    while high - low > max(WIDTH, SHARE * high):
        middle = (low + high) / 2
        minimum = confirming.first(_minimum(confirming, x, target, middle, begin)[None], target)
        if minimum is None:
            high = middle
        else:
            yield minimum
            begin, low = minimum, middle


def _minimum(confirming: Confirming, x: torch.Tensor, target: int, c: float, begin: torch.Tensor) -> torch.Tensor:
    """Of C ‖image - x‖₂² + the cross-entropy of the target, from an image [h, w, c] on."""
    model, wanted = confirming.model, torch.tensor([target], device=x.device)

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        image = torch.from_numpy(flat.astype(np.float32)).view(x.shape).to(x.device).requires_grad_()
        with torch.enable_grad():
            total = functional.cross_entropy(model(image[None])[0], wanted) + c * (image - x).square().sum()
            (gradient,) = torch.autograd.grad(total, image)
        return total.item(), gradient.flatten().cpu().numpy().astype(np.float64)

    found = minimize(
        value,
        begin.flatten().cpu().numpy().astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(np.zeros(x.numel()), np.ones(x.numel())),  # of numbers it takes twice as long
        options={"maxcor": REMEMBERED, "maxfun": LOOKS, "ftol": GAINED},
    )
    return torch.from_numpy(found.x.astype(np.float32)).view(x.shape).to(x.device).clamp(0, 1)
