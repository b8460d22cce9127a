"""The best epoch so far of each network of a pack, by its accuracy on training images that were held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from deltaball.store.store import Checkpoint, listed


@dataclass(frozen=True)
class Best:
    """The epoch with the highest accuracy so far, of equal ones the first, and the weights it ended with."""

    epoch: int
    accuracy: float
    weights: Sequence[np.ndarray]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Best | None":
        """What a checkpoint says of it; None where no epoch was chosen."""
        if "chosen_epoch" not in checkpoint.facts:
            return None
        chosen = [*checkpoint.weights, *listed(checkpoint.state, "generator")]
        return cls(checkpoint.facts["chosen_epoch"], checkpoint.facts["validation_accuracy"], chosen)


class Choice:
    """The best epochs of K networks; tensors are [K, ...]."""

    def __init__(self, known: Sequence[Best | None], weights: Sequence[torch.Tensor]) -> None:
        self.weights = [weight.clone() for weight in weights]
        device = weights[0].device
        self.accuracy = torch.tensor([one.accuracy if one else -1.0 for one in known], dtype=torch.float64).to(device)
        self.epoch = torch.tensor([one.epoch if one else 0 for one in known]).to(device)
        for k, one in enumerate(known):
            for ours, theirs in zip(self.weights, one.weights if one else (), strict=bool(one)):
                ours[k] = torch.from_numpy(theirs)

    def consider(self, epoch: int, accuracy: torch.Tensor, weights: Sequence[torch.Tensor]) -> None:
        """Take the weights after an epoch where the accuracy [K] is higher than every one before."""
        better = accuracy > self.accuracy
        self.accuracy[better], self.epoch[better] = accuracy[better], epoch
        for ours, theirs in zip(self.weights, weights, strict=True):
            ours[better] = theirs[better]

    def keep(self, part: torch.Tensor) -> None:
        """Go on with some of the networks."""
        self.weights = [weight[part] for weight in self.weights]
        self.accuracy, self.epoch = self.accuracy[part], self.epoch[part]

    def facts(self, k: int) -> Mapping[str, Any]:
        """What the tables say of a network."""
        return {"chosen_epoch": self.epoch[k].item(), "validation_accuracy": self.accuracy[k].item()}
