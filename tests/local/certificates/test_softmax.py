"""Bounds of the softmax: sound, exact where they can be, and nowhere looser than what pairs of classes say."""

import numpy as np
import pytest
import torch
from certificate_cases import BALLS, SHAPES, case, drawn_images, sampled

from deltaball.local.balls import Ball
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.certificates.differences import logit_bounds
from deltaball.local.notions import SoftmaxVariation, VariationAbove
from deltaball.local.references import Reference
from deltaball.networks.layers import Dense, Flatten, Layers
from deltaball.networks.packs import Pack

FLOAT32 = 1e-6


def linear(kernel: np.ndarray, bias: np.ndarray) -> Pack:
    """One network without hidden layers, of images of as many pixels as the kernel has rows."""
    layers = Layers((len(kernel), 1, 1), (Flatten(), Dense(kernel.shape[1])))
    return Pack.of(layers, [[kernel.astype(np.float32), bias.astype(np.float32)]])


@pytest.mark.parametrize("gain", [1.0, 200.0])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("name", ["fcn 1", "fcn 3", "cnn 1"])
@pytest.mark.parametrize("by", ["ibp", "crown"])
def test_it_holds_everywhere_and_is_nowhere_looser_than_pairs(name: str, activation: str, gain: float, by: str) -> None:
    pack, _ = case(name, activation)
    pack = Pack(pack.layers, (*pack.weights[:-2], *(weight * gain for weight in pack.weights[-2:])))
    x = drawn_images(SHAPES[name][2], 3, seed=2)
    own, tighter = Reference.output(pack(x)), 0
    for ball in BALLS:
        bounds = logit_bounds(pack, x, ball, by, None, softmax=True)
        lowest, highest = bounds.softmax.unbind(-1)
        found = torch.stack([pack(one) for one in sampled(pack, ball.around(x), 40)])
        softmaxes = found.double().softmax(-1)
        assert (softmaxes >= lowest - FLOAT32).all()
        assert (softmaxes <= highest + FLOAT32).all()
        pairs = LogitBounds(bounds.differences)
        least, most = pairs.softmax_range.unbind(-1)
        assert (lowest >= least).all()
        assert (highest <= most).all()
        tighter += ((highest < most - 1e-4) | (lowest > least + 1e-4)).sum().item()
        varied = SoftmaxVariation().outcome(Reference.output(own.logits.expand_as(found)), found, torch.ones(()))
        certified = SoftmaxVariation().certified(own, bounds)
        assert (certified >= varied.amax(0)).all()
        assert (certified <= SoftmaxVariation().certified(own, pairs)).all()
        assert (VariationAbove(0.1).certified(own, bounds) <= (varied.amax(0) <= 0.1)).all()
    assert tighter > 0 or by == "ibp" or gain > 1  # saturated, pairs say all


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_of_two_classes_without_hidden_layers_it_is_the_sigmoid_of_an_interval(norm: str) -> None:
    pack, x = (
        linear(np.array([[1.0, -1.0], [0.5, 2.0], [3.0, 0.0]]), np.array([0.2, 0.0])),
        torch.full((1, 3, 1, 1), 0.5),
    )
    reach = {"linf": 2 + 1.5 + 3, "l1": 3}[norm] * 0.1
    (lowest, highest), _ = logit_bounds(pack, x, Ball(norm, 0.1), "crown", None, softmax=True).softmax[0, 0]
    lead = (pack(x)[0, 0, 0] - pack(x)[0, 0, 1]).item()
    ends = torch.tensor([lead - reach, lead + reach], dtype=torch.float64).sigmoid()
    torch.testing.assert_close(torch.stack([lowest, highest]), ends, atol=1e-5, rtol=0)


def test_classes_of_which_only_one_can_rise_are_not_each_at_its_own_worst() -> None:
    """One pixel moves classes 1 and 2 apart: pairs let both rise, though what one gains the other loses."""
    pack, x = linear(np.array([[0.0, 20.0, -20.0]]), np.array([4.0, -10.0, 10.0])), torch.full((1, 1, 1, 1), 0.5)
    bounds = logit_bounds(pack, x, Ball("linf", 0.2), "crown", None, softmax=True)
    reached = torch.tensor([[4.0, t, -t] for t in np.linspace(-4, 4, 801)], dtype=torch.float64).softmax(-1)[:, 0]
    lowest, highest = bounds.softmax[0, 0, 0]
    least, most = LogitBounds(bounds.differences).softmax_range[0, 0, 0]
    # The two chords add up to a constant, which is attained at both ends.
    torch.testing.assert_close(lowest, reached.amin(), atol=1e-5, rtol=0)
    assert least < reached.amin() - 0.1
    assert reached.amax() <= highest < most


@pytest.mark.parametrize("lead", [60.0, 1e4, 1e30])
def test_saturated_logits_are_bounded_without_overflow(lead: float) -> None:
    pack, x = linear(np.zeros((1, 3)), np.array([lead, 0.0, -lead])), torch.full((1, 1, 1, 1), 0.5)
    bounds = logit_bounds(pack, x, Ball("linf", 0.1), "crown", None, softmax=True)
    assert bounds.softmax.isfinite().all()
    change = SoftmaxVariation().certified(Reference.output(pack(x)), bounds).item()
    assert 0 <= change <= FLOAT32


def test_ties_vary_as_far_as_rounding_allows() -> None:
    pack, x = linear(np.zeros((2, 4)), np.zeros(4)), torch.full((1, 2, 1, 1), 0.5)
    bounds = logit_bounds(pack, x, Ball("l2", 0.3), "crown", None, softmax=True)
    torch.testing.assert_close(bounds.softmax, torch.full((1, 1, 4, 2), 0.25, dtype=torch.float64), atol=1e-6, rtol=0)


def test_where_nothing_is_known_of_logits_nothing_is_of_softmax() -> None:
    pack, x = linear(np.full((1, 3), 3e38), np.zeros(3)), torch.full((1, 1, 1, 1), 0.9)
    pack = Pack(pack.layers, (pack.weights[0] * 10, pack.weights[1]))
    bounds = logit_bounds(pack, x, Ball("linf", 0.1), "crown", None, softmax=True)
    assert SoftmaxVariation().certified(Reference.output(pack(x)), bounds).tolist() == [[1]]
