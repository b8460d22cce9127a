"""Bounds contain the truth, tighten and widen as they must, and serve branch and bound."""

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
    bounded,
    case,
    entering,
    exactly,
    pairs,
    sampled,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.local.balls import Ball
from deltaball.local.certificates import crown
from deltaball.local.certificates.crown import backward, layer_bounds
from deltaball.local.certificates.differences import differences
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.packs import Pack


def check_sound(pack: Pack, x: torch.Tensor, ball: Ball, count: int) -> None:
    """No sampled point of the ball lies outside of any bound; CROWN is nowhere looser than intervals."""
    around, precise = ball.around(x), exactly(pack)
    points = sampled(pack, around, count)
    seen = points.flatten(0, 1).double()
    outputs = pairs(precise(seen).unflatten(1, (count, len(x))))
    least = outputs.amin(1)
    intervals, crown = (differences(pack, x, ball, by, every=True) for by in ("ibp", "crown"))
    scale = 1 + outputs.abs().amax()
    assert (intervals <= least)[..., PAIRS].all()
    assert (crown <= least)[..., PAIRS].all()
    assert (bounded(pack, around) <= least + 1e-12 * scale)[..., PAIRS].all()
    assert (crown >= intervals - 1e-9 * scale).all()
    loose, tight = (layer_bounds(pack, around, by) for by in ("ibp", "crown"))
    for values, (low, high), (lower, upper) in zip(entering(precise, seen), loose, tight, strict=True):
        assert values.shape[-1] == low.shape[-1] == lower.shape[-1]
        values = values.unflatten(1, (count, len(x)))
        slack = 1e-12 * (1 + values.abs().amax())
        assert (values >= lower[:, None] - slack).all()
        assert (values <= upper[:, None] + slack).all()
        assert (low - slack <= lower).all()
        assert (upper <= high + slack).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_bounds_contain_ten_thousand_points(name: str, activation: str):
    pack, x = case(name, activation)
    x = x[:1]
    check_sound(pack, x, BALLS[(3 * list(SHAPES).index(name) + list(ACTIVATIONS).index(activation) + 1) % 9], 10_000)


@settings(max_examples=40)
@given(
    st.sampled_from(list(SHAPES)),
    st.sampled_from(list(ACTIVATIONS)),
    st.sampled_from(BALLS),
    st.sampled_from([0.5, 1.5, 4.0]),
    st.integers(0, 10**6),
)
def test_bounds_contain_the_truth(name: str, activation: str, ball: Ball, gain: float, seed: int):
    check_sound(*case(name, activation, seed, gain), ball, 300)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["fcn 1", "cnn 1"])
def test_saturated_networks_are_bounded_soundly(name: str, activation: str):
    pack, x = case(name, activation)
    saturated = Pack(pack.layers, tuple(weight * 1000 for weight in pack.weights))
    for ball in BALLS[1::3]:
        check_sound(saturated, x, ball, 500)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_a_ball_of_no_radius_has_the_logits_of_its_point(name: str, activation: str):
    pack, x = case(name, activation)
    truth = pairs(exactly(pack)(x.double()))
    for norm in RADII:
        around = Ball(norm, 0.0).around(x)
        torch.testing.assert_close(bounded(pack, around), truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["fcn 3", "cnn 2, even kernel", "cnn 3", "vgg"])
def test_crown_tightens_all_layers_on_which_its_lines_depend(
    name: str, activation: str, monkeypatch: pytest.MonkeyPatch
):
    pack, x = case(name, activation)
    around = Ball("linf", 0.03).around(x)
    loose, tight = (layer_bounds(pack, around, by) for by in ("ibp", "crown"))
    widths = [[high - low for low, high in bounds] for bounds in (loose, tight)]
    kept = [(narrow / wide).mean().item() for wide, narrow in zip(*widths, strict=True)]
    assert kept[0] == 1
    assert max(kept[1:]) < 0.98
    # Bounds of the others change nothing.
    found = bounded(pack, around)
    monkeypatch.setattr(crown, "needed", lambda stage, low, high: torch.ones_like(low, dtype=torch.bool))
    torch.testing.assert_close(bounded(pack, around), found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["fcn 3", "cnn 3"])
def test_without_time_layers_have_intervals(name: str):
    pack, x = case(name, "relu")
    around = Ball("linf", 0.03).around(x)
    late, loose = layer_bounds(pack, around, "crown", -np.inf), layer_bounds(pack, around, "ibp")
    torch.testing.assert_close(late, loose)
    in_time, tight = layer_bounds(pack, around, "crown", np.inf), layer_bounds(pack, around, "crown")
    torch.testing.assert_close(in_time, tight, rtol=0, atol=0)
    assert (tight[-1][0] > loose[-1][0]).any()


@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("name", SHAPES)
def test_intervals_widen_with_the_ball(name: str, norm: str):
    # CROWN's need not: a lower slope of ReLU that jumps between 0 and 1 may help a larger ball.
    pack, x = case(name, "relu")
    radii = [0, *np.geomspace(0.003, 3, 12)]
    found = [differences(pack, x, Ball(norm, radius), "ibp", every=True) for radius in radii]
    for smaller, larger in pairwise(found):
        assert (larger <= smaller + 1e-9)[..., PAIRS].all()
    assert (found[-1] < found[0] - 0.1)[..., PAIRS].all()


@pytest.mark.parametrize("norm", RADII)
def test_crown_with_the_same_slopes_falls_with_the_ball(norm: str):
    pack, x = case("fcn 1", "relu")
    slopes = [torch.full((1, 1, 1, 12), 0.4, dtype=torch.float64)]
    found = [bounded(pack, Ball(norm, radius).around(x), slopes=slopes) for radius in np.geomspace(0.003, 3, 12)]
    for smaller, larger in pairwise(found):
        assert (larger <= smaller + 1e-9)[..., PAIRS].all()


@pytest.mark.parametrize("name", ["fcn 3", "cnn 2, even kernel"])
@pytest.mark.parametrize("kind", RADII)
def test_balls_of_several_radii_are_each_alone(name: str, kind: str):
    pack, x = case(name, "tanh")
    radii = RADII[kind][1:]
    of = type(Ball(kind, 1.0).around(x))
    together = bounded(pack, of(x, torch.tensor(radii, dtype=torch.float64)))
    for n, radius in enumerate(radii):
        alone = bounded(pack, of(x[n : n + 1], radius))
        torch.testing.assert_close(together[:, n : n + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["fcn 3", "cnn 2, even kernel", "vgg"])
def test_any_slopes_are_sound_and_their_gradient_helps(name: str):
    pack, x = case(name, "relu")
    around = Ball("linf", 0.1).around(x)
    least = pairs(exactly(pack)(sampled(pack, around, 2000).flatten(0, 1).double()).unflatten(1, (2000, 2))).amin(1)
    bounds = layer_bounds(pack, around, "crown")
    rows = all_rows(2, 2)
    random = torch.Generator().manual_seed(0)
    slopes = [
        torch.rand(2, 2, rows.shape[2], low.shape[-1], generator=random, dtype=torch.float64) for low, _ in bounds
    ]
    slopes = [one.requires_grad_() for one in slopes]
    lower = backward(pack, around, rows, bounds, slopes=slopes)
    assert (lower.detach().unflatten(-1, (CLASSES, CLASSES)) <= least + 1e-12)[..., PAIRS].all()
    gradients = torch.autograd.grad(lower.sum(), slopes)
    better = [(one + 1e-3 * gradient.sign()).clamp(0, 1) for one, gradient in zip(slopes, gradients, strict=True)]
    raised = backward(pack, around, rows, bounds, slopes=better)
    assert raised.sum() > lower.sum() + 1e-4
    # Of the same slopes for all rows, one row will do.
    shared = [one[:, :, :1] for one in slopes]
    found = backward(pack, around, rows, bounds, slopes=shared)
    repeated = [one.expand(-1, -1, rows.shape[2], -1) for one in shared]
    torch.testing.assert_close(found, backward(pack, around, rows, bounds, slopes=repeated))


@pytest.mark.parametrize("name", ["fcn 3", "cnn 1"])
def test_multipliers_bound_the_subproblem_of_their_splits(name: str):
    pack, x = case(name, "relu")
    around, count = Ball("linf", 0.15).around(x), 4000
    points = sampled(pack, around, count).flatten(0, 1).double()
    outputs = pairs(exactly(pack)(points).unflatten(1, (count, 2)))
    values = [one.unflatten(1, (count, 2)) for one in entering(exactly(pack), points)]
    bounds = layer_bounds(pack, around, "crown")
    random, rows = torch.Generator().manual_seed(0), all_rows(2, 2)
    whole, helped, tested = bounded(pack, around), 0, 0
    for layer, (low, high) in enumerate(bounds):
        # Split the unit with the widest triangle, to either side.
        unit = (high.clamp(min=0) * -low.clamp(max=0)).argmax(-1, keepdim=True)
        for sign in (1, -1):
            tightened = list(bounds)
            cut = (low.scatter(-1, unit, 0.0), high) if sign == 1 else (low, high.scatter(-1, unit, 0.0))
            tightened[layer] = cut
            multipliers = [torch.zeros(2, 2, 1, one.shape[-1], dtype=torch.float64) for one, _ in bounds]
            force = torch.rand(2, 2, 1, generator=random, dtype=torch.float64)
            multipliers[layer] = multipliers[layer].scatter(-1, unit[:, :, None], -sign * force[..., None])
            lower = backward(pack, around, rows, tightened, multipliers=multipliers)
            lower = lower.unflatten(-1, (CLASSES, CLASSES))
            inside = (sign * values[layer].gather(-1, unit[:, None].expand(-1, count, -1, -1)) >= 0)[..., None]
            least = torch.where(inside, outputs, torch.inf).amin(1)
            assert (lower <= least + 1e-12)[..., PAIRS].all()
            helped += (lower > whole + 1e-6).sum().item()
            tested += inside.sum().item()
    assert helped > 0
    assert tested > 1000
