"""Differences of logits in batches, and beside what attacks find."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from certificate_cases import BALLS, CLASSES, RADII, SHAPES, case, drawn_images, drawn_pack, exactly, pairs

from deltaball.local.balls import Ball
from deltaball.local.certificates import crown
from deltaball.local.certificates import differences as room
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.certificates.differences import differences
from deltaball.local.certificates.lines import CURVES
from deltaball.local.losses import margin_loss, variation
from deltaball.local.notions import ClassChange, SoftmaxVariation
from deltaball.local.references import Reference
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.layers import Dense, Flatten, Layers
from deltaball.networks.packs import Pack

own = Reference.output  # the predicted class and the logits at the point


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("by", ["ibp", "crown"])
def test_a_batch_is_what_its_networks_and_points_are_alone(
    name: str, activation: str, by: str, monkeypatch: pytest.MonkeyPatch
):
    pack, x = case(name, activation)
    x = torch.cat([x, drawn_images(x.shape[1:], 3, seed=5)])
    own = torch.stack([x, x.flip(0)])
    for norm, ball in [(ball.norm, ball) for ball in BALLS[1::3]]:
        together = differences(pack, x, ball, by, every=True)
        each = differences(pack, own, ball, by, every=True)
        for k in range(2):
            alone = pack.one(k)
            found = torch.cat([differences(alone, one[None], ball, by, every=True) for one in x], 1)
            torch.testing.assert_close(together[k : k + 1], found, rtol=1e-9, atol=1e-9, msg=norm)
            torch.testing.assert_close(each[k : k + 1], found if k == 0 else found.flip(1), rtol=1e-9, atol=1e-9)
        with monkeypatch.context() as small:
            for one in (crown, room):
                small.setattr(one, "ELEMENTS", {"cpu": 3000})
            torch.testing.assert_close(differences(pack, x, ball, by, every=True), together, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(differences(pack, own, ball, by, every=True), each, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("by", ["ibp", "crown"])
def test_the_rows_of_the_predicted_class_are_among_all(by: str):
    pack, x = case("cnn 1", "relu")
    every, some = (differences(pack, x, BALLS[1], by, every=every) for every in (True, False))
    assert every.isfinite().all()
    assert (every.diagonal(dim1=-2, dim2=-1) == 0).all()
    predicted = pack(x).argmax(-1)
    for k in range(2):
        for n in range(2):
            row = predicted[k, n]
            torch.testing.assert_close(some[k, n, row], every[k, n, row], rtol=1e-9, atol=1e-9)
            assert (some[k, n, [i for i in range(CLASSES) if i != row]] == -torch.inf).all()


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_each_row_has_the_better_of_two_choices_of_lines(activation: str, monkeypatch: pytest.MonkeyPatch):
    pack, x = case("fcn 3", activation)
    both = differences(pack, x, BALLS[1], "crown", every=True)
    curve, better = CURVES[activation], 0
    for alone in (replace(curve, others=None), replace(curve, lines=curve.others, others=None)):
        monkeypatch.setitem(CURVES, activation, alone)
        found = differences(pack, x, BALLS[1], "crown", every=True)
        assert (both >= found - 1e-9).all()
        better += (both > found + 1e-8).sum().item()
    assert better > 0


def attacked(pack: Pack, x: torch.Tensor, ball: Ball) -> torch.Tensor:
    """float32 images [steps, K, n, h, w, c] of the ball on a way up the margin loss, from the point and its corners."""
    around, point, found = ball.around(x), pack(x), []
    random = torch.Generator().manual_seed(0)
    for restart in range(3):
        moved = x.expand(len(pack), *x.shape)
        if restart:
            moved = around.steepest(torch.randn(moved.shape, generator=random))
        for _ in range(10):
            leaf = moved.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(margin_loss(own(point), pack(leaf)).sum(), leaf)
            moved = (
                around.steepest(-gradient) if restart == 1 else around.project(moved + gradient.sign() * ball.delta / 4)
            )
            found.append(moved)
            found.append(around.steepest(gradient))
    return torch.stack(found)


@pytest.mark.parametrize("gain", [1.0, 1000.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["fcn 1", "fcn 3", "cnn 1"])
def test_no_attack_contradicts_a_certificate(name: str, activation: str, gain: float):
    pack, _ = case(name, activation)
    pack = Pack(pack.layers, (*pack.weights[:-2], *(weight * gain for weight in pack.weights[-2:])))
    x = drawn_images(SHAPES[name][2], 25, seed=3)
    point, certified = pack(x), 0
    for norm, radii in RADII.items():
        for radius in np.geomspace(radii[0], radii[1], 3):
            ball = Ball(norm, radius)
            moved = attacked(pack, x, ball)
            outputs = torch.stack([pack(one) for one in moved])
            distance = torch.stack([ball.around(x).distance(one) for one in moved])
            before = point.expand_as(outputs)
            robust = ClassChange().outcome(own(before), outputs, distance).amin(0)
            changed = SoftmaxVariation().outcome(own(before), outputs, distance).amax(0)
            for by in ("ibp", "crown"):
                proven = differences(pack, x, ball, by, every=True)
                assert (ClassChange().certified(own(point), LogitBounds(proven)) <= robust).all()
                assert (SoftmaxVariation().certified(own(point), LogitBounds(proven)) >= changed - 1e-6).all()
                row = differences(pack, x, ball, by, every=False)
                assert torch.equal(
                    ClassChange().certified(own(point), LogitBounds(row)),
                    ClassChange().certified(own(point), LogitBounds(proven)),
                )
            certified += ClassChange().certified(own(point), LogitBounds(proven)).sum().item()
    assert certified > 10  # else nothing was shown


def test_certified_variation_is_close_to_what_attacks_find():
    # Tight for small balls; two classes and no hidden layer: exact.
    pack, x = case("fcn 1", "relu")
    x = drawn_images(SHAPES["fcn 1"][2], 40, seed=3)
    ball = Ball("linf", 0.01)
    found = torch.stack([variation(own(pack(x)), pack(one)) for one in attacked(pack, x, ball)])
    certified = SoftmaxVariation().certified(own(pack(x)), LogitBounds(differences(pack, x, ball, "crown", every=True)))
    # Bounds of pairs cannot be attained by all pairs at once; the attack ascends another loss.
    assert (certified.mean() / found.amax(0).mean()).item() < 1.6
    linear = drawn_pack(Layers(SHAPES["fcn 1"][2], (Flatten(), Dense(2))))
    certified = SoftmaxVariation().certified(
        own(linear(x)), LogitBounds(differences(linear, x, ball, "crown", every=True))
    )
    row = (linear.weights[0][..., 0] - linear.weights[0][..., 1]).double()
    around = ball.around(x)
    least, most = (around.minimum(sign * row[:, None, None].expand(-1, 40, -1, -1))[..., 0] for sign in (1, -1))
    now = pairs(exactly(linear)(x.double()))[..., 0, 1]
    exact = torch.maximum(now.sigmoid() - (now + least).sigmoid(), (now - most).sigmoid() - now.sigmoid())
    torch.testing.assert_close(certified.double(), exact, rtol=0, atol=1e-5)
