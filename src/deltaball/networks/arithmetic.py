"""What layers compute, for K networks at once: products, convolutions, activations, pools."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

# Multiply-adds from which a network's product is worth a call of its own.
LARGE_PRODUCT = 2**18

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


def _looped(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    # One library call per network: on CPUs faster than a grouped convolution, and the result for one network
    # cannot depend on its neighbours. Images are channels-last in memory and stay so.
    filters = kernel.permute(0, 4, 3, 1, 2)
    maps = [
        functional.conv2d(images.permute(0, 3, 1, 2), filters[k], bias[k], padding="same").permute(0, 2, 3, 1)
        for k, images in enumerate(x)
    ]
    return torch.stack(maps) if maps[1:] else maps[0][None]


def _grouped(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """One convolution whose groups are the networks; their channels side by side."""
    images = x.permute(1, 0, 4, 2, 3).flatten(1, 2)
    filters = kernel.permute(0, 4, 3, 1, 2).flatten(0, 1)
    maps = functional.conv2d(images, filters, bias.flatten(), padding="same", groups=len(kernel))
    return maps.unflatten(1, (len(kernel), -1)).permute(1, 0, 3, 4, 2)


def _unfolded(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A batched product of the windows around all pixels and the kernels as matrices (im2col)."""
    size = kernel.shape[1]
    before, after = (size - 1) // 2, size // 2
    padded = functional.pad(x, (0, 0, before, after, before, after))
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)  # [K, n, h, w, c, size, size]
    matrix = kernel.permute(0, 3, 1, 2, 4).flatten(1, 3)
    return (windows.flatten(4).flatten(1, 3) @ matrix + bias[:, None]).unflatten(1, x.shape[1:4])


# How the convolutions of a pack's networks, x [K, n, h, w, c] by kernels [K, size, size, c, filters], are computed.
CONVOLUTIONS = {"looped": _looped, "grouped": _grouped, "unfolded": _unfolded}


def pooled(x: torch.Tensor) -> torch.Tensor:
    """The 2×2 maximum of x [K, n, h, w, c], with stride 2."""
    maps = functional.max_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return maps.unflatten(0, x.shape[:2])


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
    """`product` by oneDNN, a call per network, so that none depends on its neighbours."""

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
            by_x = torch.stack([_times(rows, own) for rows, own in zip(gradient, kernel, strict=True)])
            by_x = by_x if x.ndim == 3 else by_x.sum(0)
        if context.needs_input_grad[1]:
            images = x if x.ndim == 3 else [x] * len(kernel)
            by_kernel = torch.stack([_times(rows.T, own.T) for rows, own in zip(images, gradient, strict=True)])
        return by_x, by_kernel


def _times(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x @ weight.T as oneDNN's linear layer, without bias, without activation."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")  # noqa: SLF001  torch has no other name for it
