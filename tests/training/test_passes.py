"""Batch normalisation and dropout as they train: as Keras, as a definition, and by trajectory and step."""

import keras
import numpy as np
import pytest
import torch
from step_cases import NETWORKS, SHAPES, made, trained

from deltaball.networks.layers import Activation, BatchNorm, Conv, Dense, Dropout, Flatten, Layers, LeakyReLU, Residual
from deltaball.networks.models import Layered
from deltaball.networks.packs import Pack, Pass
from deltaball.study import architectures
from deltaball.training import draws
from deltaball.training.objectives.cross_entropy import CrossEntropy
from deltaball.training.objectives.objective import Batch, Objective
from deltaball.training.optimizers import momentum_step
from deltaball.training.passes import NORMALISED, TRAINING, TrainingPass, follow
from deltaball.training.steps import Recipe, TrainedPack


def numbers(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(2, 3, shape).astype(np.float32))


@pytest.mark.parametrize("shape", [(6, 4, 5, 3), (6, 3)], ids=["images", "numbers"])
def test_batch_normalisation_is_keras(shape: tuple[int, ...]):
    layer = BatchNorm(1e-2, 0.7)
    images, gamma, beta = numbers(2, *shape), numbers(2, 3).abs(), numbers(2, 3)
    mean, variance = numbers(2, 3) - 2, numbers(2, 3).abs()
    weights, way = [one.clone().requires_grad_() for one in (gamma, beta)], TrainingPass()
    x = images.clone().requires_grad_()
    found = way.through(Layers(shape[1:], (layer,)), [*weights, mean, variance], x)
    gradients = torch.autograd.grad((found**2).sum(), [x, *weights])
    averages = [mean.clone(), variance.clone()]
    follow(averages, way.seen)
    for k in range(2):
        theirs = keras.layers.BatchNormalization(epsilon=layer.epsilon, momentum=layer.momentum)
        theirs.build((None, *shape[1:]))
        theirs.set_weights([one[k].numpy() for one in (gamma, beta, mean, variance)])
        image = images[k].clone().requires_grad_()
        expected = theirs(image, training=True)
        leaves = [image, theirs.gamma.value, theirs.beta.value]
        for one, other in zip(gradients, torch.autograd.grad((expected**2).sum(), leaves), strict=True):
            torch.testing.assert_close(one[k], other, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found[k], expected, rtol=1e-4, atol=1e-4)
        moved = theirs.moving_mean.value, theirs.moving_variance.value
        torch.testing.assert_close([one[k] for one in averages], [one.detach() for one in moved], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 6, 4, 5, 2), (3, 6, 2), (3, 1, 2)], ids=["images", "numbers", "a single one"])
def test_devices_normalise_alike(shape: tuple[int, ...]):
    on_cpu, on_gpu = (NORMALISED[device](numbers(*shape), numbers(3, 2), numbers(3, 2), 1e-3) for device in NORMALISED)
    for one, other in zip(on_cpu, on_gpu, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_dropout_drops_its_share_and_keeps_the_mean():
    layers, images = Layers((40, 50, 2), (Dropout(0.3),)), torch.ones(2, 30, 40, 50, 2)
    found = TrainingPass(draws=drawn()).through(layers, [], images)
    assert found.unique().tolist() == pytest.approx([0, 1 / 0.7])
    # 120,000 numbers of a network, each dropped with probability 0.3: six standard deviations.
    dropped = (found == 0).flatten(1).float().mean(1)
    assert (dropped - 0.3).abs().max() < 6 * (0.3 * 0.7 / 120_000) ** 0.5
    # All see the same images, and no two the same zeros.
    alike = TrainingPass(draws=drawn()).through(layers, [], images[0])
    assert torch.equal(alike, found)
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0, 0], found[0, 1])


def drawn(step: int = 0, only: slice = slice(None)) -> draws.Draws:
    keys = draws.keys(["one", "other"], "cpu")[only]
    return draws.Draws(keys, torch.tensor([step]), torch.tensor([0]))


def test_dropout_depends_on_trajectory_step_and_place_alone():
    layers, images = Layers((20,), (Dropout(0.5), Dropout(0.5))), torch.ones(2, 30, 20)

    def zeros(draws: draws.Draws, images: torch.Tensor = images) -> torch.Tensor:
        return TrainingPass(draws=draws).through(layers, [], images) == 0

    assert torch.equal(zeros(drawn()), zeros(drawn()))
    assert torch.equal(zeros(drawn(only=slice(1, 2)), images[:1])[0], zeros(drawn())[1])
    assert torch.equal(zeros(drawn().part(slice(1, 2)), images[:1])[0], zeros(drawn())[1])
    assert not torch.equal(zeros(drawn(1)), zeros(drawn(2)))
    # The second layer has draws of its own: together they drop three quarters.
    assert zeros(drawn()).float().mean() == pytest.approx(0.75, abs=0.08)


def test_nothing_is_drawn_and_nothing_moves_outside_training():
    steps, _ = made("residual")
    pack = Pack(SHAPES["residual"], tuple(steps.members.weights))
    before = [one.clone() for one in pack.weights]
    assert torch.equal(pack(steps.images), pack(steps.images))
    assert all(map(torch.equal, before, pack.weights))


def test_a_rule_of_training_is_of_layers_that_do_something_else_in_it():
    layers = Layers(
        (4, 4, 2), (Conv(3, 3), LeakyReLU(0.1), Residual((Conv(3, 3), Activation("relu"))), Flatten(), Dense(2))
    )
    assert not any(type(layer) in TRAINING for layer, _ in layers.within())
    weights = [numbers(2, *shape) for shape in layers.weight_shapes]
    images = numbers(2, 5, 4, 4, 2)
    assert torch.equal(TrainingPass().through(layers, weights, images), Pass().through(layers, weights, images))


class Twice(Objective):
    """Passes other images first, as an attack does."""

    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        networks(batch.images + 1)
        return CrossEntropy()(networks, batch)


def test_moving_averages_follow_the_last_pass_of_a_step_and_buffers_have_no_moments():
    once, rates = made("residual", "adam")
    twice, _ = made("residual", "adam", objective=Twice())
    buffers = once.recipe.having("buffer")
    for steps in (once, twice):
        trained(steps, 0 * rates, 1)
        assert len(steps.members.moments) == 2 * (len(steps.members.weights) - len(buffers))
    for position in buffers[:2]:  # before the first dropout
        assert torch.equal(once.members.weights[position], twice.members.weights[position])


def test_moving_averages_come_near_what_the_data_have():
    """With a learning rate of 0 the statistics are those of the initial weights, whatever the order."""
    steps, rates = made("residual")
    trained(steps, 0 * rates, 3)
    first = SHAPES["residual"].sequence[0]
    maps = Pass().through(Layers(SHAPES["residual"].shape, (first,)), steps.members.weights[:1], steps.images)
    variance, mean = torch.var_mean(maps, (1, 2, 3), correction=0)
    torch.testing.assert_close(steps.members.weights[3], mean, rtol=0.1, atol=0.02)
    torch.testing.assert_close(steps.members.weights[4], variance, rtol=0.2, atol=0.02)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.0), (0.0, 0.1), (0.5, 0.01)])
def test_momentum_and_decay_of_a_pack_are_those_of_its_networks_alone(momentum: float, weight_decay: float):
    how = {"momentum": momentum, "weight_decay": weight_decay}
    (together, rates), (plain, _) = made("residual", **how), made("residual")
    losses = trained(together, rates)
    trained(plain, rates)
    assert not torch.equal(together.members.weights[0], plain.members.weights[0])
    for k in range(NETWORKS):
        alone, rate = made("residual", only=[k], **how)
        for mine, both in zip(trained(alone, rate, only=[k]), losses, strict=True):
            assert torch.equal(mine[0], both[k])
        for mine, both in zip(alone.members.weights, together.members.weights, strict=True):
            assert torch.equal(mine[0], both[k])


def test_momentum_is_keras():
    start, gradients = numbers(3, 4, 2), [numbers(3, 4, 2) * scale for scale in (1.0, 0.1, 3.0)]
    rates = [(0.1, 0.01, 0.0), (0.1, 0.01, 0.0), (0.01, 0.001, 0.0)]  # they may change in between
    weight, velocity = start.clone(), torch.zeros_like(start)
    for rate, gradient in zip(rates, gradients, strict=True):
        momentum_step([weight], [gradient], [velocity], torch.tensor(rate), 0.9)
    for k in range(3):
        variable, optimizer = keras.Variable(start[k].numpy()), keras.optimizers.SGD(1.0, momentum=0.9)
        for rate, gradient in zip(rates, gradients, strict=True):
            optimizer.learning_rate = rate[k]
            optimizer.apply([gradient[k]], [variable])
        np.testing.assert_allclose(weight[k], variable.value.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_decay_is_the_gradient_of_a_penalty_on_kernels():
    class Penalised(Objective):
        def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
            kernels = [
                one for one, of in zip(networks.weights, networks.layers.weights, strict=True) if of.role == "kernel"
            ]
            return CrossEntropy()(networks, batch) + sum(0.05 * (one**2).flatten(1).sum(1) for one in kernels)

    decayed, rates = made("residual", weight_decay=0.1)
    penalised, _ = made("residual", objective=Penalised())
    for steps in (decayed, penalised):
        trained(steps, rates, 1)
    for one, other in zip(decayed.members.weights, penalised.members.weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_lower_precision_normalises_in_float32():
    layers = architectures.layers("resnet20", {"width": 2}, (6, 6, 1), 3)
    weights = [
        numbers(2, *one.shape).abs() if one.role != "kernel" else numbers(2, *one.shape) for one in layers.weights
    ]
    packs = [TrainedPack(Recipe(layers, 4, "sgd", precision), weights) for precision in ("float32", "bfloat16")]
    full, lower = (pack(numbers(2, 4, 6, 6, 1)) for pack in packs)
    assert full.dtype == lower.dtype == torch.float32
    assert all(one.mean.dtype == torch.float32 for one in packs[1].seen)
    assert not torch.equal(full, lower)
