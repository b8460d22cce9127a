"""K networks of one shape as one torch function of x: stacked weights, one forward pass for all."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from deltaball.architectures import Activation, Conv, Dense, Flatten, Layers, MaxPool, weight_shapes

# Samples of a posterior whose activations are held at once.
SAMPLES_AT_ONCE = 16
# Multiply-adds from which a network's product is worth a call of its own.
LARGE_PRODUCT = 2**18
ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


@dataclass(frozen=True)
class Pack:
    """K networks with the same `layers`; each of `weights` is [K, *shape] in Keras' order and layout.

    `layers` is the list that certificates and solvers read; calling the pack is the function that attacks see.
    """

    layers: Layers
    weights: tuple[torch.Tensor, ...]

    @staticmethod
    def of(layers: Layers, networks: Sequence[Sequence[np.ndarray]], device: str = "cpu") -> "Pack":
        """Stack the weights of K networks (each a list as Keras' ``get_weights`` gives it)."""
        return Pack(
            layers,
            tuple(torch.from_numpy(np.stack(arrays)).to(device) for arrays in zip(*networks, strict=True)),
        )

    def __len__(self) -> int:
        return len(self.weights[0])

    def one(self, k: int) -> "Pack":
        """Network k as a pack of its own."""
        return Pack(self.layers, tuple(weight[k : k + 1] for weight in self.weights))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [K, n, classes] of images x in [0, 1]: [n, h, w, c] shown to every network, or [K, n, h, w, c]."""
        return logits(self.layers, self.weights, x)


@dataclass(frozen=True)
class Posterior:
    """One network that averages the softmax of S samples; each of `weights` is [S, *shape] in Keras' order and layout.

    To attacks it is a pack of one network.
    """

    layers: Layers
    weights: tuple[torch.Tensor, ...]

    @staticmethod
    def of(layers: Layers, samples: Sequence[np.ndarray], device: str = "cpu") -> "Posterior":
        return Posterior(layers, tuple(torch.from_numpy(array).to(device) for array in samples))

    def __len__(self) -> int:
        return 1

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Log of the mean of softmax, [1, n, classes], of images x in [0, 1], [n, h, w, c] or [1, n, h, w, c].

        Softmax of it is the mean itself, so these are the network's logits. The log-sum-exp of the samples' log
        softmax, because a mean of probabilities may underflow. Never are the activations of all samples held at once.
        """
        images = x if x.ndim == 4 else x[0]
        total = _LogSumSoftmax.apply(images, self.layers, self.weights)
        return total[None] - math.log(len(self.weights[0]))


class _LogSumSoftmax(torch.autograd.Function):
    """Log of the sum over samples of softmax, [n, classes], differentiable by the images [n, h, w, c] alone.

    The gradient is the mean of the samples' gradients of log softmax, weighted by each one's share of the sum. They
    are computed again in the backward pass, a few samples at a time.
    """

    @staticmethod
    def forward(context: Any, images: torch.Tensor, layers: Layers, weights: tuple[torch.Tensor, ...]) -> torch.Tensor:
        parts = [_log_softmax(layers, some, images).logsumexp(0) for some in _portions(weights)]
        total = torch.stack(parts).logsumexp(0)
        context.layers, context.weights = layers, weights
        context.save_for_backward(images, total)
        return total

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, total = context.saved_tensors
        found = torch.zeros_like(images)
        for some in _portions(context.weights):
            with torch.enable_grad():
                leaf = images.detach().requires_grad_()
                each = _log_softmax(context.layers, some, leaf)
            (added,) = torch.autograd.grad(each, leaf, gradient * (each.detach() - total).exp())
            found += added
        return found, None, None


def _log_softmax(layers: Layers, weights: Sequence[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    return logits(layers, weights, images).log_softmax(-1)


def _portions(weights: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    # Always as many, so that what is found for an image does not depend on how many are beside it.
    for start in range(0, len(weights[0]), SAMPLES_AT_ONCE):
        yield [weight[start : start + SAMPLES_AT_ONCE] for weight in weights]


def logits(
    layers: Layers, weights: Sequence[torch.Tensor], x: torch.Tensor, convolution: str = "looped"
) -> torch.Tensor:
    """The forward pass of `Pack`, with the weights as an argument so that they can be differentiated.

    `convolution` is one of CONVOLUTIONS, which differ in speed and in rounding.
    """
    networks = len(weights[0])
    assert x.ndim == 4 or (x.ndim == 5 and len(x) == networks), f"{tuple(x.shape)} for {networks} networks"
    remaining = iter(weights)
    for layer in layers:
        match layer:
            case Dense():
                kernel, bias = next(remaining), next(remaining)
                x = product(x, kernel) + bias[:, None]
            case Conv():
                kernel, bias = next(remaining), next(remaining)
                x = CONVOLUTIONS[convolution](x if x.ndim == 5 else x.expand(networks, *x.shape), kernel, bias)
            case Activation():
                x = ACTIVATIONS[layer.name](x)
            case MaxPool():
                x = _pooled(x)
            case Flatten():
                x = x.flatten(-3)
    assert x.ndim == 3 and len(x) == networks
    return x


def _looped(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    # One library call per network: on CPUs faster than a grouped convolution, and the result for one network
    # cannot depend on its neighbours. Images are channels-last in memory and stay so.
    filters = kernel.permute(0, 4, 3, 1, 2)
    found = [
        functional.conv2d(one.permute(0, 3, 1, 2), filters[k], bias[k], padding="same").permute(0, 2, 3, 1)
        for k, one in enumerate(x)
    ]
    return torch.stack(found) if found[1:] else found[0][None]


def _grouped(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """One convolution whose groups are the networks; their channels side by side."""
    images = x.permute(1, 0, 4, 2, 3).flatten(1, 2)
    filters = kernel.permute(0, 4, 3, 1, 2).flatten(0, 1)
    found = functional.conv2d(images, filters, bias.flatten(), padding="same", groups=len(kernel))
    return found.unflatten(1, (len(kernel), -1)).permute(1, 0, 3, 4, 2)


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


def _pooled(x: torch.Tensor) -> torch.Tensor:
    networks, points = x.shape[:2]
    pooled = functional.max_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return pooled.unflatten(0, (networks, points))


def product(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """x @ kernel, [K, n, outputs], of x [K, n, inputs] or [n, inputs] and kernel [K, inputs, outputs]."""
    large = x.shape[-2] * kernel[0].numel() >= LARGE_PRODUCT
    if large and x.device.type == "cpu" and x.dtype == torch.float32 and _by_onednn():
        return _Product.apply(x, kernel)
    return x @ kernel


@lru_cache(maxsize=1)
def _by_onednn() -> bool:
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
        return torch.stack([_times(one, own.T) for one, own in zip(images, kernel, strict=True)])

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, kernel = context.saved_tensors
        by_x = by_kernel = None
        if context.needs_input_grad[0]:
            by_x = torch.stack([_times(one, own) for one, own in zip(gradient, kernel, strict=True)])
            by_x = by_x if x.ndim == 3 else by_x.sum(0)
        if context.needs_input_grad[1]:
            images = x if x.ndim == 3 else [x] * len(kernel)
            by_kernel = torch.stack([_times(one.T, own.T) for one, own in zip(images, gradient, strict=True)])
        return by_x, by_kernel


def _times(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x @ weight.T as oneDNN's linear layer, without bias, without activation."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def initial_weights(layers: Layers, generator: np.random.Generator) -> list[np.ndarray]:
    """Glorot-uniform kernels (Glorot & Bengio 2010, Equation 16) and zero biases, in Keras' order.

    Drawn in float32 by numpy, so that a network starts from the same weights on every device.
    """
    drawn = []
    for shape in weight_shapes(layers):
        if len(shape) == 1:
            drawn.append(np.zeros(shape, np.float32))
            continue
        receptive = int(np.prod(shape[:-2]))
        limit = np.sqrt(6 / (receptive * (shape[-2] + shape[-1])))
        drawn.append(generator.uniform(-limit, limit, shape).astype(np.float32))
    return drawn
