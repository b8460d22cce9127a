"""Certificates against closed forms, nets solved by hand, and networks for which they are exact."""

import math

import numpy as np
import pytest
import torch
from certificate_cases import (
    BALLS,
    CLASSES,
    bounded,
    case,
    drawn_images,
    drawn_pack,
    entering,
    exactly,
    first_minus_second,
    one_pixel,
)
from scipy.optimize import linprog

from deltaball.local.balls import Ball
from deltaball.local.certificates.crown import backward, layer_bounds
from deltaball.local.certificates.differences import differences
from deltaball.local.certificates.enclosures import enclosed
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.layers import Activation, Conv, Dense, Flatten, Layers, MaxPool, Shape
from deltaball.networks.packs import Pack, logits


@pytest.mark.parametrize("by", ["ibp", "crown"])
@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_bounds_of_a_linear_network_are_its_minima(ball: Ball, by: str):
    pack = drawn_pack(Layers((4, 3, 1), (Flatten(), Dense(CLASSES))))
    x = drawn_images((4, 3, 1), 5)
    if ball.norm == "l2":
        x = 0.5 + 0 * x  # away from the border the minimum has a closed form
        ball = Ball("l2", min(ball.delta, 0.4))
    around = ball.around(x)
    found = differences(pack, x, ball, by, every=True)
    allowed = enclosed(pack, around, by).error
    found = found + allowed[..., :, None] + allowed[..., None, :]
    flat = x.flatten(1).double().numpy()
    for k in range(len(pack)):
        kernel, bias = (weight[k].double().numpy() for weight in pack.weights)
        for i in range(CLASSES):
            for j in set(range(CLASSES)) - {i}:
                row, offset = kernel[:, i] - kernel[:, j], bias[i] - bias[j]
                match ball.norm:
                    case "linf":
                        corner = (flat - ball.delta * np.sign(row)).clip(0, 1)
                        least = corner @ row
                    case "l2":
                        least = flat @ row - ball.delta * np.linalg.norm(row)
                    case "l1":
                        least = [linear_minimum(row, point, ball.delta) for point in flat]
                np.testing.assert_allclose(found[k, :, i, j], least + offset, rtol=0, atol=1e-6)


def linear_minimum(row: np.ndarray, point: np.ndarray, delta: float) -> float:
    """min row·z over the L1 ball around a point, within [0, 1], as a linear program in z = point + up - down."""
    bounds = [(0, 1 - one) for one in point] + [(0, one) for one in point]
    found = linprog(np.concatenate([row, -row]), A_ub=np.ones((1, 2 * len(row))), b_ub=[delta], bounds=bounds)
    return row @ point + found.fun


@pytest.mark.parametrize("by", ["ibp", "crown"])
@pytest.mark.parametrize("ball", BALLS[1::3], ids=str)
@pytest.mark.parametrize("name", ["fcn 1", "cnn 1"])
def test_bounds_of_the_first_layer_are_attained(name: str, ball: Ball, by: str):
    pack, x = case(name, "relu")
    around = ball.around(x)
    bounds = layer_bounds(pack, around, by)[0]
    for unit in range(7):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(entering(pack, leaf)[0][0, :, unit].sum(), leaf)
        for bound, sign in zip(bounds, (-1, 1), strict=True):
            reached = entering(exactly(pack), around.steepest(sign * gradient).double())[0]
            torch.testing.assert_close(bound[0, :, unit], reached[0, :, unit], rtol=0, atol=1e-5)


def test_relu_networks_solved_by_hand():
    # z = 2x - 1 is within ±1/2 for x = 1/2 ± 1/4. |z| = relu(z) + relu(-z): the triangle's upper lines (z + 1/2) / 2
    # and (-z + 1/2) / 2 add to 1/2, the exact maximum, where intervals allow 1/2 each; the lower slopes are 0, so 0.
    ball = Ball("linf", 0.25)
    absolute = [(2.0, -1.0), (-2.0, 1.0)]
    rising, falling = ([[sign, 0.0]] * 2 for sign in (1.0, -1.0))
    for outputs, by, expected in [
        (rising, "ibp", 0),
        (rising, "crown", 0),
        (falling, "ibp", -1),
        (falling, "crown", -1 / 2),
    ]:
        found = first_minus_second(one_pixel(absolute, outputs, "relu"), ball, by)
        assert found == pytest.approx(expected, abs=1e-5)
    # z = 2x - 1/2 is within [0, 1], decided: relu(z) - relu(z) is 0 by CROWN and within ±1 by intervals.
    cancelling = one_pixel([(2.0, -0.5)] * 2, [[1.0, 0.0], [-1.0, 0.0]], "relu")
    assert first_minus_second(cancelling, ball, "ibp") == pytest.approx(-1, abs=1e-5)
    assert first_minus_second(cancelling, ball, "crown") == pytest.approx(0, abs=1e-5)
    # z = 2x - 3/4 is within [-1/4, 3/4]: lower slope 1, so 2 relu(z) - 2z ≥ 0, where a slope of 0 would give -3/2.
    steeper = one_pixel([(2.0, -0.75), (2.0, 0.0)], [[2.0, 0.0], [-2.0, 0.0]], "relu")
    assert first_minus_second(steeper, ball, "crown") == pytest.approx(-3 / 2, abs=1e-5)


def test_a_tanh_unit_solved_by_hand():
    # z = 4x - 2 + 1 is within [0, 2], where tanh is concave: below it the chord, above it the tangent at 1.
    pack, around = (
        one_pixel([(4.0, -1.0)], [[1.0, 0.0]], "tanh"),
        Ball("linf", 0.25).around(torch.full((1, 1, 1, 1), 0.5)),
    )
    rows = torch.tensor([[[[1.0, -1.0], [-1.0, 1.0]]]], dtype=torch.float64)
    lower = backward(pack, around, rows, layer_bounds(pack, around, "crown"))
    assert lower[0, 0].tolist() == pytest.approx([0, -(math.tanh(1) + math.cosh(1) ** -2)], abs=1e-12)


def test_a_pool_solved_by_hand():
    # Four pixels 0.1, 0.2, 0.5, 0.9 ± δ through an identity and a pool: up to δ = 0.2 the last is always the largest.
    found = Layers((2, 2, 1), (Conv(1, 1), Activation("relu"), MaxPool(), Flatten(), Dense(2)))
    one = np.ones((1, 1, 1, 1), np.float32)
    pack = Pack.of(found, [[one, np.zeros(1, np.float32), np.array([[1, 0]], np.float32), np.zeros(2, np.float32)]])
    x = torch.tensor([0.1, 0.2, 0.5, 0.9]).reshape(1, 2, 2, 1)
    for delta, by, least, most in [
        (0.2, "crown", 0.7, 1.0),
        (0.3, "crown", 0.6, 1.0),
        (0.3, "ibp", 0.6, 1.0),
    ]:
        difference = differences(pack, x, Ball("linf", delta), by, every=True)[0, 0]
        assert difference[0, 1].item() == pytest.approx(least, abs=1e-5)
        assert difference[1, 0].item() == pytest.approx(-most, abs=1e-5)


def dense_of(convolution: Conv, shape: Shape, kernel: np.ndarray) -> np.ndarray:
    """A convolution of images of a shape as a Dense kernel, column by column from images with one pixel."""
    units = torch.eye(math.prod(shape)).unflatten(1, shape)
    weights = [torch.from_numpy(kernel)[None], torch.zeros(1, convolution.filters)]
    return logits(Layers(shape, (convolution, Flatten())), weights, units)[0].numpy()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("ball", BALLS[1::3], ids=str)
@pytest.mark.parametrize("size", [2, 3, 5])
def test_convolutions_are_bounded_as_the_dense_layers_that_they_are(activation: str, ball: Ball, size: int):
    shape, last, function = (4, 5, 2), Dense(CLASSES), Activation(activation)
    convolutions = [layer for filters in (3, 2, 2) for layer in (Conv(filters, size), function)]
    found = Layers(shape, (*convolutions, Flatten(), last))
    random = np.random.default_rng(0)
    shapes = found.weight_shapes[:-2]
    kernels = [random.normal(0, 0.5, one).astype(np.float32) for one in shapes[::2]]
    biases = [random.normal(0, 0.3, one).astype(np.float32) for one in shapes[1::2]]
    end = [random.normal(0, 0.5, (40, CLASSES)).astype(np.float32), np.zeros(CLASSES, np.float32)]
    images = Pack.of(found, [[*(one for pair in zip(kernels, biases, strict=True) for one in pair), *end]])
    dense = [Flatten()]
    weights = []
    convolved = [place for place in found.walk() if isinstance(place[0], Conv)]
    for place, kernel, bias in zip(convolved, kernels, biases, strict=True):
        matrix = dense_of(*place, kernel)
        dense += [Dense(matrix.shape[1]), function]
        weights += [matrix, np.tile(bias, 20)]
    flat = Pack.of(Layers(shape, (*dense, last)), [[*weights, *end]])
    x = drawn_images(shape, 3)
    torch.testing.assert_close(images(x), flat(x), rtol=1e-5, atol=1e-5)
    around = ball.around(x)
    ours, theirs = (layer_bounds(pack, around, "crown") for pack in (images, flat))
    for pair, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(pair, other, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(bounded(images, around), bounded(flat, around), rtol=1e-7, atol=1e-7)
