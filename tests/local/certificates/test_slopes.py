"""How steep logits are at most: by hand, of linear networks exactly, and never below what sampled images show."""

import numpy as np
import pytest
import torch
from attack_cases import linear_pack
from certificate_cases import SHAPES, case, drawn_images, drawn_pack
from step_cases import RESIDUAL

from deltaball.base.errors import InputError
from deltaball.local.balls import Ball
from deltaball.local.certificates import layerwise
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.certificates.differences import logit_bounds
from deltaball.local.certificates.slopes import steepest
from deltaball.local.judges import judge
from deltaball.local.output_notions import LipschitzRobustness, StandardRobustness
from deltaball.local.points import references
from deltaball.networks import packs
from deltaball.networks.layers import (
    AveragePool,
    Clamp,
    Conv,
    Dense,
    Flatten,
    Layer,
    Layers,
    LeakyReLU,
    MaxPool,
    Normalise,
)
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers
from deltaball.study.notions import NEAREST

RADII = {"linf": (0.01, 0.2), "l2": (0.05, 0.8), "l1": (0.1, 2.0)}
OTHERS = (
    Normalise((0.4, 0.6), (0.2, 0.5)),
    Conv(3, 3, bias=False),
    LeakyReLU(0.1),
    MaxPool(3, 2),  # whose windows overlap
    AveragePool(2, 1),
    Flatten(),
    Dense(4),
    Clamp(-0.5, 0.6),
)
CURVED = ("fcn 3", "cnn 2, even kernel")
CASES = {
    **{f"{name}, relu": case(name, "relu") for name in SHAPES},
    **{f"{name}, {curve}": case(name, curve) for name in CURVED for curve in ("tanh", "sigmoid")},
    "every layer": (drawn_pack(Layers((6, 5, 2), RESIDUAL)), drawn_images((6, 5, 2), 3)),
    "other layers": (drawn_pack(Layers((7, 6, 2), OTHERS)), drawn_images((7, 6, 2), 3)),
}


@pytest.mark.parametrize("norm", RADII)
def test_of_a_linear_network_they_are_its_weights(norm: str):
    pack, x = linear_pack(4, 2), torch.rand(5, 4, 3, 1, generator=torch.Generator().manual_seed(0))
    dual = {"linf": 1, "l2": 2, "l1": float("inf")}[norm]
    expected = torch.linalg.vector_norm(pack.weights[0].double(), dual, 1)[:, None].expand(2, 5, 4)
    for by in ("ibp", "crown"):
        torch.testing.assert_close(steepest(pack, Ball(norm, 0.1).around(x), by, NEAREST), expected)


@pytest.mark.parametrize(("radius", "expected"), [(0.2, 1.0), (0.05, 0.0)])
def test_of_two_units_they_are_those_worked_out_by_hand(radius: float, expected: float):
    """relu(x - 0.4) + relu(0.6 - x) at 0.5: within 0.2 each may be off, within 0.05 none is, and they cancel."""
    kernels = [np.float32([[1, -1]]), np.float32([-0.4, 0.6]), np.float32([[1, 0], [1, 0]]), np.float32([0, 0])]
    found = layers("fcn", {"depth": 1, "width": 2, "activation": "relu"}, (1, 1, 1), 2)
    around = Ball("linf", radius).around(torch.full((1, 1, 1, 1), 0.5))
    assert steepest(Pack.of(found, [kernels]), around, "ibp", NEAREST).tolist() == [[[expected, 0.0]]]
    # From 0.5 to 0.7 it rises by 0.1 in truth.
    by_lines = steepest(Pack.of(found, [kernels]), around, "crown", NEAREST)[0, 0, 0]
    assert expected / 2 - 1e-9 <= by_lines < expected or not expected


@pytest.mark.parametrize(("networks", "x"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("norm", RADII)
def test_no_image_of_the_ball_is_steeper_or_moves_logits_further(networks: Pack, x: torch.Tensor, norm: str):
    generator = torch.Generator().manual_seed(0)
    for radius in RADII[norm]:
        around = Ball(norm, radius).around(x)
        found = {by: steepest(networks, around, by, NEAREST) for by in ("ibp", "crown")}
        for _ in range(5):
            noise = torch.randn((len(networks), *x.shape), generator=generator)
            images = torch.lerp(x.expand_as(noise), around.steepest(noise), torch.rand(1, generator=generator))
            leaf = images.double().requires_grad_()
            logits = packs.logits(networks.layers, [weight.double() for weight in networks.weights], leaf)
            for j in range(logits.shape[-1]):
                (slope,) = torch.autograd.grad(logits[..., j].sum(), leaf, retain_graph=True)
                assert (around.dual_length(slope) <= found["ibp"][..., j] * (1 + 1e-9) + 1e-12).all()
            moved, distance = (networks(images) - networks(x)).abs().double(), around.distance(images)[..., None]
            assert ((moved <= found["crown"] * distance + 1e-5) | (distance < NEAREST)).all()
    assert (found["crown"] <= found["ibp"] * (1 + 1e-9)).all()


def test_smaller_balls_are_no_steeper():
    networks, x = CASES["cnn 1, relu"]
    small, large = (steepest(networks, Ball("linf", radius).around(x), "crown", NEAREST) for radius in (0.005, 0.1))
    assert (small <= large * (1 + 1e-9)).all()
    assert (small < 0.9 * large).any()


@pytest.mark.parametrize("distance", ["linf", "l2"])
@pytest.mark.parametrize("norm", RADII)
def test_what_is_certified_holds_under_attack_and_implies_sr(norm: str, distance: str):
    """LR(ε, L) ⇒ SR(ε, εL), of constants of which some points have it and others not."""
    networks, x = case("fcn 1", "relu")
    ball, labels = Ball(norm, RADII[norm][0]), torch.zeros(len(x), dtype=torch.int64)
    slopes = logit_bounds(networks, x, ball, "crown", None, slopes=True).slopes
    lengths = slopes.amax(-1) if distance == "linf" else torch.linalg.vector_norm(slopes, dim=-1)
    constant = float(lengths.median()) * (1 + 1e-9)
    lipschitz = LipschitzRobustness(constant, distance=distance)
    standard = StandardRobustness(constant * ball.delta * (1 + 1e-6), distance=distance)

    def said(name: str) -> dict:
        verdicts = judge(name)(networks, x, {ball: [lipschitz, standard]}, range(len(x)), labels)
        return {kind: verdict.outcome for _, kind, verdict in verdicts}

    proven, attacked = said("crown"), said("pgd")
    assert 0 < proven[lipschitz].mean() < 1
    for kind in (lipschitz, standard):
        assert (proven[kind] <= attacked[kind]).all()
        assert (proven[lipschitz] <= attacked[kind]).all()


def test_rounding_is_allowed_for_and_closer_images_are_not_compared():
    networks, x = case("fcn 1", "relu")
    ball = Ball("linf", 0.05)
    exact = steepest(networks, ball.around(x), "crown", NEAREST)
    allowed = logit_bounds(networks, x, ball, "crown", None, slopes=True).slopes
    assert (allowed > exact).all()
    torch.testing.assert_close(allowed, exact, rtol=0, atol=0.1)
    kind, point = LipschitzRobustness(1.0), torch.tensor([[0.0, 2.0]])
    reference = references(point, torch.tensor([0]))(kind)
    moved = torch.tensor([[0.0, 2.01]])
    for distance, holds in ((NEAREST * 0.99, 1), (NEAREST, 0)):
        assert kind.outcome(reference, moved, torch.tensor([distance], dtype=torch.float64)).tolist() == [holds]


def test_what_is_unknown_is_not_certified():
    kind, point = LipschitzRobustness(1e9), torch.tensor([[0.0, 2.0]])
    reference = references(point, torch.tensor([0]))(kind)
    nothing = torch.full((1, 2, 2), torch.nan, dtype=torch.float64)
    for unknown in (torch.nan, torch.inf):
        slopes = torch.tensor([[1.0, unknown]], dtype=torch.float64)
        assert kind.certified(reference, LogitBounds(nothing, slopes=slopes)).tolist() == [0]
    overflowing = Pack.of(Layers((1, 1, 1), (Flatten(), Dense(2))), [[np.float32([[3e38, 1]]), np.float32([3e38, 0])]])
    bounds = logit_bounds(overflowing, torch.full((1, 1, 1, 1), 0.5), Ball("linf", 0.5), "crown", None, slopes=True)
    assert bounds.slopes.isnan().all()


class Unknown(Layer):
    """Of a user, who gave it a certificate and no bound of the Jacobian."""


def test_a_layer_without_a_rule_is_refused_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(packs.FORWARD, Unknown, lambda layer, weights, x, way: x)
    networks = drawn_pack(Layers((2, 2, 1), (Flatten(), Unknown(), Dense(3))))
    monkeypatch.setitem(layerwise.PASSAGES, Unknown, lambda layer, shape, own, before: _passed(before))
    with pytest.raises(InputError, match=r"^no bound of the Jacobian for layer Unknown; possible: Dense, Conv, .*$"):
        steepest(networks, Ball("linf", 0.1).around(torch.zeros(1, 2, 2, 1)), "ibp", NEAREST)


def _passed(before: layerwise.Before) -> layerwise.Passage:
    return layerwise.Passage(
        before.interval, lambda rows: (rows, rows.new_zeros(rows.shape[:3])), lambda variance: variance, linear=True
    )
