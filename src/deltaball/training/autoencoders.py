"""Training auto-encoders: the squared error of images, and of Wasserstein ones how far codes are from normal.

Tolstikhin et al. 2018, "Wasserstein auto-encoders", with the penalty by maximum mean discrepancy, as their code has it
for MNIST: 0.05 × the squared error of an image + λ × the discrepancy of a minibatch, by Adam with β₁ = 0.5. A plain one
is the same without the discrepancy. All that is random is drawn by id and epoch, so training again gives the same.
"""

from collections.abc import Sequence

import numpy as np
import torch

from deltaball.base.draws import generator
from deltaball.base.statuses import DIVERGED, TRAINED
from deltaball.data.datasets import Dataset
from deltaball.networks.autoencoders import AutoEncoder, drawn_weights
from deltaball.networks.coders import Coders
from deltaball.plan.autoencoders import AutoEncoding
from deltaball.plan.batches import EVALUATION_BATCH
from deltaball.store.store import Checkpoint, Store
from deltaball.training.descent import provenance

ERROR_WEIGHT = 0.05
BETAS = (0.5, 0.999)

# Of the kernels C / (C + ‖a - b‖²): C is so many times 2 × the length of codes, which is what ‖a - b‖² is on average.
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def trained(training: AutoEncoding, dataset: Dataset, store: Store, device: str = "cpu") -> AutoEncoder:
    """An auto-encoder from the store; trained, and kept there, where that lacks it.

    The checkpoint's state has the mean `error` and `discrepancy` of each epoch; its facts those of all test images.
    Raises FloatingPointError where training diverged.
    """
    entry = training.entry
    coders = entry.coders(dataset.facts.shape)
    found = store.find(training.id, entry.epochs)
    if found is None:
        found = _train(training, coders, dataset, device)
        store.save(training.id, entry.epochs, found)
    if found.facts["status"] == DIVERGED:
        raise FloatingPointError(f"auto-encoder '{entry.name}' diverged; try a smaller learning_rate")
    return AutoEncoder.of(coders, found.weights, device)


def discrepancy(codes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The squared maximum mean discrepancy of two samples [n, latent], estimated; it may be negative.

    A sum over SCALES of inverse multiquadrics; within a sample no code is compared with itself.
    """
    count, latent = codes.shape
    total = codes.new_zeros(())
    for scale in SCALES:
        constant = 2 * latent * scale
        own, theirs, across = (
            constant / (constant + _apart(a, b)) for a, b in ((codes, codes), (others, others), (codes, others))
        )
        # A code's kernel with itself is 1.
        within = (own.sum() + theirs.sum() - 2 * count) / (count * (count - 1))
        total = total + within - 2 * across.mean()
    return total


def _apart(codes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """‖a - b‖² [n, m]."""
    return (codes[:, None] - others[None]).square().sum(-1)


def _train(training: AutoEncoding, coders: Coders, dataset: Dataset, device: str) -> Checkpoint:
    entry = training.entry
    weights = AutoEncoder.of(coders, drawn_weights(coders, generator(training.id, "initial weights")), device).weights
    model = AutoEncoder(coders, [weight.requires_grad_() for weight in weights])
    optimizer = torch.optim.Adam(model.weights, entry.learning_rate, BETAS)
    images = torch.from_numpy(dataset.x_train).to(device)
    told = [_epoch(training, model, optimizer, images, epoch) for epoch in range(entry.epochs)]
    facts = {**provenance(dataset, device), "kind": "autoencoder", "status": TRAINED}
    if not np.isfinite(told).all():
        return Checkpoint((), {}, {**facts, "status": DIVERGED, "reason": "its loss is not a number"})
    error, apart = _evaluated(training, model, torch.from_numpy(dataset.x_test).to(device))
    history = dict(zip(("error", "discrepancy"), np.float64(told).T.copy(), strict=True))
    facts |= {"test_error": error, "test_discrepancy": apart}
    return Checkpoint(tuple(weight.detach().cpu().numpy() for weight in model.weights), history, facts)


def _epoch(
    training: AutoEncoding, model: AutoEncoder, optimizer: torch.optim.Adam, images: torch.Tensor, epoch: int
) -> tuple[float, float]:
    """One pass over the images, but for those that fill no minibatch; returns the means of its steps."""
    random, size = generator(training.id, "epoch", epoch), min(training.entry.batch_size, len(images))
    order = torch.from_numpy(random.permutation(len(images))[: len(images) // size * size]).to(images.device)
    sums = []
    for batch in order.split(size):
        error, apart = _losses(training, model, images[batch], random)
        optimizer.zero_grad()
        (ERROR_WEIGHT * error + training.entry.weight * apart).backward()
        optimizer.step()
        sums.append((error.item(), apart.item()))
    return tuple(np.mean(sums, 0).tolist())


def _losses(
    training: AutoEncoding, model: AutoEncoder, images: torch.Tensor, random: np.random.Generator
) -> Sequence[torch.Tensor]:
    """The squared error of an image, summed over pixels, and how far the codes are from normal ones."""
    codes = model.encode(images)
    error = (model.decode(codes) - images).square().flatten(1).sum(1).mean()
    normal = torch.from_numpy(random.standard_normal(codes.shape, dtype=np.float32)).to(images.device)
    return error, discrepancy(codes, normal)


@torch.no_grad()
def _evaluated(training: AutoEncoding, model: AutoEncoder, images: torch.Tensor) -> list[float]:
    """The losses on images, means of minibatches weighted by their sizes."""
    random, found, sizes = generator(training.id, "evaluation"), [], []
    for batch in images.split(EVALUATION_BATCH):
        if len(batch) > 1:
            found.append([loss.item() for loss in _losses(training, model, batch, random)])
            sizes.append(len(batch))
    return np.average(found, 0, sizes).tolist()
