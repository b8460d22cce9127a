"""Training on the manifold of an auto-encoder: losses worked out by hand, and networks that name one."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import grid, network_ids, planned_few, study

from deltaball.base.errors import InputError
from deltaball.data.datasets import Dataset
from deltaball.networks.layers import Dense, Flatten, Layers
from deltaball.networks.packs import Pack
from deltaball.run.trainer import Trainer
from deltaball.store.store import Store
from deltaball.study import checking
from deltaball.study.study import Study
from deltaball.training import draws, sgd
from deltaball.training.objectives.manifold import in_balls
from deltaball.training.objectives.objective import Batch, objective_of
from deltaball.training.progress import SILENT

PLANE = Layers((1, 2, 1), (Flatten(), Dense(2)))
SLOPES = np.array([[2.0, 0.0], [-1.0, 0.0]], np.float32)


class Pixels:
    """An auto-encoder whose codes are `scale` times the pixels, and which decodes them to pixels moved by `shift`."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        self.scale, self.shift, self.furthest = scale, shift, 0.0

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * images.flatten(1)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        self.furthest = max(self.furthest, codes.abs().max().item())
        return (codes + self.shift).view(-1, 1, 2, 1)


def loss(objective: str, coder: Pixels, images: torch.Tensor, kernel: np.ndarray = SLOPES, **axes: float) -> float:
    """The loss of one linear network on images [n, 2] of class 0; its weight on the change is 0.5."""
    pack = Pack.of(PLANE, [[kernel, np.zeros(2, np.float32)]])
    count = torch.zeros(1, dtype=torch.int64)
    drawn = draws.Draws(draws.keys(["one"], "cpu"), count, count)
    labels = torch.zeros(1, len(images), dtype=torch.int64)
    batch = Batch(images.view(1, -1, 1, 2, 1), labels, {"beta": torch.tensor([0.5])}, drawn)
    return objective_of({"objective": objective, "autoencoder": "one", **axes}, coder)(pack, batch).item()


def test_images_count_by_the_balls_that_hold_them():
    """Of distances 1 and 3 a ball of 0.5 holds none, of 2 the first, of 4 both."""
    found = in_balls(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[0.5, 2.0, 4.0]]))
    torch.testing.assert_close(found, torch.tensor([[[0.5], [1 / 6]]]))


@pytest.mark.parametrize("number", [1, 3])
def test_where_decoded_images_are_the_image_the_change_is_the_entropy(number: int):
    axes = {"sigma": 1e-7, "decoded": number, "ball_radii": 10, "least_radius": 0.1}
    found = loss("on_manifold", Pixels(), torch.zeros(4, 2), **axes)
    assert found == pytest.approx(1.5 * math.log(2), rel=1e-5)


def test_radii_are_drawn_with_density_one_over_epsilon():
    """A decoded image at distance 0.5 is in the ball with the chance ln(√2 / 0.5) / ln(√2 / 0.1)."""
    axes = {"sigma": 1e-7, "decoded": 1, "ball_radii": 4000, "least_radius": 0.1}
    coder = Pixels(shift=0.5 / math.sqrt(2))
    found = loss("on_manifold", coder, torch.zeros(1, 2), np.zeros_like(SLOPES), **axes)
    chance = math.log(math.sqrt(2) / 0.5) / math.log(math.sqrt(2) / 0.1)
    error = math.sqrt(chance * (1 - chance) / 4000)
    assert (found / math.log(2) - 1) / 0.5 == pytest.approx(chance, abs=4 * error)


def test_half_of_a_minibatch_is_moved_to_the_worst_corner_of_its_codes():
    """The lead of class 0 is 2 x₁ - x₂, which the attack makes smaller by 3 · 0.1."""
    images = torch.tensor([[0.6, 0.4], [0.5, 0.5], [0.7, 0.2], [0.3, 0.9]])
    axes = {"latent_radius": 0.1, "latent_rate": 0.005, "attack_steps": 40}
    leads = (images @ torch.tensor([2.0, -1.0])).tolist()
    expected = [math.log1p(math.exp(-lead)) for lead in (*leads[:2], *(one - 0.3 for one in leads[2:]))]
    assert loss("on_manifold_adversarial", Pixels(), images, **axes) == pytest.approx(sum(expected) / 4, rel=1e-5)


def test_codes_stay_within_two_of_zero():
    coder = Pixels(scale=3.0)
    loss("on_manifold_adversarial", coder, torch.ones(2, 2), latent_radius=0.3, latent_rate=0.1, attack_steps=5)
    assert coder.furthest == 2.0


SMALL = {"dataset": "few", "latent": 2, "filters": 2, "epochs": 1, "batch_size": 20}
TRAINED = {"width": 8, "learning_rate": 0.1, "batch_size": 32, "seed": [0, 1]}


@pytest.mark.parametrize("objective", ["on_manifold", "on_manifold_adversarial"])
def test_networks_that_name_an_auto_encoder_are_trained_alone_as_in_a_pack_and_after_a_kill(
    objective: str, data_folder: Path, few: Dataset, tmp_path: Path
):
    coders = [{"name": "one", **SMALL}, {"name": "unused", **SMALL, "seed": 1}]
    plan = planned_few(data_folder, grid(objective=objective, **TRAINED, epochs=[1, 2]), autoencoders=coders)
    ((pack,),) = (shard.packs for shard in plan.shards.values())
    together, store = Store(tmp_path / "together"), Store(tmp_path / "alone")
    trainer = Trainer(plan, few, together, SILENT)
    assert trainer(pack) == 4
    one, unused = plan.autoencoders("few")
    assert together.has(one.id, 1)
    assert not together.has(unused.id, 1)
    store.save(one.id, 1, together.load(one.id, 1))
    store.save(pack[1].id, 1, together.load(pack[1].id, 1))  # where a job was killed
    assert sgd.train([pack[1]], plan.layers(pack[1]), few, store, "cpu") == 1
    for mine, other in zip(store.weights(pack[1].id, 2), together.weights(pack[1].id, 2), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_network_is_another_one_with_another_auto_encoder_and_the_same_under_another_name():
    named = grid(objective="on_manifold", width=8, epochs=1)
    coder = {"name": "one", "dataset": "mnist5k"}
    (first,) = network_ids(named, autoencoders=[coder])
    (renamed,) = network_ids({**named, "autoencoder": "two"}, autoencoders=[{**coder, "name": "two"}])
    (other,) = network_ids(named, autoencoders=[{**coder, "seed": 1}])
    assert first == renamed != other


def test_an_auto_encoder_that_is_not_there_is_refused():
    named = grid(objective="on_manifold", autoencoder="manifold")
    with pytest.raises(ValueError, match=r"grids\[0\] \(fcn-sgd\)\.autoencoder: there is no 'manifold'; the study has"):
        Study.model_validate(study(named, autoencoders=[]))
    elsewhere = [{"name": "manifold", "dataset": "mnist"}]
    with pytest.raises(InputError, match=r"grids\[0\] .*autoencoder: 'manifold' is of mnist, the grid of mnist5k"):
        checking.check(Study.model_validate(study(named, autoencoders=elsewhere)), "study.yaml")


def test_an_auto_encoder_that_the_store_lost_is_named(data_folder: Path, few: Dataset, tmp_path: Path):
    plan = planned_few(data_folder, grid(objective="on_manifold", **TRAINED, epochs=1))
    ((pack,),) = (shard.packs for shard in plan.shards.values())
    with pytest.raises(InputError, match=r"auto-encoder [0-9a-f]{16} is not in the store"):
        sgd.train(pack, plan.layers(pack[0]), few, Store(tmp_path), "cpu")
