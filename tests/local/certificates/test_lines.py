"""Lines that enclose activations and pools, wherever an interval lies."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.local.certificates import lines
from deltaball.local.certificates.lines import CURVES, Lines, pool_lines, relu_lines
from deltaball.networks.arithmetic import ACTIVATIONS

EDGES = [-50.0, -7.3, -1.0, -0.2, -1e-3, -1e-6, -1e-9, 0.0, 1e-9, 1e-6, 1e-3, 0.3, 1.0, 6.1, 50.0, 3e4]

WIDTHS = [0.0, 1e-15, 1e-9, 1e-6, 1e-3]

INTERVALS = torch.tensor(
    sorted(
        {(low, high) for low in EDGES for high in EDGES if low <= high}
        | {(low, low + w) for low in EDGES for w in WIDTHS}
    ),
    dtype=torch.float64,
)


@pytest.mark.parametrize("activation", CURVES)
def test_lines_enclose_the_activation(activation: str):
    check_enclosed(activation, CURVES[activation].lines)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_other_lines_enclose_the_activation(activation: str):
    check_enclosed(activation, CURVES[activation].others)


def check_enclosed(activation: str, lines: Callable[..., Lines]) -> None:
    low, high = INTERVALS.T
    at = (low + torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None] * (high - low)).clamp(low, high)
    truth = ACTIVATIONS[activation](at)
    lower, lower_offset, upper, upper_offset = lines(low, high)
    # Float64 rounding of a line at its point.
    tolerance = 4e-16 * (
        1 + truth.abs() + (lower * at).abs() + (upper * at).abs() + lower_offset.abs() + upper_offset.abs()
    )
    assert (lower * at + lower_offset <= truth + tolerance).all()
    assert (upper * at + upper_offset >= truth - tolerance).all()


def test_lines_enclose_tanh_wherever_the_tangent_point_ends_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lines, "TANGENTS", 0)
    test_lines_enclose_the_activation("tanh")


@settings(max_examples=40)
@given(st.floats(-30, 30), st.floats(0, 60))
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_lines_touch_the_activation_and_no_area_is_wasted(activation: str, low: float, width: float):
    low, high = torch.tensor([low], dtype=torch.float64), torch.tensor([low + width], dtype=torch.float64)
    at = (low + torch.linspace(0, 1, 20_001, dtype=torch.float64) * (high - low)).clamp(low, high)
    truth = ACTIVATIONS[activation](at)
    lower, lower_offset, upper, upper_offset = CURVES[activation].lines(low, high)
    assert -1e-15 <= (truth - lower * at - lower_offset).min() < 1e-5
    assert -1e-15 <= (upper * at + upper_offset - truth).min() < 1e-5
    # Among lines above that touch at some point, none is lower in the middle: a line above is above the concave hull.
    middle = (low + high) / 2
    hull = hull_above(at.numpy(), truth.numpy(), middle.item())
    assert (upper * middle + upper_offset).item() == pytest.approx(hull, abs=2e-4)
    hull = -hull_above(at.numpy(), -truth.numpy(), middle.item())
    assert (lower * middle + lower_offset).item() == pytest.approx(hull, abs=2e-4)


def hull_above(at: np.ndarray, values: np.ndarray, middle: float) -> float:
    """The least concave function above some values, in the middle: the highest chord across it."""
    left, right = slice(0, len(at) // 2 + 1, 20), slice(len(at) // 2, None, 20)
    a, b = at[left][:, None], at[right][None]
    f, g = values[left][:, None], values[right][None]
    width = np.where(b > a, b - a, 1)
    return np.where(b > a, f + (g - f) * (middle - a) / width, np.maximum(f, g)).max()


@pytest.mark.parametrize("activation", CURVES)
@pytest.mark.parametrize("scale", [1e-9, 1e-2, 1.0, 50.0])
def test_lines_enclose_the_pool_of_an_activation(activation: str, scale: float):
    random = torch.Generator().manual_seed(1)
    low = scale * torch.randn(4, 500, generator=random, dtype=torch.float64)
    high = low + scale * torch.rand(4, 500, generator=random, dtype=torch.float64) * torch.rand(500, generator=random)
    high[:, :20] = low[:, :20]  # points
    low[:, 20:40], high[:, 20:40] = low[0, 20:40], high[0, 20:40]  # ties
    low[0, 40:60], high[0, 40:60] = high[:, 40:60].amax(0), high[:, 40:60].amax(0) + scale  # always the largest
    function = ACTIVATIONS[activation]
    lower, lower_offset, upper, upper_offset = pool_lines(CURVES[activation].lines, function, low, high)
    steps = torch.rand(2000, 4, 500, generator=random, dtype=torch.float64)
    steps[:1000] = steps[:1000].round()  # corners, where a convex function less a line is largest
    at = low + steps * (high - low)
    truth = function(at).amax(1)
    tolerance = 1e-14 * (1 + at.abs().amax(1))
    assert ((lower * at).sum(1) + lower_offset <= truth + tolerance).all()
    assert ((upper * at).sum(1) + upper_offset >= truth - tolerance).all()
    if activation == "relu":
        largest = function(at[:, 0, 40:60])
        wherever = (low[0, 40:60] >= 0).expand_as(largest)
        found = ((upper * at).sum(1) + upper_offset)[:, 40:60]
        torch.testing.assert_close(found[wherever], largest[wherever], rtol=1e-9, atol=1e-12)


def test_relu_takes_the_slope_of_the_smaller_area_or_the_given_one():
    low, high = torch.tensor([[-1.0, -2.0, -1.0, 1.0, -2.0], [2.0, 1.0, 1.0, 2.0, -1.0]], dtype=torch.float64)
    assert relu_lines(low, high)[0].tolist() == [1, 0, 0, 1, 0]
    given_slopes = relu_lines(low, high, torch.full((5,), 0.3, dtype=torch.float64))[0]
    assert given_slopes.tolist() == [0.3, 0.3, 0.3, 1, 0]
