"""Bounds by quadratic functions: below all images whatever is chosen, and far above what lines prove."""

import itertools
import math

import numpy as np
import pytest
import torch
from certificate_cases import CNN, drawn_images, drawn_pack, exactly
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.local import coupling
from deltaball.local import quadratics as module
from deltaball.local.balls import Ball
from deltaball.local.branching import Group
from deltaball.local.certificates.differences import differences
from deltaball.local.coupling import exceeding
from deltaball.local.exact import decide, leads
from deltaball.local.quadratics import Chosen, Passed, Quadratics, quadratics
from deltaball.networks.layers import Activation, Dense, Flatten, Layers
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers

ACTIVATIONS = ["relu", "tanh", "sigmoid"]

NETWORKS = {
    **{
        f"fcn {depth} {name}": ("fcn", {"depth": depth, "width": 5, "activation": name}, (1, 2, 1))
        for depth in (1, 2, 3)
        for name in ACTIVATIONS
    },
    "cnn": ("cnn", {**CNN, "fc_width": 5, "activation": "relu"}, (2, 2, 1)),
    "cnn then tanh": ("cnn", {**CNN, "fc_width": 5, "activation": "relu"}, (2, 2, 1)),
    "cnn, dropped row": ("cnn", {**CNN, "fc_width": 5, "kernel": 2, "activation": "relu"}, (3, 2, 1)),
    "cnn 2": ("cnn", {**CNN, "fc_width": 5, "conv_depth": 2, "activation": "relu"}, (4, 4, 1)),
    "vgg": ("vgg", {**CNN, "fc_width": 5, "filters": 2, "activation": "relu"}, (2, 2, 1)),
}


def drawn(name: str, classes: int, seed: int, gain: float) -> tuple[Pack, tuple[int, int, int]]:
    architecture, axes, shape = NETWORKS[name]
    found = layers(architecture, axes, shape, classes)
    if name.endswith("then tanh"):
        dense = found.sequence.index(Flatten()) + 2
        found = Layers(shape, (*found.sequence[:dense], Activation("tanh"), *found.sequence[dense + 1 :]))
    return drawn_pack(found, networks=1, seed=seed, gain=gain), shape


def lowest(pack: Pack, x: torch.Tensor, ball: Ball, rows: torch.Tensor) -> torch.Tensor:
    """The rows' least values over a grid of each ball, or over some corners and others of many pixels, [n, R]."""
    low, high = (side.view(x.shape).double() for side in ball.around(x).box)
    pixels = x[0].numel()
    if pixels < 7:
        shares = torch.tensor([*itertools.product(np.linspace(0, 1, round(3000 ** (1 / pixels))), repeat=pixels)])
    else:
        shares = torch.rand(3000, pixels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        shares[::2] = shares[::2].round()
    shares = shares.unflatten(-1, x.shape[1:])
    grid = x.double()[:, None] + low[:, None] + (high - low)[:, None] * shares
    logits = exactly(pack)(grid.flatten(0, 1))[0].unflatten(0, grid.shape[:2])
    return torch.einsum("nrc,ngc->ngr", rows, logits).amin(1)


@given(
    st.integers(0, 10**6),
    st.sampled_from(sorted(NETWORKS)),
    st.floats(0.3, 12),
    st.floats(0.0, 0.6),
    st.floats(0.1, 4),
)
@settings(max_examples=80)
def test_whatever_is_chosen_no_image_is_below(seed: int, name: str, gain: float, delta: float, spread: float) -> None:
    pack, shape = drawn(name, 3, seed, gain)
    x, ball = drawn_images(shape, 3, seed=seed), Ball("linf", delta)
    if seed % 3 == 0:
        pack.weights[0][..., 0] = 0  # dead units, and ties in pools
    if seed % 4 == 0:
        pack.weights[0][..., -1] = pack.weights[0][..., 0]
    rows = leads(pack(x)[0].argmax(-1), 3)
    point, flat = torch.arange(3).repeat_interleave(2), rows.flatten(0, 1)
    assert Quadratics.take(pack, ball.around(x))
    coarse, of = quadratics(pack, ball.around(x), point, flat)
    random = torch.Generator().manual_seed(seed)
    least = lowest(pack, x, ball, rows).flatten()
    for share in (0.0, 1.0):
        chosen = [
            Chosen(
                *(part + share * spread * torch.randn(part.shape, generator=random, dtype=part.dtype) for part in own)
            )
            for own in of.started()[0]
        ]
        assert (of.certain(chosen) <= least + 1e-9).all()
    if seed % 5 == 0:
        assert (exceeding(coarse, of, least + 1e9, math.inf) <= least + 1e-9).all()


@given(st.integers(0, 10**6), st.floats(0.01, 0.8), st.booleans())
@settings(max_examples=60)
def test_what_is_below_a_window_is_its_least_value(seed: int, delta: float, tied: bool) -> None:
    pack = drawn_pack(layers("cnn", {**CNN, "filters": 1, "activation": "relu"}, (2, 2, 1), 3), networks=1, seed=seed)
    if tied:
        pack.weights[0][:] = pack.weights[0].mean()
    x = drawn_images((2, 2, 1), 1, seed=seed)
    _, exactly_ = quadratics(pack, Ball("linf", delta).around(x), torch.zeros(1).long(), torch.ones(1, 3).double())
    window = exactly_.parts[0]
    random = torch.Generator().manual_seed(seed)
    coefficients, squares, centres = torch.randn(3, 1, 1, generator=random, dtype=torch.float64)
    squares = squares.square() * 5
    own = Chosen(torch.randn(1, 4, generator=random, dtype=torch.float64), *[squares[:, :0]] * 3)
    nothing = torch.zeros(1, dtype=torch.float64)
    found = window.passed(Passed(nothing, nothing, coefficients, squares, centres), own, None)
    alpha, bias = (coefficients * own.slopes)[0], window.stage.bias[0]
    low, high = window.low[0], window.high[0]
    # A least value lies where each unit is at an end of its interval or where the largest is.
    places = torch.cat([low, high, torch.zeros(1).double(), low.amax()[None]])
    ends = [places.clamp(*interval).unique().tolist() for interval in zip(low, high, strict=True)]
    units = torch.tensor([*itertools.product(*ends)], dtype=torch.float64)
    y = units.amax(-1).clamp(min=0)
    values = coefficients[0] * y - squares[0] / 2 * (y - centres[0]).square() - units @ alpha
    assert abs((found.value - alpha @ bias).item() - values.min().item()) < 1e-9


def wide(architecture: str, axes: dict, shape: tuple[int, int, int]) -> Pack:
    return drawn_pack(layers(architecture, axes, shape, 4), networks=1, seed=3)


@pytest.mark.parametrize(
    "pack",
    [
        *(wide("fcn", {"depth": 1, "width": 48, "activation": name}, (6, 6, 1)) for name in ACTIVATIONS),
        wide("cnn", {**CNN, "fc_width": 48, "activation": "relu"}, (6, 6, 1)),
    ],
    ids=[*ACTIVATIONS, "cnn"],
)
def test_many_units_are_not_extreme_at_once(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    x, ball = drawn_images((6, 6, 1), 6, seed=1), Ball("linf", 0.3)
    rows = leads(pack(x)[0].argmax(-1), 4)
    point, flat = torch.arange(6).repeat_interleave(3), rows.flatten(0, 1)
    coarse, of = quadratics(pack, ball.around(x), point, flat)
    found = exceeding(coarse, of, torch.full((18,), math.inf), math.inf)
    # Lines alone: the same with hardly any curvature.
    straight = [own._replace(curvatures=torch.full_like(own.curvatures, -40.0)) for own in of.started()[0]]
    lines = of.certain(straight)
    assert (found > lines).all()
    seen = lowest(pack, x, ball, rows).flatten()
    assert (found <= seen).all()
    # Much of the way from what lines prove to the lowest corner that chance finds.
    assert ((found - lines) / (seen - lines)).median() > 0.5
    # Centres that stay in the middle prove less.
    monkeypatch.setattr(coupling, "RATES", (*coupling.RATES[:3], 0.0))
    assert (exceeding(coarse, of, torch.full((18,), math.inf), math.inf) < found).all()


def test_what_is_not_enough_counts_only_if_asked() -> None:
    pack, shape = drawn("cnn", 3, 1, 3.0)
    x, ball = drawn_images(shape, 2, seed=1), Ball("linf", 0.1)
    flat = leads(pack(x)[0].argmax(-1), 3).flatten(0, 1)
    given_ = quadratics(pack, ball.around(x), torch.arange(2).repeat_interleave(2), flat)
    whole = exceeding(*given_, torch.full((4,), math.inf), math.inf)
    assert whole.isfinite().all()
    enough = torch.stack([whole[::2] - 1, torch.full_like(whole[::2], 1e9)], 1).flatten()
    found = exceeding(*given_, enough, math.inf, others_count=False)
    assert (found[1::2] == -torch.inf).all()
    assert (found[::2] > enough[::2]).all()


def test_no_time_and_no_numbers_prove_nothing_wrong() -> None:
    pack, shape = drawn("fcn 2 tanh", 3, 0, 1.5)
    x, ball = drawn_images(shape, 2), Ball("linf", 0.2)
    rows = leads(pack(x)[0].argmax(-1), 3)
    point, flat = torch.arange(2).repeat_interleave(2), rows.flatten(0, 1)
    enough = torch.zeros(4, dtype=torch.float64)
    given_ = quadratics(pack, ball.around(x), point, flat)
    assert (exceeding(*given_, enough, -math.inf) <= lowest(pack, x, ball, rows).flatten()).all()
    pack.weights[1][:] = torch.nan
    assert (exceeding(*quadratics(pack, ball.around(x), point, flat), enough, math.inf) == -torch.inf).all()


def test_exact_answers_need_few_subproblems_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = {"depth": 1, "width": 48, "activation": "tanh"}
    pack = drawn_pack(layers("fcn", axes, (6, 6, 1), 2), networks=1, seed=5)
    x, ball = drawn_images((6, 6, 1), 6, seed=2), Ball("linf", 0.3)
    leading = torch.tensor([[1.0, -1.0]], dtype=torch.float64).expand(6, -1)
    given_ = quadratics(pack, ball.around(x), torch.arange(6), leading)
    found = exceeding(*given_, torch.full((6,), math.inf), math.inf)
    pack.weights[-1][0, 0] += 0.05 - found.min().item()  # the first class leads in all balls, as the bounds just prove
    assert (pack(x)[0].argmax(-1) == 0).all()
    by_both = decide(pack, x, ball, 60.0)
    assert (by_both.outcome == 1).all()
    assert by_both.subproblems.sum() == 0
    # Without them few subproblems do not suffice.
    monkeypatch.setattr(Group, "couple", lambda self, deadline: None)
    monkeypatch.setattr("deltaball.local.branching.LARGEST_HEAPS", 2**15)  # what hardly closes is given up
    assert np.isnan(decide(pack, x, ball, 60.0).outcome).any()


def test_a_convolution_is_decided_without_subproblems() -> None:
    pack = wide("cnn", {**CNN, "fc_width": 48, "activation": "relu"}, (6, 6, 1))
    x, ball = drawn_images((6, 6, 1), 12, seed=2), Ball("linf", 0.1)
    predicted = pack(x)[0].argmax(-1)
    by_crown = differences(pack, x, ball, "crown", every=False)[0, torch.arange(12), predicted]
    proven = (by_crown.scatter(1, predicted[:, None], 1.0) > 0).all(-1)
    assert not proven.all()
    decided = decide(pack, x, ball, 60.0)
    robust = torch.from_numpy(decided.outcome == 1)
    assert robust[proven].all()
    assert (robust & ~proven & torch.from_numpy(decided.subproblems == 0)).any()


def test_what_it_does_not_know_is_refused() -> None:
    pack, shape = drawn("fcn 1 tanh", 3, 0, 1.5)
    x = drawn_images(shape, 2)
    around = Ball("linf", 0.2).around(x)
    assert Quadratics.take(pack, around)
    assert not Quadratics.take(pack, Ball("l1", 0.2).around(x))
    linear = Layers(shape, (Flatten(), Dense(3)))
    assert not Quadratics.take(drawn_pack(linear, networks=1), around)
    axes = {"depth": 1, "width": module.MOST_UNITS + 1, "activation": "tanh"}
    assert not Quadratics.take(drawn_pack(layers("fcn", axes, shape, 3), networks=1), around)
    curved = drawn_pack(layers("cnn", {**CNN, "activation": "tanh"}, (2, 2, 1), 3), networks=1)
    assert not Quadratics.take(curved, Ball("linf", 0.2).around(drawn_images((2, 2, 1), 2)))


def test_small_networks_are_split_first() -> None:
    """Each point is settled by subproblems: quadratic bounds, which need none, are not asked."""
    pack = drawn_pack(layers("fcn", {"depth": 1, "width": 16, "activation": "relu"}, (6, 6, 1), 3), networks=1, seed=1)
    x = drawn_images((6, 6, 1), 12, seed=2)
    decided = decide(pack, x, Ball("linf", 0.02), 60.0)
    assert np.isfinite(decided.outcome).all()
    assert (decided.outcome == 1).any()
    assert (decided.subproblems > 0).all()
