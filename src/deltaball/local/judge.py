"""What all judges of points have in common: attacks, certificates, the exact answer, samples."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from deltaball.local.balls import Ball
from deltaball.local.kernels.kernel import Kernel
from deltaball.local.notions import Notion
from deltaball.networks.models import Model

Around = Ball | Kernel  # where images around a point are sought, or from where they are drawn


@dataclass(frozen=True)
class Verdict:
    """What a judge says of K networks × n points, for one ball (or kernel) and notion."""

    outcome: torch.Tensor  # [K, n] float32; NaN where it could not decide; of a sample the mean
    # [K, n, h, w, c] float32, in the ball and in [0, 1]: the worst image found; NaN where there is none. Certificates
    # and samples have none at all.
    perturbed: torch.Tensor | None = None
    no_gradient: torch.Tensor | None = None  # [K, n] bool: the cross-entropy's gradient is 0 in every pixel
    found_by: torch.Tensor | None = None  # [K, n] int8, of an ensemble: which of its attacks, by its place; -1 for none


class Judge(ABC):
    """Finds violations, proves that there are none, decides or samples: ``deltaball.study.judges`` says which."""

    @abstractmethod
    def __call__(
        self,
        model: Model,
        x: torch.Tensor,
        asked: Mapping[Around, Sequence[Notion]],
        keys: Sequence[int],
        labels: torch.Tensor | None = None,
    ) -> Iterator[tuple[Around, Notion, Verdict]]:
        """A verdict for each of the notions `asked` of a ball or a kernel, around each image of x.

        `x` are float32 images [n, h, w, c] in [0, 1]; `keys` [n] are the points' own numbers, from which everything
        random is drawn; `labels` are int64 [n] on x's device, and may be left out where no notion needs them.
        """
