"""Auto-encoders of a study, trained before its jobs need them, with a picture of each.

To be imported when torch is prepared.
"""

import numpy as np
import torch

from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.data.datasets import Dataset
from deltaball.figures import autoencoding as figure
from deltaball.figures import style
from deltaball.networks.autoencoders import AutoEncoder
from deltaball.plan.autoencoders import AutoEncoding
from deltaball.plan.plan import Plan
from deltaball.run import preparing
from deltaball.store.store import Store
from deltaball.training import autoencoders

SHOWN = 12


def make(plan: Plan, name: str) -> str:
    """Train the auto-encoder of this name, and draw it: ``autoencoders/NAME.png``. Returns what came of it in words.

    Raises InputError where the study has none of this name, and where training diverged.
    """
    training = plan.autoencoder(name)
    error = _make(plan, training, preparing.prepared(plan, training.entry.dataset))
    return f"auto-encoder {name}: squared error of a test image {error:.4g}"


def prepare(plan: Plan, dataset: Dataset) -> None:
    """Do so with all auto-encoders of a data set."""
    for training in plan.autoencoders(dataset.facts.name):
        _make(plan, training, dataset)


def _make(plan: Plan, training: AutoEncoding, dataset: Dataset) -> float:
    store = Store(plan.study.store)
    try:
        autoencoders.trained(training, dataset, store, plan.study.compute.device)
    except FloatingPointError as problem:
        raise InputError(f"autoencoders: {problem}") from None
    # What is drawn comes from the store, where other jobs and runs find it.
    _draw(plan, training, autoencoders.trained(training, dataset, store), dataset, store)
    return store.load(training.id, training.entry.epochs).facts["test_error"]


@torch.no_grad()
def _draw(plan: Plan, training: AutoEncoding, model: AutoEncoder, dataset: Dataset, store: Store) -> None:
    entry = training.entry
    kept = store.load(training.id, entry.epochs)
    # Some data sets are sorted by class.
    images = torch.from_numpy(dataset.x_test[np.linspace(0, len(dataset.x_test) - 1, SHOWN).astype(int)])
    codes = torch.from_numpy(generator(training.id, "shown").standard_normal((SHOWN, entry.latent), dtype=np.float32))
    drawn = "standard normal codes"
    if entry.kind == "plain":
        there = model.encode(torch.from_numpy(dataset.x_test))
        codes, drawn = there.mean(0) + codes * there.std(0), "normal codes with the mean and spread of test images'"
    decoded = model.decode(model.encode(images)), model.decode(codes)
    rows = dict(zip(("test images", "reconstructed", "samples"), (images, *decoded), strict=True))
    error, apart = kept.facts["test_error"], kept.facts["test_discrepancy"]
    kind = "plain auto-encoder" if entry.kind == "plain" else f"Wasserstein auto-encoder, λ = {entry.weight:g}"
    title = f"{entry.name}: {kind} of {entry.dataset}, {entry.latent} numbers, seed {entry.seed}"
    told = (
        f"test images, their reconstructions, and samples (of {drawn}); squared error of an image {error:.3g} and "
        f"discrepancy of codes {apart:.3g} on test images; below, both on training images, by epoch."
    )
    path = plan.study.folder / "autoencoders" / f"{entry.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    history = {"squared error of an image": kept.state["error"], "discrepancy of codes": kept.state["discrepancy"]}
    style.use()
    figure.draw({name: row.numpy() for name, row in rows.items()}, history, title, told, path)
