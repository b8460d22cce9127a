"""A pack computes what the Keras models it stands for compute, and no network depends on its neighbours."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from deltaball.networks import arithmetic
from deltaball.networks.arithmetic import sigmoid
from deltaball.networks.initial import initial_weights
from deltaball.networks.keras_models import keras_model
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pack, Pass, logits, passed, rule_of
from deltaball.study.architectures import layers

NETWORKS = 3
CNN = {"fc_depth": 1, "fc_width": 12, "filters": 4, "kernel": 3, "conv_depth": 2}
# Neither square images nor one channel, an odd row to drop, an even kernel: what a transposition would show.
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, int, int]]] = {
    "fcn": ("fcn", {"depth": 2, "width": 12}, (5, 3, 2)),
    "cnn": ("cnn", CNN, (9, 12, 2)),
    "cnn of even kernel": ("cnn", {**CNN, "kernel": 4, "conv_depth": 1}, (6, 7, 1)),
    "vgg": ("vgg", {**CNN, "kernel": 5}, (8, 9, 3)),
}
ACTIVATIONS = ["relu", "tanh", "sigmoid"]
COMBINATIONS = [(case, activation) for case in CASES for activation in ACTIVATIONS]


def network(case: str, activation: str) -> tuple[Layers, tuple[int, int, int]]:
    architecture, axes, shape = CASES[case]
    return layers(architecture, {**axes, "activation": activation}, shape, 4), shape


def drawn_weights(network: Layers, seed: int) -> list[np.ndarray]:
    """Weights with biases that matter (a Glorot start has none)."""
    random = np.random.default_rng(seed)
    weights = initial_weights(network, random)
    return [one if one.ndim > 1 else random.normal(0, 0.3, one.shape).astype(np.float32) for one in weights]


def drawn_images(shape: tuple[int, ...], *counts: int) -> np.ndarray:
    return np.random.default_rng(7).random((*counts, *shape), dtype=np.float32)


def packed(case: str, activation: str) -> Pack:
    found, _ = network(case, activation)
    return Pack.of(found, [drawn_weights(found, seed) for seed in range(NETWORKS)])


@pytest.fixture(scope="module")
def jax_logits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Logits of every case by Keras on JAX, in a process of its own: a backend is chosen once per process."""
    folder = tmp_path_factory.mktemp("jax")
    inputs, cases = {}, []
    for case, activation in COMBINATIONS:
        found, shape = network(case, activation)
        key = f"{case}/{activation}"
        cases.append([key, *CASES[case], activation])
        inputs[f"{key}/x"] = drawn_images(shape, 5)
        for k in range(NETWORKS):
            for index, weight in enumerate(drawn_weights(found, k)):
                inputs[f"{key}/{k}/{index}"] = weight
    np.savez(folder / "inputs.npz", **inputs)
    script = """
import json, sys
import numpy as np
from deltaball.networks.keras_models import keras_model
from deltaball.study.architectures import layers
import keras
assert keras.backend.backend() == "jax"
inputs, outputs = np.load(sys.argv[1]), {}
for key, architecture, axes, shape, activation in json.loads(sys.argv[3]):
    model = keras_model(layers(architecture, {**axes, "activation": activation}, tuple(shape), 4))
    for k in range(int(sys.argv[4])):
        model.set_weights([inputs[f"{key}/{k}/{index}"] for index in range(len(model.weights))])
        outputs[f"{key}/{k}"] = np.asarray(model(inputs[f"{key}/x"]))
np.savez(sys.argv[2], **outputs)
"""
    arguments = [str(folder / "inputs.npz"), str(folder / "outputs.npz"), json.dumps(cases), str(NETWORKS)]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", script, *arguments], env=environment, check=True)
    with np.load(folder / "outputs.npz") as outputs:
        return dict(outputs)


@pytest.mark.parametrize(("case", "activation"), COMBINATIONS)
def test_packed_logits_are_keras_logits_on_torch(case: str, activation: str):
    found, shape = network(case, activation)
    model, images = keras_model(found), drawn_images(shape, NETWORKS, 5)
    pack = packed(case, activation)
    shared, own = pack(torch.from_numpy(images[0])), pack(torch.from_numpy(images))
    assert shared.shape == own.shape == (NETWORKS, 5, 4)
    for k in range(NETWORKS):
        model.set_weights(drawn_weights(found, k))
        with torch.no_grad():
            np.testing.assert_allclose(shared[k], model(images[0]).numpy(), rtol=1e-5, atol=2e-6)
            np.testing.assert_allclose(own[k], model(images[k]).numpy(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("case", "activation"), COMBINATIONS)
def test_packed_logits_are_keras_logits_on_jax(case: str, activation: str, jax_logits: dict[str, np.ndarray]):
    _, shape = network(case, activation)
    found = packed(case, activation)(torch.from_numpy(drawn_images(shape, 5)))
    for k in range(NETWORKS):
        np.testing.assert_allclose(found[k], jax_logits[f"{case}/{activation}/{k}"], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_networks_of_a_pack_differ(case: str):
    # Else the comparisons above could not tell one network of a pack from another.
    _, shape = network(case, "relu")
    found = packed(case, "relu")(torch.from_numpy(drawn_images(shape, 5)))
    assert (found[0] - found[1]).abs().max() > 0.05


def alone_and_packed(
    found: Layers, shape: tuple[int, ...], count: int, batch: int
) -> list[tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]]:
    """Per network: logits and gradients by weights and by images, computed alone and in the pack."""
    images = torch.from_numpy(drawn_images(shape, count, batch))
    weights = Pack.of(found, [drawn_weights(found, seed) for seed in range(count)]).weights

    def computed(weights: tuple[torch.Tensor, ...], images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        leaves = [weight.clone().requires_grad_() for weight in weights]
        images = images.clone().requires_grad_()
        output = logits(found, leaves, images)
        gradients = torch.autograd.grad(output.logsumexp(-1).sum(), [*leaves, images])
        return (output.detach(), *gradients)

    together = computed(weights, images)
    return [
        (
            computed(tuple(weight[k : k + 1] for weight in weights), images[k : k + 1]),
            tuple(t[k : k + 1] for t in together),
        )
        for k in range(count)
    ]


SIZES = {
    "fcn 64×2": ("fcn", {"depth": 2, "width": 64}, (28, 28, 1)),
    "fcn 256×1": ("fcn", {"depth": 1, "width": 256}, (28, 28, 1)),
    "cnn": ("cnn", {**CNN, "filters": 5, "fc_width": 128}, (28, 28, 1)),
    "vgg": ("vgg", {**CNN, "filters": 8, "fc_width": 32, "conv_depth": 1}, (32, 32, 3)),
}


@pytest.mark.parametrize("batch", [32, 80, 96, 128])
@pytest.mark.parametrize("size", SIZES)
def test_a_network_is_the_same_alone_and_in_a_pack_bit_for_bit(size: str, batch: int):
    # The studies' batches: 32 and 128, and what 4,000, 50,000 and 60,000 points leave for the last one.
    architecture, axes, shape = SIZES[size]
    found = layers(architecture, {**axes, "activation": "relu"}, shape, 10)
    for alone, together in alone_and_packed(found, shape, 3, batch):
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one, other)


POOLED = {
    "cnn": ("cnn", {**CNN, "activation": "relu"}, (13, 9, 2)),
    "lenet": ("lenet", {"conv_activation": "relu"}, (29, 28, 1)),  # its pools see less at the edge
    "nin": ("nin", {"width": 12, "dropout": 0.0}, (32, 32, 3)),  # its windows overlap
}


@pytest.mark.parametrize("kind", POOLED)
def test_maxima_before_relus_are_relus_before_maxima_with_their_gradients_bit_for_bit(kind: str):
    architecture, axes, shape = POOLED[kind]
    found = layers(architecture, axes, shape, 10)
    images = torch.from_numpy(drawn_images(shape, NETWORKS, 6))
    images[:, :3, : shape[0] // 2] = 0  # equal numbers within a window
    weights = Pack.of(found, [drawn_weights(found, seed) for seed in range(NETWORKS)]).weights

    def as_written(leaves: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        for layer, _, own in found.with_weights(leaves):
            x = rule_of(layer)(layer, own, x, Pass())
        return x

    results = []
    for forward in (as_written, partial(logits, found)):
        leaves = [weight.clone().requires_grad_() for weight in (*weights, images)]
        output = forward(leaves[:-1], leaves[-1])
        results.append((output, *torch.autograd.grad(output.logsumexp(-1).sum(), leaves)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    orders = [[type(layer) for layer, *_ in order] for order in (found.with_weights(weights), passed(found, weights))]
    assert orders[0] != orders[1]


@pytest.mark.parametrize("batch", [1, 5, 33])
@pytest.mark.parametrize("width", [20, 64])
def test_sigmoid_is_the_same_alone_and_in_a_pack_bit_for_bit(width: int, batch: int):
    # A network's numbers are no multiple of what a CPU takes at a time.
    numbers = 3 * torch.randn(3, batch, width, generator=torch.Generator().manual_seed(0))
    together = sigmoid(numbers)
    assert all(torch.equal(together[k : k + 1], sigmoid(numbers[k : k + 1])) for k in range(3))


@pytest.mark.parametrize("batch", [1, 3, 33])
@pytest.mark.parametrize("width", [5, 64])
def test_a_network_is_the_same_alone_and_in_a_pack_but_for_rounding(width: int, batch: int):
    # Where a network's slice of a stacked product does not start on 16 bytes, BLAS may take another kernel.
    found = layers("fcn", {"depth": 2, "width": width, "activation": "tanh"}, (9, 7, 1), 10)
    for alone, together in alone_and_packed(found, (9, 7, 1), 3, batch):
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_broken_network_does_not_touch_its_neighbours():
    found = layers("cnn", {**CNN, "activation": "relu"}, (8, 8, 1), 10)
    weights = [drawn_weights(found, seed) for seed in range(3)]
    images = torch.from_numpy(drawn_images((8, 8, 1), 4))
    before = Pack.of(found, weights)(images)
    weights[1] = [np.full_like(one, np.nan) for one in weights[1]]
    after = Pack.of(found, weights)(images)
    assert after[1].isnan().all()
    assert torch.equal(after[[0, 2]], before[[0, 2]])


def test_images_of_another_number_of_networks_are_refused():
    pack = packed("fcn", "relu")
    with pytest.raises(AssertionError, match="for 3 networks"):
        pack(torch.zeros(2, 4, 5, 3, 2))


@pytest.mark.parametrize(
    ("case", "limits"),
    [
        # √(6 / (inputs + outputs)), for a convolution times its receptive field
        ("fcn", [6 / (30 + 12), 6 / (12 + 12), 6 / (12 + 4)]),
        ("vgg", [6 / (25 * (3 + 4)), 6 / (25 * 8), 6 / (25 * 8), 6 / (25 * 8), 6 / (2 * 2 * 4 + 12), 6 / (12 + 4)]),
    ],
)
def test_kernels_start_glorot_uniform_and_biases_at_zero(case: str, limits: list[float]):
    found, _ = network(case, "relu")
    random = np.random.default_rng(0)
    draws = [initial_weights(found, random) for _ in range(200)]
    assert [one.shape for one in draws[0]] == found.weight_shapes
    assert all(one.dtype == np.float32 for one in draws[0])
    kernels = [np.stack([draw[index] for draw in draws]).ravel() for index in range(0, len(draws[0]), 2)]
    for kernel, squared in zip(kernels, limits, strict=True):
        limit = squared**0.5
        assert np.abs(kernel).max() <= limit * (1 + 1e-6)
        assert np.abs(kernel).max() > 0.99 * limit
        # Variance limit²/3 within five standard errors (kurtosis of a uniform: Var(u²) = 4/45 limit⁴).
        assert abs(np.var(kernel) / (squared / 3) - 1) < 5 * 3 * (4 / 45 / len(kernel)) ** 0.5
        assert abs(kernel.mean()) < 5 * limit / (3 * len(kernel)) ** 0.5
    assert not any(draw[index].any() for draw in draws for index in range(1, len(draws[0]), 2))


def test_initial_weights_come_from_the_generator_alone():
    found, _ = network("cnn", "relu")
    one, again, other = (initial_weights(found, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("shared", [False, True])
def test_a_large_product_and_its_gradients_are_those_in_float64(shared: bool, monkeypatch: pytest.MonkeyPatch):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(*([] if shared else [3]), 96, 70, generator=random, requires_grad=True)
    kernel = torch.randn(3, 70, 50, generator=random, requires_grad=True)
    gradient = torch.randn(3, 96, 50, generator=random)
    assert x.shape[-2] * kernel[0].numel() >= arithmetic.LARGE_PRODUCT
    exact = (x.double() @ kernel.double()).detach()
    expected = torch.autograd.grad(x.double() @ kernel.double(), (x, kernel), gradient.double())
    for by_onednn in (False, True):  # oneDNN is slower where MKL has AVX-512, and no less right
        monkeypatch.setattr(arithmetic, "by_onednn", lambda chosen=by_onednn: chosen)
        found = arithmetic.product(x, kernel)
        assert (type(found.grad_fn).__name__ == "_ProductBackward") == by_onednn
        torch.testing.assert_close(found.double(), exact, atol=1e-4, rtol=0)
        for one, other in zip(torch.autograd.grad(found, (x, kernel), gradient), expected, strict=True):
            torch.testing.assert_close(one, other, atol=2e-4, rtol=0)
        # A gradient by images may itself be differentiated by the weights.
        by_images = []
        for one in (arithmetic.product(x, kernel), (x.double() @ kernel.double()).float()):
            (slope,) = torch.autograd.grad(one, x, gradient, create_graph=True)
            by_images.append(torch.autograd.grad(slope.square().sum(), kernel)[0])
        torch.testing.assert_close(*by_images, atol=1e-3, rtol=1e-4)
