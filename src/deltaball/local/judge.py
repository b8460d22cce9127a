"""What all judges of points have in common: attacks, certificates, the exact answer."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from deltaball.local.balls import Ball
from deltaball.local.notions import Notion
from deltaball.networks.models import Model


@dataclass(frozen=True)
class Verdict:
    """What a judge says of K networks × n points, for one ball and notion."""

    outcome: torch.Tensor  # [K, n] float32; NaN where it could not decide
    # [K, n, h, w, c] float32, in the ball and in [0, 1]: the worst image found; NaN where there is none. Certificates
    # have none at all.
    perturbed: torch.Tensor | None = None
    no_gradient: torch.Tensor | None = None  # [K, n] bool: the cross-entropy's gradient is 0 in every pixel


class Judge(ABC):
    """Finds violations of points, proves that there are none, or decides: ``deltaball.study.judges`` says which."""

    @abstractmethod
    def __call__(
        self, model: Model, x: torch.Tensor, asked: Mapping[Ball, Sequence[Notion]], keys: Sequence[int]
    ) -> Iterator[tuple[Ball, Notion, Verdict]]:
        """A verdict for each of the notions `asked` of a ball around the float32 images x [n, h, w, c] in [0, 1].

        `keys` [n] are the points' own numbers, from which everything random is drawn.
        """
