"""Co-training: the losses of classifier and generator, what each step touches, and the generator as an attack."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import grid, planned_few
from step_cases import SHAPES, made, trained

from deltaball.data.datasets import Dataset
from deltaball.estimation.measuring import pack_of
from deltaball.estimation.stored import StoredOutcomes
from deltaball.networks.generators import Generator
from deltaball.networks.layers import Dense, Flatten, Layers
from deltaball.networks.packs import Pack
from deltaball.run.measurer import Measurer
from deltaball.store.store import Store, listed
from deltaball.training.objectives.objective import Batch, Objective, objective_of
from deltaball.training.sgd import train

PLANE = Layers((1, 2, 1), (Flatten(), Dense(2)))
MOVE = torch.tensor([0.6, 0.8]).view(1, 2, 1)  # of length 1


def cotraining(margin_of: str = "softmax", filters: int = 2) -> Objective:
    axes = {"margin_of": margin_of, "generator_filters": filters, "generator_depth": 1}
    return objective_of({"objective": "cotraining", **axes})


def plane(dtype: type = np.float32) -> Pack:
    """Logits (0, 0) at the origin and (ln 3, 0) where MOVE leads."""
    kernel, bias = np.array([[5 * math.log(3) / 3, 0], [0, 0]], dtype), np.zeros(2, dtype)
    pack = Pack.of(PLANE, [[kernel, bias]])
    return Pack(PLANE, pack.weights, lambda x: x + MOVE.to(x.dtype))


def test_the_loss_of_the_classifier_is_equation_10():
    """ln 2 + λ · CE((½, ½), (¾, ¼)) / (1 + 1)."""
    images, labels = torch.zeros(1, 1, 1, 2, 1), torch.zeros(1, 1, dtype=torch.int64)
    loss = cotraining()(plane(), Batch(images, labels, {"beta": torch.tensor([0.4])}))
    assert loss.item() == pytest.approx(math.log(2) + 0.4 * 0.5 * math.log(16 / 3) / 2, rel=1e-6)


def test_the_softmax_at_the_image_is_differentiated_too():
    """The gradient is that of Equation 10 by all places where f stands in it: finite differences agree."""
    images, labels = torch.rand(1, 3, 1, 2, 1, dtype=torch.float64), torch.tensor([[0, 1, 0]])
    batch = Batch(images, labels, {"beta": torch.tensor([0.7])})
    kernel, bias = plane(np.float64).weights
    generator = plane().generator

    def loss(kernel: torch.Tensor) -> torch.Tensor:
        return cotraining()(Pack(PLANE, (kernel, bias), generator), batch)

    assert torch.autograd.gradcheck(loss, kernel.clone().requires_grad_())


@pytest.mark.parametrize(("margin_of", "lead"), [("softmax", 0.5), ("logits", math.log(3))])
def test_the_loss_of_the_generator_is_equation_9(margin_of: str, lead: float):
    pack, images = plane(), torch.tensor([[0.01, 0.0], [0.0, 0.0]]).view(1, 2, 1, 2, 1)
    found = cotraining(margin_of).of_generator(images[:, 1:], images[:, 1:] + MOVE, pack)
    assert found.item() == pytest.approx(0.5 + lead, rel=1e-5)
    # Where the class has changed, the distance alone is left.
    changed = cotraining(margin_of).of_generator(images[:, :1], images[:, :1] - MOVE, pack)
    assert changed.item() == pytest.approx(0.5, rel=1e-5)


def test_without_weight_on_the_change_it_is_cross_entropy():
    alone, rates = made("fcn")
    beside, _ = made("fcn", objective=cotraining(), axes={"beta": [0.0, 0.0, 0.0]})
    for one, other in zip(trained(alone, rates), trained(beside, rates), strict=True):
        torch.testing.assert_close(one, other)


def test_an_epoch_moves_all_weights_and_moving_averages_of_both():
    steps, rates = made("residual", "adam", objective=cotraining(), axes={"beta": [0.1, 1.0, 2.0]})
    both = [*steps.members.weights, *steps.members.generators.weights]
    before = [weight.clone() for weight in both]
    trained(steps, rates, 1)
    assert not any(torch.equal(weight, start) for weight, start in zip(both, before, strict=True))


def test_the_generator_comes_to_mislead():
    """Its loss falls where the classifier is held as it was."""
    steps, _ = made("fcn", "adam", objective=cotraining("logits"), axes={"beta": [0.0, 0.0, 0.0]})
    pack = Pack(SHAPES["fcn"], tuple(steps.members.weights))
    fixed = [weight.clone() for weight in steps.members.weights]

    def loss() -> torch.Tensor:
        generator = Generator(steps.recipe.generator.layers, tuple(steps.members.generators.weights))
        images = steps.images.expand(3, *steps.images.shape)
        return cotraining("logits").of_generator(images, generator(images), pack)

    before = loss()
    for epoch in range(6):
        trained(steps, torch.full((3,), 0.02), 1, first=epoch)
        for weight, start in zip(steps.members.weights, fixed, strict=True):
            weight.copy_(start)
    assert (loss() < 0.8 * before).all()


SMALL = grid("conv5", filters=2, objective="cotraining", learning_rate=0.01, optimizer="adam", batch_size=32)


def test_the_store_has_the_generator_and_its_optimizer(data_folder: Path, few: Dataset, tmp_path: Path):
    plan = planned_few(data_folder, {**SMALL, "epochs": 1, "dataset": "few"})
    ((one,),) = next(iter(plan.shards.values())).packs
    store, layers = Store(tmp_path), plan.layers(one)
    train([one], layers, few, store, "cpu")
    found = store.load(one.id, 1)
    weights, moments = listed(found.state, "generator"), listed(found.state, "generator_moment")
    assert [weight.shape for weight in weights] == [(5, 5, 1, 2), *[(2,)] * 4, (5, 5, 2, 1), (1,)]
    assert len(moments) == 2 * 5  # of all but the moving averages, Adam's two
    assert sum(moment.any() for moment in moments) == 10
    assert one.beside == 50 + 4 + 50 + 1
    assert one.stored_bytes == 3 * 4 * (one.parameters + one.beside)
    images = torch.from_numpy(few.x_test)
    made_of = pack_of([(one.id, 1)], layers, store).generator(images)
    assert made_of.shape == (1, *images.shape)
    assert 0 <= made_of.min() <= made_of.max() <= 1


def test_a_generator_attacks_its_own_network(data_folder: Path, few: Dataset, tmp_path: Path):
    """It finds the class changed where its image's class is another one, and nowhere else."""
    entry = {"notion": "margin", "norm": "l2", "delta": 28.0, "attack": "generator"}
    plan = planned_few(
        data_folder,
        {**SMALL, "epochs": 2, "seed": [0, 1], "margin_of": "logits"},
        measures=[entry],
        results=str(tmp_path),
    )
    (shard,) = plan.shards.values()
    (pack,), store = shard.packs, Store(plan.study.store)
    layers = plan.layers(pack[0])
    train(pack, layers, few, store, "cpu")
    measurer = Measurer(plan, shard, few, store)
    (measure,) = plan.measures
    measurer(pack)
    images = torch.from_numpy(measurer.images)
    for one in pack:
        model = pack_of([(one.id, 2)], layers, store)
        moved = model.generator(images)
        misled = (model(moved).argmax(-1) != model(images).argmax(-1))[0].numpy()
        away = (moved[0] - images).flatten(1).norm(dim=1).numpy()
        outcomes = StoredOutcomes(store, 0).of((one.id, 2), measure).outcomes
        assert (outcomes[misled] <= away[misled] + 1e-4).all()
        assert (outcomes[~misled] == 28).all()
