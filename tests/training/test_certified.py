"""Training by bounds: that they are bounds, how they grow, and what training by them is good for."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from certificate_cases import SHAPES, case, drawn_images, drawn_pack
from step_cases import RESIDUAL

from deltaball.base.errors import InputError
from deltaball.data.datasets import Dataset
from deltaball.local.balls import Ball
from deltaball.local.certificates.differences import differences
from deltaball.networks import packs
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import AveragePool, Clamp, Conv, Dense, Flatten, Layer, Layers, LeakyReLU, Normalise
from deltaball.networks.models import Layered
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers
from deltaball.training import draws
from deltaball.training.objectives.certified import Certified
from deltaball.training.objectives.cross_entropy import cross_entropy
from deltaball.training.objectives.intervals import Interval
from deltaball.training.objectives.objective import Batch, Objective, objective_of
from deltaball.training.steps import Members, Recipe, Steps

AXES = {"kappa": 0.25, "natural_epochs": 2, "ramp_epochs": 4, "crown_share": 0.0, "radius": 0.05}
OTHERS = (
    Normalise((0.4, 0.6), (0.2, 0.5)),
    Conv(3, 3, bias=False),
    LeakyReLU(0.1),
    AveragePool(),
    Flatten(),
    Dense(4),
    Clamp(-0.2, 0.3),
)
CASES = {
    **{
        f"{name}, {activation}": case(name, activation) for name in SHAPES for activation in ("relu", "tanh", "sigmoid")
    },
    "every layer": (drawn_pack(Layers((6, 5, 2), RESIDUAL)), drawn_images((6, 5, 2), 3)),
    "no dense layer last": (drawn_pack(Layers((6, 5, 2), OTHERS)), drawn_images((6, 5, 2), 3)),
}


def batch(images: torch.Tensor, labels: torch.Tensor, step: int = 10, **axes: float) -> Batch:
    """After `step` steps, of which five are an epoch."""
    drawn = draws.Draws(draws.keys(["a"] * len(images), "cpu"), torch.tensor([0]), torch.tensor([step]))
    varying = {name: torch.full((len(images),), value) for name, value in {**AXES, **axes}.items()}
    return Batch(images, labels, varying, drawn, 5)


def leads(name: str, networks: Layered, images: torch.Tensor, radius: float, share: float = 0.0) -> torch.Tensor:
    objective = objective_of({"objective": name})
    assert isinstance(objective, Certified)
    labels = torch.arange(images.shape[1]).expand(images.shape[:2]) % 3
    box = Interval((images - radius).clamp(0), (images + radius).clamp(max=1))
    return objective.leads(networks, batch(images, labels, crown_share=share), box, torch.ones(len(images)))


@pytest.mark.parametrize(("networks", "images"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("radius", [0.0, 0.01, 0.2])
def test_no_image_of_the_box_has_a_smaller_lead(networks: Pack, images: torch.Tensor, radius: float):
    images = images.expand(len(networks), *images.shape[-4:]).contiguous()
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((60, *images.shape), generator=generator) * 2 - 1
    noise[::2] = noise[::2].sign()
    labels = (torch.arange(images.shape[1]) % 3).expand(images.shape[:2])[..., None]
    by_intervals, by_lines = (leads(name, networks, images, radius, 1.0) for name in ("ibp", "crown_ibp"))
    for one in noise:
        logits = networks((images + radius * one).clamp(0, 1))
        found = logits.gather(2, labels) - logits
        assert (by_intervals <= found + 1e-4).all()
        assert (by_lines <= found + 1e-4).all()
    if not radius:
        torch.testing.assert_close(by_intervals, found, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(by_lines, found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["fcn 1", "cnn 1"])
def test_intervals_are_those_of_the_certificate(name: str):
    networks, images = case(name, "relu")
    images = images.expand(len(networks), *images.shape[-4:])
    found = leads("ibp", networks, images, 0.03)
    certified = differences(networks, images, Ball("linf", 0.03), "ibp", every=True)
    labels = torch.arange(images.shape[1]) % 3
    expected = certified[:, torch.arange(len(labels)), labels].float()
    # Where the layers before are linear in the image, it knows more.
    assert (found <= expected + 1e-3).all()
    if name == "fcn 1":
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)


def test_lines_are_closer_than_intervals_where_units_cancel():
    networks, images = case("fcn 3", "relu")
    images = images.expand(len(networks), *images.shape[-4:])
    assert leads("crown_ibp", networks, images, 0.02, 1.0).sum() > leads("ibp", networks, images, 0.02).sum()


def test_of_two_units_the_lines_are_those_worked_out_by_hand():
    """Of x in [0.3, 0.7] the units are x - 0.4 in [-0.1, 0.3] and 0.6 - x in [-0.1, 0.3], and f = relu + relu ≥ 0.

    Both upper bounds are larger, so below each is the unit itself: f ≥ x - 0.4 + 0.6 - x = 0.2. Intervals give 0.
    """
    kernels = [np.float32([[1, -1]]), np.float32([-0.4, 0.6]), np.float32([[0, -1], [0, -1]]), np.float32([0, 0])]
    networks = Pack.of(
        Layers((1, 1, 1), layers("fcn", {"depth": 1, "width": 2, "activation": "relu"}, (1, 1, 1), 2).sequence),
        [kernels],
    )
    image = torch.full((1, 1, 1, 1, 1), 0.5)
    for name, expected in (("ibp", 0.0), ("crown_ibp", 0.2)):
        torch.testing.assert_close(leads(name, networks, image, 0.2, 1.0), torch.tensor([[[0.0, expected]]]))


@pytest.mark.parametrize("name", ["ibp", "crown_ibp"])
def test_the_radius_grows_and_kappa_falls_by_epochs(name: str):
    networks, images = case("fcn 1", "relu")
    images = images.expand(len(networks), *images.shape[-4:])
    labels = torch.zeros(images.shape[:2], dtype=torch.int64)
    plain = cross_entropy(networks(images), labels)
    losses = [objective_of({"objective": name})(networks, batch(images, labels, step)) for step in (0, 10, 20, 30, 99)]
    torch.testing.assert_close(losses[0], plain)
    torch.testing.assert_close(losses[1], plain)
    # Halfway: half of the radius, and κ halfway from 1 to a quarter.
    half = 0.5 * 0.05
    box = Interval((images - half).clamp(0), (images + half).clamp(max=1))
    halfway = torch.full((len(images),), 0.5)
    worst = objective_of({"objective": name}).leads(networks, batch(images, labels), box, halfway)
    torch.testing.assert_close(losses[2], 0.625 * plain + 0.375 * cross_entropy(-worst, labels))
    assert torch.equal(losses[3], losses[4])
    assert (losses[3] > losses[2]).all()


def test_without_a_ramp_the_radius_is_there_at_once():
    networks, images = case("fcn 1", "relu")
    images = images.expand(len(networks), *images.shape[-4:])
    labels = torch.zeros(images.shape[:2], dtype=torch.int64)
    one, other = (
        objective_of({"objective": "ibp"})(networks, batch(images, labels, step, natural_epochs=2, ramp_epochs=0))
        for step in (11, 99)
    )
    assert torch.equal(one, other)


class Unknown(Layer):
    """Of a user, who gave it a forward pass and no interval."""


def test_a_layer_without_an_interval_is_refused_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(packs.FORWARD, Unknown, lambda layer, weights, x, way: x)
    networks = drawn_pack(Layers((2, 2, 1), (Unknown(), Flatten(), Dense(3))))
    with pytest.raises(InputError, match=r"^no interval for layer Unknown; possible: Dense, Conv, .*$"):
        leads("ibp", networks, torch.zeros(2, 1, 2, 2, 1), 0.1)


def trained(dataset: Dataset, objectives: Sequence[tuple[Objective, dict[str, float]]], epochs: int) -> list[Pack]:
    found = []
    shape = layers("fcn", {"depth": 2, "width": 32, "activation": "relu"}, (28, 28, 1), 10)
    images, labels = torch.from_numpy(dataset.x_train), torch.from_numpy(dataset.y_train)
    for objective, axes in objectives:
        weights = [torch.from_numpy(one)[None] for one in initial_weights(shape, np.random.default_rng(0))]
        moments = [torch.zeros_like(weight) for weight in weights * 2]
        varying = {name: torch.tensor([value]) for name, value in axes.items()}
        members = Members(weights, moments, (), varying, draws.keys(["a"], "cpu"))
        steps = Steps(Recipe(shape, 50, "adam", objective=objective), members, images, labels)
        for epoch in range(epochs):
            order = np.random.default_rng(epoch).permutation(len(images))[None]
            steps.epoch(order, torch.tensor([0.002]), epoch * 80)
        found.append(Pack(shape, tuple(weights)))
    return found


def test_networks_trained_by_bounds_are_certified_where_others_are_not(mnist5k: Dataset):
    axes = {"radius": 0.05, "kappa": 0.5, "natural_epochs": 1, "ramp_epochs": 3, "crown_share": 0.0}
    names = ("cross_entropy", "ibp", "crown_ibp")
    networks = trained(mnist5k, [(objective_of({"objective": name}), axes) for name in names], 6)
    images, labels = torch.from_numpy(mnist5k.x_test[::4]), torch.from_numpy(mnist5k.y_test[::4])
    points, ball = torch.arange(len(labels)), Ball("linf", 0.05)
    accuracy, certified = {}, {}
    for name, network in zip(names, networks, strict=True):
        accuracy[name] = (network(images)[0].argmax(1) == labels).float().mean().item()
        for by in ("ibp", "crown"):
            over_others = differences(network, images, ball, by, every=True)[0, points, labels]
            certified[name, by] = ((over_others > 0).sum(1) == 9).float().mean().item()
    assert certified["cross_entropy", "ibp"] == 0
    assert certified["cross_entropy", "crown"] < 0.3
    for name in names[1:]:
        assert accuracy[name] > 0.85
        assert certified[name, "ibp"] > 0.55
        assert certified[name, "crown"] > certified["cross_entropy", "crown"] + 0.4
