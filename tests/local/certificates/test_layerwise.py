"""Bounds through networks of any layers: beside the stages, exact where they can be, and what float32 makes of them."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from certificate_cases import (
    BALLS,
    CLASSES,
    PAIRS,
    RADII,
    SHAPES,
    all_rows,
    case,
    drawn_images,
    drawn_pack,
    exactly,
    pairs,
    sampled,
)

from deltaball.local.balls import Ball
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.certificates.differences import differences
from deltaball.local.certificates.enclosures import enclosed
from deltaball.local.certificates.layerwise import by_layers
from deltaball.local.certificates.lines import clamp_curve, leaky_relu_curve
from deltaball.local.exact import decide
from deltaball.local.notions import ClassChange
from deltaball.local.references import Reference
from deltaball.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Clamp,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    Layer,
    Layers,
    LeakyReLU,
    MaxPool,
    Normalise,
    Residual,
    Subsample,
)
from deltaball.networks.packs import Pack

RELU, SHAPE = Activation("relu"), (6, 6, 2)
MIXED: dict[str, tuple[Layer, ...]] = {
    "nothing between images and curves": (MaxPool(3, 2, (1, 1, 1, 1)), Clamp(0.1, 0.8), Flatten(), Dense(6), RELU),
    "curves in a row": (Flatten(), Dense(7), BatchNorm(), RELU, Clamp(0.0, 0.5), Activation("sigmoid"), Dense(5)),
    "overlapping pools": (Conv(3, 3, 1, "valid"), BatchNorm(), LeakyReLU(0.2), MaxPool(3, 2, "valid", True), Flatten()),
    "residual": (
        Normalise((0.4, 0.5), (0.6, 0.7)),
        Conv(3, 3),
        RELU,
        Residual((Conv(3, 3, bias=False), BatchNorm(), Activation("tanh"), Conv(3, 3))),
        RELU,
        Residual((Conv(5, 3, 2), RELU, Conv(5, 3)), (Subsample(2, 5),)),
        LeakyReLU(0.1),
        GlobalAveragePool(),
    ),
}
LINEAR = (
    Normalise((0.4, 0.5), (0.2, 0.3)),
    Conv(3, 3, 2, (1, 0, 1, 1)),
    BatchNorm(),
    Residual((Conv(3, 3),), (Conv(3, 1, bias=False),)),
    AveragePool(2, 2, "valid", True),
    Flatten(),
    Dense(5),
    Dense(CLASSES),
)


def mixed(name: str, gain: float = 1.5) -> Pack:
    return drawn_pack(Layers(SHAPE, (*MIXED[name], Dense(CLASSES))), gain=gain)


@pytest.mark.parametrize("by", ["ibp", "crown"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("name", SHAPES)
def test_layer_by_layer_bounds_are_those_of_stages(name: str, activation: str, by: str):
    pack, x = case(name, activation)
    for ball in BALLS[1::3]:
        around, rows = ball.around(x), all_rows(2, 2)
        one, other = enclosed(pack, around, by), by_layers(pack, around, by)
        torch.testing.assert_close(other.lower(rows), one.lower(rows), rtol=1e-9, atol=1e-9)
        assert (other.error <= one.error * (1 + 1e-9)).all()
        assert (other.error > 0.5 * one.error).all()


@pytest.mark.parametrize("gain", [1.5, 100.0])
@pytest.mark.parametrize("name", MIXED)
def test_nothing_that_is_sampled_is_outside(name: str, gain: float):
    pack, x, count = mixed(name, gain), drawn_images(SHAPE, 2), 1000
    for ball in BALLS[1::3]:
        points = sampled(pack, ball.around(x), count).flatten(0, 1)
        real, rounded = exactly(pack)(points.double()), pack(points).double()
        least = pairs(rounded).unflatten(1, (count, 2)).amin(1)
        loose, tight = (differences(pack, x, ball, by, every=True) for by in ("ibp", "crown"))
        assert (tight <= least)[..., PAIRS].all()
        assert (tight >= loose - 1e-9 * (1 + loose.abs())).all()
        off = (rounded - real).abs().unflatten(1, (count, 2)).amax(1)
        assert (off < enclosed(pack, ball.around(x), "crown").error).all()


@pytest.mark.parametrize("by", ["ibp", "crown"])
@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_the_bounds_of_a_linear_network_are_its_minima(ball: Ball, by: str):
    pack, x = drawn_pack(Layers(SHAPE, LINEAR)), drawn_images(SHAPE, 3)
    rows, around = all_rows(2, 3), ball.around(x)
    images = x.double().requires_grad_()
    values = pairs(exactly(pack)(images)).flatten(2)
    gradients = [
        torch.autograd.grad(values[k, :, row].sum(), images, retain_graph=True)[0].flatten(1)
        for k in range(2)
        for row in range(CLASSES**2)
    ]
    slopes = torch.stack(gradients).unflatten(0, (2, -1)).movedim(1, 2)
    truth = values.detach() + around.minimum(slopes)
    torch.testing.assert_close(enclosed(pack, around, by).lower(rows), truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MIXED)
def test_intervals_widen_with_the_ball_and_close_on_the_point(name: str):
    pack, x = mixed(name), drawn_images(SHAPE, 2)
    found = [enclosed(pack, Ball("linf", radius).around(x), "ibp") for radius in (0.0, *np.geomspace(1e-3, 1, 6))]
    found = [enclosure.lower(all_rows(2, 2)) for enclosure in found]
    torch.testing.assert_close(found[0], pairs(exactly(pack)(x.double())).flatten(2), rtol=1e-9, atol=1e-9)
    for smaller, larger in pairwise(found):
        assert (larger <= smaller + 1e-9).all()


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("by", ["ibp", "crown"])
def test_networks_and_points_are_alone_in_a_batch(name: str, by: str):
    pack, x = mixed(name), drawn_images(SHAPE, 3)
    together = differences(pack, x, BALLS[1], by, every=True)
    alone = [[differences(pack.one(k), one[None], BALLS[1], by, every=True) for one in x] for k in range(2)]
    torch.testing.assert_close(together, torch.cat([torch.cat(row, 1) for row in alone]), rtol=1e-9, atol=1e-9)


def test_dead_units_of_huge_weights_and_ties_are_no_obstacle():
    layers = Layers(SHAPE, (Conv(3, 3), BatchNorm(), RELU, Residual((Conv(3, 3), RELU)), Flatten(), Dense(CLASSES)))
    kernel, bias, gamma, beta, mean, variance, *rest = drawn_pack(layers).weights
    dead = Pack(layers, (kernel, bias, gamma * 1e6, beta - 1e9, mean, variance, *rest))
    x, ball = drawn_images(SHAPE, 2), Ball("linf", 0.3)
    assert (
        ClassChange().certified(Reference.output(dead(x)), LogitBounds(differences(dead, x, ball, "ibp", every=False)))
        == 1
    ).all()
    assert (decide(dead.one(0), x, ball, 20.0).outcome == 1).all()
    # Nothing moves and two classes tie: no certificate is given.
    tie = Pack(layers, (*dead.weights[:-2], torch.zeros_like(rest[-2]), torch.zeros_like(rest[-1])))
    assert (
        not ClassChange()
        .certified(Reference.output(tie(x)), LogitBounds(differences(tie, x, ball, "crown", every=False)))
        .any()
    )


@pytest.mark.parametrize("radius", [*RADII["linf"], 3.0])
@pytest.mark.parametrize("curve", ["leaky 0", "leaky 0.1", "clamp 0 1", "clamp -2 -1"])
def test_lines_enclose_leaky_relu_and_clamp(curve: str, radius: float):
    kind, *numbers = curve.split()
    ends = [float(number) for number in numbers]
    known = leaky_relu_curve(*ends) if kind == "leaky" else clamp_curve(*ends)
    low = torch.linspace(-3, 3, 241, dtype=torch.float64)
    high = low + radius
    at = low + torch.linspace(0, 1, 301, dtype=torch.float64)[:, None] * radius
    truth = torch.nn.functional.leaky_relu(at, ends[0]) if kind == "leaky" else at.clamp(*ends)
    lower, lower_offset, upper, upper_offset = known.lines(low, high)
    assert (lower * at + lower_offset <= truth + 1e-12).all()
    assert (upper * at + upper_offset >= truth - 1e-12).all()
    straight = ~known.curved(low, high)
    torch.testing.assert_close((lower * at + lower_offset)[:, straight], truth[:, straight], rtol=0, atol=1e-12)
    torch.testing.assert_close((upper * at + upper_offset)[:, straight], truth[:, straight], rtol=0, atol=1e-12)
    flat = known.constant(low, high)
    assert (truth[:, flat] == truth[:1, flat]).all()
