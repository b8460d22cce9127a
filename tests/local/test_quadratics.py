"""Bounds by quadratic functions: below all images whatever is chosen, and far above what lines prove."""

import itertools
import math

import numpy as np
import pytest
import torch
from certificate_cases import drawn_images, drawn_pack, exactly
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.local import branching, quadratics
from deltaball.local.balls import Ball
from deltaball.local.certificates.crown import layer_bounds
from deltaball.local.exact import decide, leads
from deltaball.local.quadratics import Chosen, Quadratics, exceeding
from deltaball.networks.dense_form import affine_layers, as_dense
from deltaball.networks.layers import Activation
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers

ACTIVATIONS = ["relu", "tanh", "sigmoid"]


def fcn(
    depth: int, width: int, shape: tuple[int, int, int], classes: int, activation: str, seed: int, gain: float
) -> Pack:
    axes = {"depth": depth, "width": width, "activation": activation}
    return drawn_pack(layers("fcn", axes, shape, classes), networks=1, seed=seed, gain=gain)


def given_of(pack: Pack, x: torch.Tensor, ball: Ball) -> tuple:
    """What the bounds are of."""
    dense, around = as_dense(pack), ball.around(x)
    sides = zip(*layer_bounds(dense, around, "crown"), strict=True)
    low, high = (torch.cat([bound[0] for bound in side], -1) for side in sides)
    names = [layer.name for layer in dense.layers if isinstance(layer, Activation)]
    return affine_layers(dense), names, around, low, high


def lowest(pack: Pack, x: torch.Tensor, ball: Ball, rows: torch.Tensor, steps: int = 41) -> torch.Tensor:
    """The rows' least values over a grid of each ball around images of two pixels, [n, R]."""
    low, high = ball.around(x).box
    shares = torch.tensor([*itertools.product(np.linspace(0, 1, steps), repeat=2)]).unflatten(-1, x.shape[1:])
    centre = x.double()
    low, high = (side.view(x.shape).double() for side in (low, high))
    grid = centre[:, None] + low[:, None] + (high - low)[:, None] * shares
    logits = exactly(pack)(grid.flatten(0, 1))[0].unflatten(0, grid.shape[:2])
    return torch.einsum("nrc,ngc->ngr", rows, logits).amin(1)


@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.sampled_from(ACTIVATIONS),
    st.floats(0.3, 12),
    st.floats(0.0, 0.6),
    st.floats(0.1, 4),
)
@settings(max_examples=80)
def test_whatever_is_chosen_no_image_is_below(
    seed: int, depth: int, activation: str, gain: float, delta: float, spread: float
) -> None:
    pack, x, ball = (
        fcn(depth, 5, (1, 2, 1), 3, activation, seed, gain),
        drawn_images((1, 2, 1), 3, seed=seed),
        Ball("linf", delta),
    )
    if seed % 3 == 0:
        pack.weights[0][:, :, 0] = 0  # a dead unit
    rows = leads(pack(x)[0].argmax(-1), 3)
    given_ = given_of(pack, x, ball)
    of = Quadratics(*given_, torch.float64)
    point, flat = torch.arange(3).repeat_interleave(2), rows.flatten(0, 1)
    random = torch.Generator().manual_seed(seed)
    least = lowest(pack, x, ball, rows).flatten()
    for share in (0.0, 1.0):
        chosen = [
            Chosen(
                *(part + share * spread * torch.randn(part.shape, generator=random, dtype=part.dtype) for part in own)
            )
            for own in of.started(point, flat)
        ]
        assert (of.certain(point, flat, chosen) <= least + 1e-9).all()
    assert (exceeding(*given_, point, flat, least + 1e9, math.inf) <= least + 1e-9).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_many_units_are_not_extreme_at_once(activation: str) -> None:
    pack, x = fcn(1, 48, (6, 6, 1), 4, activation, 3, 1.5), drawn_images((6, 6, 1), 6, seed=1)
    ball = Ball("linf", 0.3)
    rows = leads(pack(x)[0].argmax(-1), 4)
    given_ = given_of(pack, x, ball)
    point, flat = torch.arange(6).repeat_interleave(3), rows.flatten(0, 1)
    found = exceeding(*given_, point, flat, torch.full((18,), math.inf), math.inf)
    # Lines alone: the same with hardly any curvature.
    of = Quadratics(*given_, torch.float64)
    straight = [own._replace(curvatures=torch.full_like(own.curvatures, -40.0)) for own in of.started(point, flat)]
    lines = of.certain(point, flat, straight)
    assert (found > lines).all()
    corners = torch.rand(4000, 1, 36, generator=torch.Generator().manual_seed(0)).round().double()
    low, high = ball.around(x).box
    images = (x.flatten(1) + low.view(6, -1) + (high - low).view(6, -1) * corners).transpose(0, 1)
    logits = exactly(pack)(images.reshape(-1, 6, 6, 1))[0].unflatten(0, (6, 4000))
    seen = torch.einsum("nrc,ngc->ngr", rows, logits).amin(1).flatten()
    assert (found <= seen).all()
    # Much of the way from what lines prove to the lowest corner that chance finds.
    assert ((found - lines) / (seen - lines)).median() > 0.4


def test_no_time_and_no_numbers_prove_nothing_wrong() -> None:
    pack, x, ball = fcn(2, 6, (1, 2, 1), 3, "tanh", 0, 1.5), drawn_images((1, 2, 1), 2), Ball("linf", 0.2)
    rows = leads(pack(x)[0].argmax(-1), 3)
    given_, point, flat = given_of(pack, x, ball), torch.arange(2).repeat_interleave(2), rows.flatten(0, 1)
    enough = torch.zeros(4, dtype=torch.float64)
    assert (exceeding(*given_, point, flat, enough, -math.inf) <= lowest(pack, x, ball, rows).flatten()).all()
    affine, *rest = given_
    broken = [(torch.full_like(kernel, torch.nan), bias) for kernel, bias in affine]
    assert (exceeding(broken, *rest, point, flat, enough, math.inf) == -torch.inf).all()


def test_exact_answers_need_few_subproblems_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pack, x, ball = fcn(1, 48, (6, 6, 1), 2, "tanh", 5, 1.5), drawn_images((6, 6, 1), 6, seed=2), Ball("linf", 0.3)
    leading = torch.tensor([[1.0, -1.0]], dtype=torch.float64).expand(6, -1)
    found = exceeding(*given_of(pack, x, ball), torch.arange(6), leading, torch.full((6,), math.inf), math.inf)
    pack.weights[-1][0, 0] += 0.05 - found.min().item()  # the first class leads in all balls, as the bounds just prove
    assert (pack(x)[0].argmax(-1) == 0).all()
    monkeypatch.setattr(branching, "LARGEST_HEAPS", 2**18)  # what hardly closes is given up
    by_both = decide(pack, x, ball, 60.0)
    assert (by_both.outcome == 1).all()
    monkeypatch.setattr(Quadratics, "takes", staticmethod(lambda *given: False))
    by_lines = decide(pack, x, ball, 60.0)
    assert by_both.subproblems.sum() < by_lines.subproblems.sum() / 5


def test_what_it_does_not_know_is_refused() -> None:
    pack, x = fcn(1, 6, (1, 2, 1), 3, "tanh", 0, 1.5), drawn_images((1, 2, 1), 2)
    affine, names, around, *_ = given_of(pack, x, Ball("linf", 0.2))
    assert Quadratics.takes(affine, names, around)
    assert not Quadratics.takes(affine, names, Ball("l1", 0.2).around(x))
    assert not Quadratics.takes(affine, ["softplus"], around)
    assert not Quadratics.takes(affine[-1:], [], around)
    assert not Quadratics.takes([(affine[0][0].to_sparse(), affine[0][1]), affine[1]], names, around)
    wide = quadratics.MOST_UNITS + 1
    assert not Quadratics.takes([(torch.zeros(2, wide), torch.zeros(wide)), affine[1]], names, around)
