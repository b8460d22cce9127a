"""Pictures of paired auto-encoders: what T makes of corrupted images that it never saw."""

from pathlib import Path

import numpy as np
import torch

from deltaball.base.statuses import DIVERGED
from deltaball.data.datasets import Dataset
from deltaball.figures import autoencoding as figure
from deltaball.figures import style
from deltaball.local.corruptions.corrupted import as_bytes, corrupted
from deltaball.networks.packs import Pass
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Store
from deltaball.study.corruptions import CORRUPTIONS, FIFTEEN
from deltaball.study.transfers import Pair

SHOWN = 12
# Corruptions that are shown where one pair is for more.
MOST_ROWS = 4


def draw(plan: Plan, one: Trajectory, dataset: Dataset, store: Store) -> None:
    """Draw a pair, unless it is drawn: ``autoencoders/NAME.png``."""
    (pair,) = one.axes["pairs"]
    path = plan.study.folder / "autoencoders" / f"{pair.name}.png"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _draw(plan, pair, one, dataset, store, path)


@torch.no_grad()
def _draw(plan: Plan, pair: Pair, one: Trajectory, dataset: Dataset, store: Store, path: Path) -> None:
    kept = store.load(one.id, one.checkpoints[-1])
    if kept.facts["status"] == DIVERGED:
        return
    # Some data sets are sorted by class.
    places = np.linspace(0, len(dataset.x_test) - 1, SHOWN).astype(int)
    images = dataset.x_test[places]
    layers, weights = plan.layers(one), [torch.from_numpy(weight)[None] for weight in kept.weights]

    def behind(shown: np.ndarray) -> np.ndarray:
        return Pass().through(layers, weights, torch.from_numpy(shown)[None])[0].numpy()

    rows = {"test images": images, "behind T": behind(images)}
    for name in pair.corruptions[:MOST_ROWS]:
        made = corrupted(name, as_bytes(images), places.tolist()).astype(np.float32) / np.float32(255)
        rows |= {CORRUPTIONS[name].title: made, f"{CORRUPTIONS[name].title},\nbehind T": behind(made)}
    entry, split = pair.entry, pair.split(dataset.facts.train)
    every = {*FIFTEEN} <= {*pair.corruptions}
    what = "all corruptions" if every else ", ".join(CORRUPTIONS[name].title for name in pair.corruptions)
    title = f"{pair.name}: paired auto-encoders of {entry.dataset} for {what or 'clean images'}, seed {pair.seed}"
    learned = f"{split.clean:,} clean and {entry.corrupted_images:,} corrupted training images of each corruption"
    told = (
        f"test images and what T = D1∘E makes of them, clean and corrupted, after {entry.epochs} epochs on {learned}; "
        f"squared error of a pixel {kept.facts['test_error']:.3g} on clean test images; below, on training images."
    )
    history = {"clean images through D1": kept.state["error"]}
    if pair.corruptions:
        history["corrupted images through D2"] = kept.state["corrupted_error"]
    style.use()
    figure.draw(rows, history, title, told, path)
