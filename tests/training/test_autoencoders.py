"""Auto-encoders: the discrepancy by hand, and what training them gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from deltaball.data.datasets import Dataset
from deltaball.networks.autoencoders import AutoEncoder, drawn_weights
from deltaball.networks.coders import Coders
from deltaball.plan.autoencoders import autoencoding
from deltaball.store.store import Store
from deltaball.study.autoencoders import AutoEncoder as Entry
from deltaball.training.autoencoders import SCALES, discrepancy, trained

ENTRY = {"name": "manifold", "dataset": "few", "latent": 3, "filters": 2, "epochs": 12, "batch_size": 20}
ENTRY |= {"learning_rate": 0.01}


def test_the_discrepancy_of_two_known_samples_by_hand():
    """Codes 0 and 2 beside 1 and 3: within each the pairs are 4 apart in square, across 1, 9, 1 and 1."""
    one, other = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])
    expected = 0.0
    for scale in SCALES:
        c = 2 * scale
        within, across = c / (c + 4), (3 * c / (c + 1) + c / (c + 9)) / 4
        expected += within + within - 2 * across
    assert discrepancy(one, other).item() == pytest.approx(expected, rel=1e-6)
    # C = 2, 1: 1/3 + 1/3 - 2 (3 · 2/3 + 2/11) / 4 for scale 1 alone.
    assert 2 * 2 / 6 - (2 + 2 / 11) / 2 == pytest.approx(-14 / 33)


def test_the_discrepancy_is_none_on_average_for_samples_of_one_distribution_and_some_for_two():
    random = torch.Generator().manual_seed(0)
    found = [discrepancy(*torch.randn(2, 20, 2, generator=random)) for _ in range(400)]
    mean, error = np.mean(found), np.std(found) / 400**0.5
    assert abs(mean) < 4 * error
    assert min(found) < 0  # a negative estimate is normal
    moved = [discrepancy(a, b + 1) for a, b in torch.randn(50, 2, 20, 2, generator=random)]
    assert np.mean(moved) > 20 * error


@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 14, 3), (5, 4, 1)])
def test_codes_and_images_have_their_shapes(shape: tuple[int, int, int]):
    coders = Coders(shape, latent=3, filters=2)
    model = AutoEncoder.of(coders, drawn_weights(coders, np.random.default_rng(0)))
    images = torch.rand(6, *shape, generator=torch.manual_seed(0))
    codes = model.encode(images)
    assert codes.shape == (6, 3)
    decoded = model.decode(codes)
    assert decoded.shape == images.shape
    assert 0 < decoded.min() < decoded.max() < 1
    torch.testing.assert_close(model.decode(codes[2:3])[0], decoded[2])
    leaf = codes.detach().requires_grad_()
    (slope,) = torch.autograd.grad(model.decode(leaf).sum(), leaf)
    assert (slope != 0).any(1).all()


@pytest.mark.parametrize("kind", ["plain", "wasserstein"])
def test_one_is_trained_once_and_kept(kind: str, few: Dataset, tmp_path: Path):
    training = autoencoding(Entry(**ENTRY, kind=kind), few.facts)
    store = Store(tmp_path)
    model = trained(training, few, store)
    kept = store.load(training.id, training.entry.epochs)
    assert kept.facts["kind"] == "autoencoder"
    assert kept.state["error"].shape == kept.state["discrepancy"].shape == (12,)
    assert kept.state["error"][-1] < 0.8 * kept.state["error"][0]
    # Better than the mean image.
    x = torch.from_numpy(few.x_test)
    error = (model.decode(model.encode(x)) - x).square().flatten(1).sum(1).mean().item()
    assert error == pytest.approx(kept.facts["test_error"], rel=1e-4)
    file = next(tmp_path.rglob("*.safetensors"))
    changed = file.stat().st_mtime_ns
    again = trained(training, few, store)
    assert file.stat().st_mtime_ns == changed
    file.unlink()
    anew = trained(training, few, store)
    for one, other, third in zip(model.weights, again.weights, anew.weights, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)


def test_the_discrepancy_pulls_codes_to_normal_ones(few: Dataset, tmp_path: Path):
    apart, store = {}, Store(tmp_path)
    for kind in ("plain", "wasserstein"):
        training = autoencoding(Entry(**ENTRY, kind=kind), few.facts)
        trained(training, few, store)
        apart[kind] = store.facts(training.id, training.entry.epochs)["test_discrepancy"]
    assert apart["wasserstein"] < apart["plain"]


def test_one_that_diverged_says_so(few: Dataset, tmp_path: Path):
    training = autoencoding(Entry(**{**ENTRY, "learning_rate": 1e30}), few.facts)
    with pytest.raises(FloatingPointError, match="'manifold' diverged"):
        trained(training, few, Store(tmp_path))
    with pytest.raises(FloatingPointError, match="'manifold' diverged"):  # and is not trained again
        trained(training, few, Store(tmp_path))


def test_ids_follow_what_weights_depend_on(few: Dataset):
    first = autoencoding(Entry(**ENTRY), few.facts).id
    assert autoencoding(Entry(**{**ENTRY, "name": "other"}), few.facts).id == first
    assert autoencoding(Entry(**ENTRY, penalty=10.0), few.facts).id == first
    others = [{"kind": "plain"}, {"penalty": 1.0}, {"seed": 1}, {"latent": 4}, {"filters": 3}, {"epochs": 2}]
    ids = {autoencoding(Entry(**{**ENTRY, **one}), few.facts).id for one in others}
    assert len(ids | {first}) == len(others) + 1
    with pytest.raises(ValidationError, match="penalty 3 is for kind wasserstein"):
        Entry(**ENTRY, kind="plain", penalty=3)
