"""Padding, strides and ceil mode, as TensorFlow and torch have them."""

import itertools

import pytest
import torch
from torch.nn import functional

from deltaball.base.errors import InputError
from deltaball.networks.arithmetic import CONVOLUTIONS, average_pooled, max_pooled
from deltaball.networks.layers import AveragePool, Conv, Layer, MaxPool, Subsample
from deltaball.networks.windows import tournament

SIZES, STRIDES, SIDES = (1, 2, 3, 4), (1, 2, 3, 4), (3, 4, 5, 8)


def images(height: int, width: int, channels: int = 2, networks: int = 2) -> torch.Tensor:
    return torch.randn(networks, 2, height, width, channels, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("size", "stride"), [*itertools.product(SIZES, STRIDES)])
def test_same_padding_has_the_windows_of_tensorflow(size: int, stride: int):
    """⌈pixels / stride⌉ windows; of an odd number of pixels that are added, one more after."""
    for pixels in SIDES:
        rows, columns = Conv(1, size, stride).windows((pixels, pixels, 1))
        assert rows == columns
        assert rows.count == -(-pixels // stride)
        assert rows.after - rows.before in (0, 1)
        # No window less, and none that begins outside, would do with less padding.
        needed = (rows.count - 1) * stride + size
        assert rows.before + pixels + rows.after == max(needed, pixels)


@pytest.mark.parametrize("how", CONVOLUTIONS)
@pytest.mark.parametrize(("size", "stride"), [*itertools.product(SIZES, STRIDES)])
def test_convolutions_are_torchs(how: str, size: int, stride: int):
    x, kernel, bias = images(5, 8, 3), images(size, size, 3)[:, 0, :, :, :, None].repeat(1, 1, 1, 1, 4), images(1, 1, 4)
    kernel = kernel * torch.linspace(-1, 1, 4)
    for padding in ("same", "valid", (2, 1, 0, 1)):
        layer = Conv(4, size, stride, padding)
        top, bottom, left, right = layer.sides(x.shape[2:])
        found = CONVOLUTIONS[how](x, kernel, bias[:, 0, 0, 0], stride, layer.sides(x.shape[2:]))
        for k in range(2):
            maps = functional.pad(x[k].permute(0, 3, 1, 2), (left, right, top, bottom))
            expected = functional.conv2d(maps, kernel[k].permute(3, 2, 0, 1), bias[k, 0, 0, 0], stride)
            torch.testing.assert_close(found[k], expected.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5)
        assert found.shape[2:] == layer.output(x.shape[2:])


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(("size", "stride"), [*itertools.product(SIZES, STRIDES)])
def test_pools_are_torchs(size: int, stride: int, ceil: bool):
    for pixels, padding in itertools.product(SIDES, range(size // 2 + 1)):
        if pixels + 2 * padding < size:
            continue
        x = images(pixels, pixels + 1)
        maps, around = x.flatten(0, 1).permute(0, 3, 1, 2), (padding,) * 4
        expected = functional.max_pool2d(maps, size, stride, padding, ceil_mode=ceil).permute(0, 2, 3, 1)
        layer = MaxPool(size, stride, around, ceil)
        assert torch.equal(max_pooled(x, layer).flatten(0, 1), expected)
        assert layer.output(x.shape[2:]) == expected.shape[1:]
        for counts in (False, True):
            layer = AveragePool(size, stride, around, ceil, counts)
            expected = functional.avg_pool2d(maps, size, stride, padding, ceil, counts).permute(0, 2, 3, 1)
            torch.testing.assert_close(average_pooled(x, layer).flatten(0, 1), expected)


def test_what_lies_outside_is_never_the_maximum_nor_counted():
    x = -torch.ones(1, 1, 3, 3, 1)
    assert (max_pooled(x, MaxPool(3, 2, (2, 0, 1, 2))) == -1).all()
    assert (average_pooled(x, AveragePool(3, 2, "same")) == -1).all()
    counted = average_pooled(x, AveragePool(2, 1, (1, 0, 1, 0), counts_padding=True))
    assert counted[0, 0, :, :, 0].tolist() == [[-0.25, -0.5, -0.5], [-0.5, -1, -1], [-0.5, -1, -1]]


def test_subsampled_channels_lie_in_the_middle():
    assert Subsample(2, 32).added((32, 32, 16)) == (8, 8)
    assert Subsample(2, 5).added((4, 4, 2)) == (1, 2)
    assert Subsample(2, 5).output((5, 4, 2)) == (3, 2, 5)


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        (Conv(1, 5, 1, "valid"), "has no window in what enters it"),
        (MaxPool(9), "has no window"),
        (MaxPool(2, 2, (2, 0, 0, 0)), "has a window that sees nothing"),
        (AveragePool(1, 1, (0, 1, 0, 0)), "has a window that sees nothing"),
        (Subsample(2, 1), "takes at most 1 channels"),
    ],
)
def test_windows_without_pixels_are_refused(layer: Layer, line: str):
    with pytest.raises(InputError, match=line):
        layer.output((4, 4, 2))


@pytest.mark.parametrize("groups", [[[0], [1]], [[0, 1], [2, 3]], [[0, 1, 2], [2, 3, 4], [4]], [[3, 1, 2, 0, 5]], []])
def test_a_tournament_finds_the_maximum_of_each_group(groups: list[list[int]]):
    numbers = [3.0, -1.0, 7.0, 5.0, 7.0, 2.0]
    expected = [max(numbers[one] for one in group) for group in groups]
    rounds, left = tournament(groups)
    for turn in rounds:
        best = [max(numbers[one], numbers[other]) for one, other in turn.pairs]
        numbers = best + [numbers[one] for one in turn.alone]
    assert [numbers[one] for one in left] == expected
