"""Images of a decoder near a point: the manifold of a data set, as an auto-encoder has it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deltaball.base.draws import generator
from deltaball.local.kernels.kernel import Sized
from deltaball.plan.batches import IMAGES_MULTIPLE


@dataclass(frozen=True)
class OnManifold(Sized):
    """D(E(x) + σ z): the point's code with Gaussian noise, decoded (papers 000 and 003: on-manifold).

    The decoder does not give the point back, so with a small σ images are near the point's reconstruction, and not near
    the point. Codes of a Wasserstein auto-encoder have about unit variance in each number.
    """

    autoencoder: str = ""

    def draws(self, x: torch.Tensor, keys: Sequence[int]) -> Iterator[torch.Tensor]:
        model = self.known.autoencoders[self.autoencoder]
        random = [(generator("on manifold", key), generator("on manifold", "size", key)) for key in keys]
        # So many at a time whatever the pack, for products of other sizes may round differently.
        with torch.no_grad():
            codes = torch.cat([model.encode(part) for part in x.split(IMAGES_MULTIPLE)])
        while True:
            noise = np.stack([own.standard_normal(codes.shape[1], dtype=np.float32) for own, _ in random])
            sizes = self.sizes([own for _, own in random]).astype(np.float32)[:, None]
            moved = codes + torch.from_numpy(sizes * noise).to(x.device)
            with torch.no_grad():
                images = torch.cat([model.decode(part) for part in moved.split(IMAGES_MULTIPLE)])
            yield images
