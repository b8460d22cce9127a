"""Training paired auto-encoders (paper 003, Section 4 and Appendix B): E, D1 and D2 at once, without labels.

The paper says Adam with rate 0.001, minibatches of 32, 100 epochs. What it leaves open is settled so:

- The reconstruction loss is the squared error of an image, the mean over pixels and images. Adam's steps do not depend
  on its scale.
- A step takes a minibatch of clean images and one of corrupted images, and the sum of both losses: so E and D2 see
  corrupted images as often as E and D1 see clean ones, however few there are. An epoch is a pass over the clean images.
  The corrupted ones are gone through in an order of their own, and again in another one when they end.
- No epoch is chosen: the weights are those after the last.
- Which images are for what: `transfers.Pair.split`. No image is seen in both ways.

All that is random is drawn by id and epoch, so training again, or going on after a kill, gives the same.
"""

import time
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch

from deltaball.base.draws import generator
from deltaball.base.statuses import DIVERGED, TRAINED
from deltaball.data.catalogue import DatasetFacts
from deltaball.data.datasets import Dataset
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pass
from deltaball.plan.batches import EVALUATION_BATCH
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Checkpoint, Store
from deltaball.study.transfers import Pair
from deltaball.training.descent import missing_steps, provenance
from deltaball.training.index_sets import IndexSets, corrupted_images, sharing_sets
from deltaball.training.progress import SILENT, Progress

# A job that is killed begins again with what it kept last, at most so many seconds and an epoch before.
KEPT_EVERY = 60.0

HISTORY = ("error", "corrupted_error")


def train(
    trajectories: Sequence[Trajectory],
    layers: Layers,
    dataset: Dataset,
    store: Store,
    device: str,
    progress: Progress = SILENT,
) -> int:
    """Train the pairs that the store lacks, one after another; returns how many.

    A checkpoint's weights are those of T = D1∘E, its state has those of D2 (`second.0` …) and the mean errors of each
    epoch's minibatches, its facts the error on all test images, which are clean.
    """
    lacking = [one for one in trajectories if missing_steps(one, store)]
    for one in lacking:
        store.note("began", one.id, one.checkpoints[-1])
        _Pairing(one, dataset, store, device, progress).run()
        progress.finish(1)
    return len(lacking)


def sets_of(pair: Pair, facts: DatasetFacts) -> IndexSets:
    """Which training images a pair learns from clean, and which under which corruption."""
    entry = pair.entry
    return sharing_sets(facts, pair.corruptions, entry.corrupted_images, pair.seed, pair.split(facts.train))


class _Coders(NamedTuple):
    """E, D1 and D2 with their weights; D2 has none where no image is corrupted."""

    encoder: Layers
    decoder: Layers
    weights: tuple[list[torch.Tensor], ...]

    def reconstructed(self, images: torch.Tensor, decoder: int) -> torch.Tensor:
        """Images [n, h, w, c] through E and D1 or D2."""
        codes = _through(self.encoder, self.weights[0], images)
        return _through(self.decoder, self.weights[decoder], codes)

    def error(self, images: torch.Tensor, decoder: int) -> torch.Tensor:
        """The mean squared error of what a decoder makes of the codes of `images` [n, h, w, c]."""
        return (self.reconstructed(images, decoder) - images).square().mean()


class _Pairing:
    """One pair, as far as it is trained."""

    def __init__(self, one: Trajectory, dataset: Dataset, store: Store, device: str, progress: Progress) -> None:
        (self.pair,) = one.axes["pairs"]
        self.id, self.epochs, self.store, self.device, self.progress = (
            one.id,
            one.checkpoints[-1],
            store,
            device,
            progress,
        )
        self.dataset = dataset
        sets = sets_of(self.pair, dataset.facts)
        self.clean = torch.from_numpy(dataset.x_train[sets.clean]).to(device)
        self.corrupted = torch.from_numpy(corrupted_images(dataset, sets, store)).to(device)
        self.batch = min(self.pair.entry.batch_size, len(self.clean))
        self.steps = len(self.clean) // self.batch  # of an epoch
        encoder, decoder = self.pair.encoder(dataset.facts.shape), self.pair.decoder(dataset.facts.shape)
        parts = (encoder, decoder, decoder)[: 2 + bool(self.pair.corruptions)]
        start = generator(self.id, "initial weights")
        weights = tuple([self._there(array) for array in initial_weights(part, start)] for part in parts)
        self.coders = _Coders(encoder, decoder, weights)
        self.every = [*chain(*weights)]
        self.optimizer = torch.optim.Adam(self.every, self.pair.entry.learning_rate, fused=True)
        self.order = -1, np.empty(0, np.int64)  # of which pass over the corrupted images, and that
        self.told: list[tuple[float, ...]] = []

    def run(self) -> None:
        """Train to the last epoch, from the last checkpoint; a loss that is not a number ends it and is kept."""
        self._go_on()
        kept = time.monotonic()
        while len(self.told) < self.epochs:
            self.told.append(self._epoch(len(self.told)))
            if not np.isfinite(self.told[-1]).all():
                facts = {"status": DIVERGED, "reason": "its loss is not a number; try a smaller learning_rate"}
                self.store.save(self.id, self.epochs, Checkpoint((), {}, {**self._facts(), **facts}))
                break
            if len(self.told) < self.epochs and time.monotonic() - kept >= KEPT_EVERY:
                self._keep(self._moments())
                kept = time.monotonic()
        else:
            self._keep({}, test_error=self._test_error())
        self.store.forget(self.id, [step for step in self.store.steps(self.id) if step != self.epochs])

    def _there(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device).requires_grad_()

    @torch.no_grad()
    def _go_on(self) -> None:
        """Take up what an earlier run kept last."""
        for step in reversed(self.store.steps(self.id)):
            if step < self.epochs and (found := self.store.find(self.id, step)):
                second = [found.state[f"second.{place}"] for place in range(len(self.every) - len(found.weights))]
                for place, array in enumerate([*found.weights, *second]):
                    self.every[place].copy_(torch.from_numpy(array))
                    moments = (torch.from_numpy(found.state[f"moment{n}.{place}"]).to(self.device) for n in (1, 2))
                    state = dict(zip(("exp_avg", "exp_avg_sq"), moments, strict=True))
                    count = torch.tensor(float(step * self.steps), device=self.device)
                    self.optimizer.state[self.every[place]] = {"step": count, **state}
                self.told = [*zip(*(found.state[name].tolist() for name in HISTORY), strict=True)]
                return

    def _epoch(self, epoch: int) -> tuple[float, ...]:
        """One pass over the clean images, but for those that fill no minibatch; the mean errors of its steps."""
        order = generator(self.id, "epoch", epoch).permutation(len(self.clean))
        sums = []
        for step in range(self.steps):
            errors = [self.coders.error(self._batch(self.clean, order[step * self.batch : (step + 1) * self.batch]), 1)]
            if len(self.corrupted):
                errors.append(self.coders.error(self._next_corrupted(epoch * self.steps + step), 2))
            self.optimizer.zero_grad()
            sum(errors).backward()
            self.optimizer.step()
            sums.append([error.detach() for error in errors])
            self.progress.advance(self.batch * len(errors))
        means = torch.tensor(sums, dtype=torch.float64).mean(0).tolist()
        return means[0], means[-1] if len(self.corrupted) else 0.0

    def _next_corrupted(self, step: int) -> torch.Tensor:
        """The corrupted images of a step, counted from the first of all epochs; passes follow on each other."""
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        turns, places = np.divmod(places, len(self.corrupted))
        chosen = [self._order(turn)[places[turns == turn]] for turn in np.unique(turns)]
        return self._batch(self.corrupted, np.concatenate(chosen))

    def _order(self, turn: int) -> np.ndarray:
        """The order of corrupted images in a pass over them."""
        if self.order[0] != turn:
            self.order = turn, generator(self.id, "corrupted", turn).permutation(len(self.corrupted))
        return self.order[1]

    def _batch(self, images: torch.Tensor, chosen: np.ndarray) -> torch.Tensor:
        return images[torch.from_numpy(chosen).to(self.device)]

    @torch.no_grad()
    def _test_error(self) -> float:
        images = torch.from_numpy(self.dataset.x_test).to(self.device)
        parts = [self.coders.error(part, 1).item() * len(part) for part in images.split(EVALUATION_BATCH)]
        return sum(parts) / len(images)

    def _keep(self, further: dict[str, np.ndarray], **facts: float) -> None:
        first, second = ([weight.detach().cpu().numpy() for weight in part] for part in self._parted())
        history = dict(zip(HISTORY, np.float64(self.told).T.copy(), strict=True))
        state = {**history, **{f"second.{place}": array for place, array in enumerate(second)}, **further}
        checkpoint = Checkpoint(tuple(first), state, {**self._facts(), "status": TRAINED, **facts})
        self.store.save(self.id, len(self.told), checkpoint)

    def _parted(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The weights of T, and of D2."""
        encoder, *decoders = self.coders.weights
        return [*encoder, *decoders[0]], [*chain(*decoders[1:])]

    def _moments(self) -> dict[str, np.ndarray]:
        states = [self.optimizer.state[weight] for weight in self.every]
        return {
            f"moment{n}.{place}": state[name].cpu().numpy()
            for n, name in ((1, "exp_avg"), (2, "exp_avg_sq"))
            for place, state in enumerate(states)
        }

    def _facts(self) -> dict[str, object]:
        return {**provenance(self.dataset, self.device), "kind": "paired auto-encoders"}


def _through(layers: Layers, weights: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """What layers give for images or codes, [n, ...], as one network."""
    return Pass().through(layers, [weight[None] for weight in weights], x[None])[0]
