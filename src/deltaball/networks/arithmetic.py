"""What layers compute, for K networks at once: products, convolutions, activations, pools."""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional, grad

from deltaball.networks.layers import AveragePool, MaxPool
from deltaball.networks.transposed import ConvTranspose
from deltaball.networks.windows import Sides

# Multiply-adds from which a network's product is worth a call of its own.
LARGE_PRODUCT = 2**18

# Numbers that a CPU takes at a time in elementwise functions, or a multiple.
TOGETHER = 64

# Channels, at most, of images whose gradient a CPU takes by `_OfFewChannels`.
FEW_CHANNELS = 3

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


def each(x: torch.Tensor) -> Sequence[torch.Tensor]:
    """What each network has of x [K, ...]. Of one network a view, for the gradients of several are copied together."""
    return [x.squeeze(0)] if len(x) == 1 else x.unbind()


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """1 / (1 + e^-x) of x [K, ...], of each network as if it were alone."""
    # A CPU takes so many numbers at a time, and rounds those that are left at the end of a call otherwise.
    if x.device.type == "cpu" and len(x) > 1 and x[0].numel() % TOGETHER:
        return torch.stack([torch.sigmoid(one) for one in each(x)])
    return torch.sigmoid(x)


def _looped(
    x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None, stride: int, sides: Sides | None
) -> torch.Tensor:
    # One library call per network: on CPUs faster than a grouped convolution, and the result for one network
    # cannot depend on its neighbours. Images are channels-last in memory and stay so.
    filters = kernel.permute(0, 4, 3, 1, 2)
    biases = [None] * len(kernel) if bias is None else bias
    maps = [
        _convolved(images.permute(0, 3, 1, 2), filters[k], biases[k], stride, sides).permute(0, 2, 3, 1)
        for k, images in enumerate(each(x))
    ]
    return torch.stack(maps) if maps[1:] else maps[0][None]


def _grouped(
    x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None, stride: int, sides: Sides | None
) -> torch.Tensor:
    """One convolution whose groups are the networks; their channels side by side."""
    images = x.permute(1, 0, 4, 2, 3).flatten(1, 2)
    filters = kernel.permute(0, 4, 3, 1, 2).flatten(0, 1)
    maps = _convolved(images, filters, None if bias is None else bias.flatten(), stride, sides, len(kernel))
    return maps.unflatten(1, (len(kernel), -1)).permute(1, 0, 3, 4, 2)


def _unfolded(
    x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None, stride: int, sides: Sides | None
) -> torch.Tensor:
    """A batched product of the windows around all pixels and the kernels as matrices (im2col)."""
    size = kernel.shape[1]
    top, bottom, left, right = sides or ((size - 1) // 2, size // 2) * 2
    padded = functional.pad(x, (0, 0, left, right, top, bottom))
    windows = padded.unfold(2, size, stride).unfold(3, size, stride)  # [K, n, h, w, c, size, size]
    matrix = kernel.permute(0, 3, 1, 2, 4).flatten(1, 3)
    product = windows.flatten(4).flatten(1, 3) @ matrix
    return (product if bias is None else product + bias[:, None]).unflatten(1, windows.shape[1:4])


def _convolved(
    images: torch.Tensor,
    filters: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int,
    sides: Sides | None,
    groups: int = 1,
) -> torch.Tensor:
    """The convolution of images [n, c, h, w] as torch has it."""
    if sides is None:
        size = filters.shape[-1]
        if size % 2 == 0:
            return functional.conv2d(images, filters, bias, padding="same", groups=groups)
        sides = Sides(*(size // 2,) * 4)
    top, bottom, left, right = sides
    if (top, left) != (bottom, right):
        images, top, left = functional.pad(images, (left, right, top, bottom)), 0, 0
    if groups == 1 and _by_columns(images, filters):
        return _OfFewChannels.apply(images, filters, bias, stride, (top, left))
    return functional.conv2d(images, filters, bias, stride, (top, left), groups=groups)


def _by_columns(images: torch.Tensor, filters: torch.Tensor) -> bool:
    """Whether the gradient of a convolution by its images alone is wanted, and is faster by columns."""
    wanted = images.requires_grad and not filters.requires_grad
    on_cpu = images.device.type == "cpu" and images.dtype == torch.float32
    return wanted and on_cpu and images.shape[1] <= FEW_CHANNELS


class _OfFewChannels(torch.autograd.Function):
    """A convolution of images [n, c, h, w] whose gradient by them is a product, and sums of its shifted columns.

    The library's own takes 5 times as long for one channel of MNIST's size, and 1.2 to 2.4 times for three of CIFAR's.
    Filters and biases get no gradient.
    """

    @staticmethod
    def forward(
        context: Any,
        images: torch.Tensor,
        filters: torch.Tensor,
        bias: torch.Tensor | None,
        stride: int,
        padding: tuple[int, int],
    ) -> torch.Tensor:
        context.save_for_backward(filters)
        context.stride, context.padding, context.shape = stride, padding, images.shape
        return functional.conv2d(images, filters, bias, stride, padding)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (filters,), stride, (top, left) = context.saved_tensors, context.stride, context.padding
        count, channels, height, width = context.shape
        if torch.is_grad_enabled():  # this gradient is to be differentiated, too
            by_images = grad.conv2d_input(context.shape, filters, gradient, stride, (top, left))
            return by_images, None, None, None, None
        outputs, size, (rows, columns) = len(filters), filters.shape[-1], gradient.shape[-2:]
        # A product per image, so that what is found for one depends on no other.
        kernels = filters.permute(2, 3, 1, 0).reshape(1, -1, outputs).expand(count, -1, -1)
        taps = torch.bmm(kernels, gradient.permute(0, 2, 3, 1).reshape(count, -1, outputs).mT)
        taps = taps.view(count, size, size, channels, rows, columns).movedim(3, -1)
        found = gradient.new_zeros(count, height + 2 * top, width + 2 * left, channels)
        down, right = stride * (rows - 1) + 1, stride * (columns - 1) + 1
        for row in range(size):
            for column in range(size):
                found[:, row : row + down : stride, column : column + right : stride] += taps[:, row, column]
        by_images = found[:, top : top + height, left : left + width].contiguous().permute(0, 3, 1, 2)
        return by_images, None, None, None, None


# How the convolutions of a pack's networks, x [K, n, h, w, c] by kernels [K, size, size, c, filters] and biases
# [K, filters] or None, are computed. `sides` of None: stride 1 and TensorFlow's 'same'.
CONVOLUTIONS = {"looped": _looped, "grouped": _grouped, "unfolded": _unfolded}


def transposed(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, layer: ConvTranspose) -> torch.Tensor:
    """Transposed convolutions of x [K, n, h, w, c] by kernels [K, size, size, filters, c]; a call per network."""
    rows, columns = (slice(side.before, side.before + side.pixels) for side in layer.windows(x.shape[-3:]))
    filters = kernel.permute(0, 4, 3, 1, 2)
    maps = []
    for k, images in enumerate(each(x)):
        whole = functional.conv_transpose2d(images.permute(0, 3, 1, 2), filters[k], stride=layer.stride)
        shown = whole[..., rows, columns] + bias[k][:, None, None]
        maps.append(shown.permute(0, 2, 3, 1))
    return torch.stack(maps) if maps[1:] else maps[0][None]


def max_pooled(x: torch.Tensor, layer: MaxPool) -> torch.Tensor:
    """The maxima [..., h', w', c] of the windows of x [..., h, w, c]."""
    maps = _padded(x, layer.sides(x.shape[-3:]), -math.inf)
    return functional.max_pool2d(maps, layer.size, layer.stride).permute(0, 2, 3, 1).unflatten(0, x.shape[:-3])


def average_pooled(x: torch.Tensor, layer: AveragePool) -> torch.Tensor:
    """The means [..., h', w', c] of the windows of x [..., h, w, c]."""
    shape = x.shape[-3:]
    maps, counts = _padded(x, layer.sides(shape), 0.0), layer.counts(shape)
    if set(counts) == {layer.size**2}:
        means = functional.avg_pool2d(maps, layer.size, layer.stride)
    else:
        sums = functional.avg_pool2d(maps, layer.size, layer.stride, divisor_override=1)
        means = sums / constants(tuple(counts), x.dtype, x.device).view(sums.shape[-2:])
    return means.permute(0, 2, 3, 1).unflatten(0, x.shape[:-3])


def _padded(x: torch.Tensor, sides: Sides, value: float) -> torch.Tensor:
    """x [..., h, w, c] as [n, c, h, w], with `value` around it."""
    top, bottom, left, right = sides
    maps = x.flatten(0, -4).permute(0, 3, 1, 2)
    return functional.pad(maps, (left, right, top, bottom), value=value) if any(sides) else maps


@lru_cache(maxsize=256)
def constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of these numbers; always the same one, for a CUDA graph may not copy from the host."""
    return torch.tensor(values, dtype=dtype, device=device)


def product(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """x @ kernel, [K, n, outputs], of x [K, n, inputs] or [n, inputs] and kernel [K, inputs, outputs]."""
    large = x.shape[-2] * kernel[0].numel() >= LARGE_PRODUCT
    if large and x.device.type == "cpu" and x.dtype == torch.float32 and by_onednn():
        return _Product.apply(x, kernel)
    return x @ kernel


@lru_cache(maxsize=1)
def by_onednn() -> bool:
    """Whether oneDNN is to take products on this CPU: of AMD's, MKL uses AVX2 alone and oneDNN AVX-512 too."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    cpus = Path("/proc/cpuinfo")
    return cpus.exists() and "AuthenticAMD" in cpus.read_text()


class _Product(torch.autograd.Function):
    """`product` by oneDNN, a call per network, so that none depends on its neighbours.

    Its gradients are such products too, so that they can be differentiated in turn: the call itself has no gradient.
    """

    @staticmethod
    def forward(context: Any, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(x, kernel)
        images = x if x.ndim == 3 else [x] * len(kernel)
        return torch.stack([_times(rows, own.T) for rows, own in zip(images, kernel, strict=True)])

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, kernel = context.saved_tensors
        by_x = by_kernel = None
        if context.needs_input_grad[0]:
            by_x = _Product.apply(gradient, kernel.mT)
            by_x = by_x if x.ndim == 3 else by_x.sum(0)
        if context.needs_input_grad[1]:
            by_kernel = _Product.apply(x.mT, gradient)
        return by_x, by_kernel


def _times(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x @ weight.T as oneDNN's linear layer, without bias, without activation."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")  # noqa: SLF001  torch has no other name for it
