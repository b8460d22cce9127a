"""The allowance for float32, and networks without numbers."""

import math

import pytest
import torch
from certificate_cases import CLASSES, SHAPES, case, exactly, first_minus_second, one_pixel, sampled

from deltaball.local.balls import Ball
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.certificates.crown import backward, layer_bounds
from deltaball.local.certificates.differences import differences
from deltaball.local.certificates.enclosures import enclosed
from deltaball.local.exact import decide
from deltaball.local.notions import ClassChange, SoftmaxVariation
from deltaball.local.references import Reference
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.packs import Pack

own = Reference.output  # the predicted class and the logits at the point


@pytest.mark.parametrize("gain", [1.0, 100.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_the_allowance_covers_float32_and_is_tiny(name: str, activation: str, gain: float):
    pack, x = case(name, activation)
    pack = Pack(pack.layers, tuple(weight * gain for weight in pack.weights))
    around = Ball("linf", 0.03).around(x)
    points = sampled(pack, around, 500).flatten(0, 1)
    error = (pack(points).double() - exactly(pack)(points.double())).abs().unflatten(1, (500, 2))
    allowed = enclosed(pack, around, "crown").error
    assert (error.amax(1) < allowed).all()
    if gain == 1:
        assert (allowed < 1e-4 * pack(points).abs().amax()).all()


def test_a_margin_of_rounding_size_is_not_certified():
    # Class 0 is ahead of 1 by 1e-9 in real arithmetic everywhere; in float32 a sum of 1 + 1e-9 is a tie.
    hidden = [(1.0, 0.0), (1e-9, 0.0)]
    pack = one_pixel(hidden, [[1.0, 1.0], [1.0, 0.0]], "relu")
    x = torch.full((1, 1, 1, 1), 0.5)
    around = Ball("linf", 0.1).around(x)
    bounds = layer_bounds(pack, around, "crown")
    rows = torch.tensor([[[[1.0, -1.0]]]], dtype=torch.float64)
    assert backward(pack, around, rows, bounds).item() == pytest.approx(4e-10, rel=1e-5)
    assert first_minus_second(pack, Ball("linf", 0.1), "crown") < 0
    assert pack(x)[0, 0, 0] == pack(x)[0, 0, 1]
    # A margin of 1e-4 is.
    clear = one_pixel([(1.0, 0.0), (1e-4, 0.0)], [[1.0, 1.0], [1.0, 0.0]], "relu")
    assert first_minus_second(clear, Ball("linf", 0.1), "crown") > 3e-5


def test_errors_stop_at_units_that_are_surely_off():
    # Huge weights into dead units: the logits are the same everywhere, in float32 too.
    pack, x = case("fcn 3", "relu")
    weights = [weight * 1e6 if weight.ndim > 2 else weight for weight in pack.weights]
    weights[2:4] = [-weights[2].abs(), torch.full_like(weights[3], -1e15)]
    dead = Pack(pack.layers, tuple(weights))
    ball = Ball("linf", 0.3)
    around = ball.around(x)
    allowed = enclosed(dead, around, "crown").error
    assert (allowed < 1e-4 * dead(x).abs().amax()).all()
    assert (
        ClassChange().certified(Reference.output(dead(x)), LogitBounds(differences(dead, x, ball, "ibp", every=False)))
        == 1
    ).all()
    assert (decide(dead.one(0), x, ball, 10.0).outcome == 1).all()
    # A unit that is off by less than its rounding error may be on in float32.
    edge = one_pixel([(0.0, -1e-9), (1e6, 0.0)], [[1e6, 0.0], [0.0, 1.0]], "relu")
    around = Ball("linf", 0.1).around(torch.full((1, 1, 1, 1), 0.5))
    alive = one_pixel([(1e6, -600000.0625), (1e6, 0.0)], [[1e6, 0.0], [0.0, 1.0]], "relu")
    allowed = [enclosed(each, around, "crown").error[0, 0, 0] for each in (edge, alive)]
    assert allowed[0] < 1e-5
    assert allowed[1] > 1e4


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["fcn 3", "cnn 1"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_broken_network_certifies_nothing_and_spoils_no_neighbour(name: str, activation: str, value: float):
    pack, x = case(name, activation)
    for ball, by in [(Ball("linf", 0.0), "crown"), (Ball("linf", 0.01), "ibp"), (Ball("l1", 0.1), "crown")]:
        whole = differences(pack, x, ball, by, every=True)
        for index in range(len(pack.weights)):
            weights = [weight.clone() for weight in pack.weights]
            weights[index][0].view(-1)[-1] = value
            broken = Pack(pack.layers, tuple(weights))
            for every in (True, False):
                check_uncertified(differences(broken, x, ball, by, every=every)[0])
            torch.testing.assert_close(differences(broken, x, ball, by, every=True)[1], whole[1], rtol=1e-9, atol=1e-9)


def check_uncertified(found: torch.Tensor) -> None:
    """No notion certifies anything from differences [n, classes, classes], whatever the logits at the points."""
    point = torch.arange(CLASSES).expand(len(found), -1).float()
    assert not ClassChange().certified(own(point), LogitBounds(found)).any()
    assert (SoftmaxVariation().certified(own(point), LogitBounds(found)) == 1).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_network_that_may_overflow_in_float32_is_not_certified(activation: str):
    pack, x = case("fcn 1", activation)
    kernel, bias, last, end = pack.weights
    ball = Ball("linf", 0.01)
    large = Pack(pack.layers, (kernel, bias, torch.full_like(last, 3e38), end))
    assert differences(large, x, ball, "crown", every=True).isnan().all()
    check_uncertified(differences(large, x, ball, "crown", every=False)[0])
    # Of what is merely large it is not afraid.
    large = Pack(pack.layers, (kernel, bias, last * 1e30, end))
    assert differences(large, x, ball, "crown", every=True).isfinite().all()
