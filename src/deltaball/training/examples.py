"""Adversarial examples of training images, which fine-tuning learns from (paper 002, Section 5).

They are sought piece by piece, and each piece is kept beside the network that it was found against. What is found for
an image depends on network, search and image alone: not on other images, nor on a kill.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property, reduce
from operator import add
from typing import Any

import numpy as np
import torch

from deltaball.base.draws import generator
from deltaball.data.catalogue import DatasetFacts
from deltaball.data.datasets import Dataset
from deltaball.local.balls import Ball
from deltaball.local.judges import judge
from deltaball.local.losses import SHORT, hair, shortage
from deltaball.local.notions import ClearChange
from deltaball.local.points import filled
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pack
from deltaball.plan.networks import CheckpointId
from deltaball.store.examples import Examples, Place
from deltaball.store.store import Store
from deltaball.study.judges import JUDGES
from deltaball.study.methods import METHODS
from deltaball.training.progress import SILENT, Progress
from deltaball.training.splits import seen_points

PIECE = 256  # images that are searched at once, and kept together: what a kill can lose

# A level's share by which float32 may place an image beside its level.
SLACK = 1e-3

# What the examples that were found under an earlier version of this file are not mistaken for.
VERSION = 1


def drawn(facts: DatasetFacts, axes: Mapping[str, Any]) -> np.ndarray:
    """Of which training images, by their indices int64 [n], examples are sought; fewer are the first of more."""
    seen = seen_points(facts, axes)
    order = generator(f"{facts.name} {facts.fingerprint} {axes['seed']}", "images of examples").permutation(len(seen))
    return seen[order][: axes["examples"]]


def pixels(levels: np.ndarray) -> np.ndarray:
    """Images of 256 levels as float32 in [0, 1], as data sets have them."""
    return levels.astype(np.float32) / np.float32(255)


class Search:
    """The search for examples against one network of the store; `axes` are those of a round of fine-tuning."""

    def __init__(
        self,
        network: CheckpointId,
        axes: Mapping[str, Any],
        layers: Layers,
        dataset: Dataset,
        store: Store,
        device: str,
        progress: Progress = SILENT,
    ) -> None:
        self.network, self.axes, self.layers, self.dataset = network, axes, layers, dataset
        self.store, self.device, self.progress = store, device, progress

    def examples(self) -> Examples:
        """What is found in all pieces, in the order in which the images were drawn.

        Every example is an image of 256 levels within the cap of its image, and the network gives it another class than
        the image, which is not the label either.
        """
        points = drawn(self.dataset.facts, self.axes)
        pieces = [range(first, min(first + PIECE, len(points))) for first in range(0, len(points), PIECE)]
        return reduce(add, [self._piece(points, images) for images in pieces])

    def _piece(self, points: np.ndarray, images: range) -> Examples:
        place = Place(self.network, self._name, images)
        found = self.store.find_examples(place)
        if found is None:
            found = self._found(points[images.start : images.stop])
            self.store.save_examples(place, found)
            # A step is worth three forward passes.
            self.progress.advance(len(images) * self._passes / 3)
        return found

    @cached_property
    def _name(self) -> str:
        content = {name: self.axes[name] for name in ("adversary", "cap", "lead")}
        content |= {**JUDGES[self.axes["adversary"]].settings, **self._settings, "version": VERSION}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def _settings(self) -> dict[str, float]:
        """Of the attack, that are not its defaults: those which take the lead as a setting do not read the notion's."""
        takes = JUDGES[self.axes["adversary"]].settings
        return {"alpha": self.axes["lead"]} if "alpha" in takes else {}

    @cached_property
    def _passes(self) -> float:
        """Of one image."""
        whole, _ = METHODS["finetune"].searching({**self.axes, "examples": 1}, 1, self.layers)
        return whole

    @cached_property
    def _model(self) -> Pack:
        return Pack.of(self.layers, [self.store.weights(*self.network)], self.device)

    @torch.no_grad()
    def _found(self, points: np.ndarray) -> Examples:
        """What is found for these training images."""
        rows = points[filled(len(points))]
        x, labels = (
            torch.from_numpy(one[rows]).to(self.device) for one in (self.dataset.x_train, self.dataset.y_train)
        )
        lead, cap = self.axes["lead"], self.axes["cap"]
        asked = {Ball("linf", cap): [ClearChange(lead)]}
        attack = judge(self.axes["adversary"], **self._settings)
        ((_, _, verdict),) = attack(self._model, x, asked, rows.tolist(), labels)
        predicted = self._model(x).argmax(-1, keepdim=True)

        def misled(images: torch.Tensor, lead: float) -> torch.Tensor:
            """[n]: whether the class of images [n, h, w, c] is another one, leads by `lead`, and is not the label."""
            logits = self._model(images)
            # Clearly so: training and tests may compute the logits in other batches.
            clear = shortage(logits, predicted, lead) < -hair(logits)
            return (clear & (logits.argmax(-1) != labels))[0]

        found = misled(verdict.perturbed[0], lead * (1 - SHORT))
        levels, there = rounded(verdict.perturbed[0], x, cap)
        kept = found & there & misled(torch.from_numpy(pixels(levels)).to(self.device), 0.0)
        found, kept = (one.cpu().numpy()[: len(points)] for one in (found, kept))
        return Examples(levels[: len(points)][kept], points[kept], len(points), int((found & ~kept).sum()))


def rounded(images: torch.Tensor, x: torch.Tensor, cap: float) -> tuple[np.ndarray, torch.Tensor]:
    """The nearest levels, uint8 [n, h, w, c], within the cap of x; and whether there are any, [n]."""
    center = 255 * x.double()
    lowest = (center - 255 * cap - SLACK).ceil().clamp(min=0)
    highest = (center + 255 * cap + SLACK).floor().clamp(max=255)
    levels = (255 * images.double().nan_to_num()).round().maximum(lowest).minimum(highest).clamp(0, 255)
    return levels.to(torch.uint8).cpu().numpy(), (lowest <= highest).flatten(1).all(1)
