"""The gradient of a convolution by images of few channels, which a CPU finds by products of its own."""

import pytest
import torch

from deltaball.networks.layers import Conv, Layers
from deltaball.networks.packs import Pass

# Channels, size, stride, padding: as the papers have it, an even kernel, uneven padding, rows that no window sees.
CASES = [
    (1, 5, 2, "same"),
    (1, 3, 1, "same"),
    (3, 3, 1, "same"),
    (2, 4, 1, "same"),
    (1, 4, 3, "valid"),
    (3, 2, 2, "same"),
]


def convolved(conv: Conv, kernel: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return Pass().through(Layers(tuple(images.shape[2:]), (conv,)), [kernel], images)


def drawn(channels: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernels of two networks, and five images of each."""
    random = torch.Generator().manual_seed(0)
    kernel = torch.randn(2, size, size, channels, 6, generator=random)
    return kernel, torch.rand(2, 5, 11, 8, channels, generator=random)


def gradient(conv: Conv, kernel: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Of the sum of squares."""
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(convolved(conv, kernel, leaf).square().sum(), leaf)[0]


@pytest.mark.parametrize(("channels", "size", "stride", "padding"), CASES)
def test_it_is_that_of_double_precision(channels: int, size: int, stride: int, padding: str):
    conv = Conv(6, size, stride, padding, bias=False)
    kernel, images = drawn(channels, size)
    exact = gradient(conv, kernel.double(), images.double())
    torch.testing.assert_close(gradient(conv, kernel, images).double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "size", "stride", "padding"), CASES)
def test_it_depends_on_no_other_image_or_network(channels: int, size: int, stride: int, padding: str):
    conv = Conv(6, size, stride, padding, bias=False)
    kernel, images = drawn(channels, size)
    whole, alone = gradient(conv, kernel, images), gradient(conv, kernel[1:], images[1:, 2:4])
    assert torch.equal(whole[1, 2:4], alone[0])
    assert alone[0].stride() == torch.empty(alone[0].shape).stride(), "of another layout the next pass rounds otherwise"


@pytest.mark.parametrize(("channels", "size", "stride", "padding"), CASES)
def test_it_can_be_differentiated_again(channels: int, size: int, stride: int, padding: str):
    conv = Conv(6, size, stride, padding, bias=False)
    kernel, images = drawn(channels, size)
    found = []
    for precise in (torch.float32, torch.float64):
        leaf = images.to(precise).requires_grad_()
        total = convolved(conv, kernel.to(precise), leaf).pow(3).sum()
        (first,) = torch.autograd.grad(total, leaf, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), leaf)[0].double())
    torch.testing.assert_close(*found, rtol=1e-3, atol=found[1].abs().max().item() * 1e-5)
