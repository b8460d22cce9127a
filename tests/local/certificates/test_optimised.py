"""α-CROWN: sound by any lines, never below CROWN, the same alone and in a batch; and exact where it can be."""

import numpy as np
import pytest
import torch
from certificate_cases import (
    BALLS,
    CLASSES,
    PAIRS,
    all_rows,
    case,
    drawn_images,
    drawn_pack,
    exactly,
    first_minus_second,
    one_pixel,
    pairs,
    sampled,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.local.balls import Ball
from deltaball.local.certificates.differences import differences, logit_bounds
from deltaball.local.certificates.enclosures import enclosed
from deltaball.local.certificates.lines import CURVES, clamp_curve, leaky_relu_curve
from deltaball.local.certificates.optimised import ascended
from deltaball.networks.layers import (
    Activation,
    BatchNorm,
    Clamp,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    Layers,
    LeakyReLU,
    MaxPool,
    Residual,
    Subsample,
)
from deltaball.networks.packs import Pack

SHAPE, END = (6, 6, 2), Dense(CLASSES)
OTHERS = {
    "overlapping pools": (Conv(3, 3, 1, "valid"), LeakyReLU(0.2), MaxPool(3, 2, (1, 1, 1, 1)), Flatten(), END),
    "pools of images, clamped": (
        MaxPool(3, 2, (1, 1, 1, 1)),
        Clamp(0.1, 0.8),
        Flatten(),
        Dense(6),
        LeakyReLU(0.0),
        END,
    ),
    "residual": (
        Conv(3, 3, 2),
        Activation("relu"),
        Residual((Conv(3, 3, bias=False), BatchNorm(), Activation("tanh"), Conv(3, 3))),
        Activation("relu"),
        Residual((Conv(5, 3, 2), Activation("sigmoid"), Conv(5, 3)), (Subsample(2, 5),)),
        LeakyReLU(0.1),
        GlobalAveragePool(),
        END,
    ),
}
FREE = {"leaky 0.1": leaky_relu_curve(0.1), "clamp": clamp_curve(-0.5, 1.0), **CURVES}
TRUTH = {
    "leaky 0.1": lambda x: torch.nn.functional.leaky_relu(x, 0.1),
    "clamp": lambda x: x.clamp(-0.5, 1.0),
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def cases() -> list[tuple[str, str]]:
    return [("fcn 3", "relu"), ("fcn 3", "sigmoid"), ("cnn 2, even kernel", "relu"), ("vgg", "tanh")] + [
        (name, "") for name in OTHERS
    ]


def drawn(name: str, activation: str, gain: float = 1.5) -> tuple[Pack, torch.Tensor]:
    if activation:
        return case(name, activation, gain=gain)
    return drawn_pack(Layers(SHAPE, OTHERS[name]), gain=gain), drawn_images(SHAPE, 2)


@pytest.mark.parametrize(("name", "activation"), cases())
def test_it_is_sound_and_never_below_crown(name: str, activation: str):
    pack, x = drawn(name, activation)
    for ball in BALLS[1::3] if name == "fcn 3" else BALLS[1:2]:
        points = sampled(pack, ball.around(x), 60).flatten(0, 1)
        least = pairs(pack(points).double()).unflatten(1, (60, 2)).amin(1)
        usual, best = (differences(pack, x, ball, by, every=True) for by in ("crown", "alpha_crown"))
        assert (best <= least)[..., PAIRS].all()
        assert (best >= usual)[..., PAIRS].all()
    usual, best = (enclosed(pack, Ball("linf", 0.1).around(x), by) for by in ("crown", "alpha_crown"))
    assert torch.equal(usual.error, best.error)
    assert (best.lower(all_rows(2, 2)) > usual.lower(all_rows(2, 2)) + 1e-4).any()


@pytest.mark.parametrize("gain", [30.0, 1e-3])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_saturated_and_hardly_moving_networks_have_sound_bounds(activation: str, gain: float):
    pack, x = case("cnn 1", activation, gain=gain)
    ball = Ball("linf", 0.3)
    points = sampled(pack, ball.around(x), 60).flatten(0, 1)
    least = pairs(pack(points).double()).unflatten(1, (60, 2)).amin(1)
    best = differences(pack, x, ball, "alpha_crown", every=True)
    assert (best <= least)[..., PAIRS].all()


def test_networks_points_and_rows_are_alone_in_a_batch():
    pack, x, ball = drawn_pack(Layers(SHAPE, OTHERS["residual"])), drawn_images(SHAPE, 2), Ball("linf", 0.1)
    rows = all_rows(2, 2)[:, :, 1:5]
    together = enclosed(pack, ball.around(x), "alpha_crown").lower(rows)
    for k, n, r in ((0, 0, 2), (1, 1, 0)):
        alone = enclosed(pack.one(k), ball.around(x[n : n + 1]), "alpha_crown").lower(rows[k : k + 1, n : n + 1, [r]])
        torch.testing.assert_close(alone[0, 0, 0], together[k, n, r], rtol=1e-7, atol=1e-7)


def test_two_units_whose_best_lines_are_neither_end():
    """relu(u) + relu(-u) - u / 2 on [-1, 1.1] is at least 0, by slopes that differ by 1/2; CROWN takes 1 and 0."""
    hidden = [(2.1, -1.0), (-2.1, 1.0), (2.1, 9.0)]
    pack = one_pixel(hidden, [[1.0, 0.0], [1.0, 0.0], [-0.5, 0.0]], "relu")
    usual, best = (first_minus_second(pack, Ball("linf", 0.5), by) for by in ("crown", "alpha_crown"))
    assert usual == pytest.approx(-5.5, abs=1e-4)
    assert best == pytest.approx(-5, abs=0.02)


def test_any_rows_of_logits_and_the_logits_themselves_are_bounded():
    pack, x = case("fcn 3", "tanh")
    ball = Ball("l2", 0.2)
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 2, 3, CLASSES)))
    images = sampled(pack, ball.around(x), 60).flatten(0, 1)
    real = exactly(pack)(images.double()).unflatten(1, (60, 2))
    least = torch.einsum("knrc,ksnc->ksnr", rows, real).amin(1)
    assert (enclosed(pack, ball.around(x), "alpha_crown").lower(rows) <= least).all()
    bounds = logit_bounds(pack, x, ball, "alpha_crown", None, logits=True)
    assert (bounds.lower[:, None] <= real).all()
    assert (bounds.upper[:, None] >= real).all()


@given(
    st.sampled_from(sorted(FREE)),
    st.floats(-30, 30),
    st.one_of(st.floats(1e-9, 1e-3), st.floats(1e-3, 60)),
    st.lists(st.floats(0, 1), min_size=2, max_size=2),
)
@settings(deadline=None)
def test_lines_enclose_by_any_choice_and_are_the_usual_ones_at_first(
    name: str, low: float, width: float, choices: list[float]
):
    curve = FREE[name]
    low, high = torch.tensor([low], dtype=torch.float64), torch.tensor([low + width], dtype=torch.float64)
    at = low + torch.linspace(0, 1, 501, dtype=torch.float64) * (high - low)
    starts = curve.free.starts(low, high)
    for own in (starts, [torch.full_like(low, choice) for choice in choices][: len(starts)]):
        lower, lower_offset, upper, upper_offset = curve.free.lines(low, high, own)
        assert (lower * at + lower_offset <= TRUTH[name](at) + 1e-11).all()
        assert (upper * at + upper_offset >= TRUTH[name](at) - 1e-11).all()
    for usual, found in zip(curve.lines(low, high), curve.free.lines(low, high, starts), strict=True):
        torch.testing.assert_close(found, usual, rtol=1e-6, atol=1e-6)


def test_ascent_finds_the_top_and_nothing_below_its_start():
    starts = (torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.5]]))
    top = torch.tensor([0.3, 0.6])
    found = ascended(lambda choices: -((choices[0] - top) ** 2).sum(-1) - (choices[1] - 0.5) ** 2 * 1e6, starts, rows=3)
    assert found.shape == (1, 1, 3)
    assert (found > -0.01).all()
