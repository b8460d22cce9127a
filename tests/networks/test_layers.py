"""Every layer through every rule: what a room's table has is tested here, what it lacks is refused by name.

A new layer needs an example in NETWORKS; all that follows is then asked of it by every room that has a rule for it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from certificate_cases import BALLS, CLASSES, PAIRS, drawn_images, drawn_pack, exactly, pairs, sampled

from deltaball.base.errors import InputError
from deltaball.local import exact
from deltaball.local.balls import Ball
from deltaball.local.certificates.differences import differences
from deltaball.local.certificates.layerwise import PASSAGES
from deltaball.local.certificates.lines import CURVES
from deltaball.local.notions import ClassChange
from deltaball.local.references import Reference
from deltaball.networks import layers as room
from deltaball.networks import transposed
from deltaball.networks.arithmetic import ACTIVATIONS, CONVOLUTIONS
from deltaball.networks.dense_form import DENSE_ACTIVATIONS, DENSE_FORM, as_dense
from deltaball.networks.dense_sizes import SIZES, dense_sizes
from deltaball.networks.folding import folded
from deltaball.networks.initial import INITIAL, initial_weights
from deltaball.networks.keras_models import KERAS, get_weights, keras_model, set_weights
from deltaball.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Clamp,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    Layer,
    Layers,
    LeakyReLU,
    MaxPool,
    Normalise,
    Residual,
    Scale,
    Standardise,
    Subsample,
    Weight,
    walk,
)
from deltaball.networks.packs import FORWARD, Pack, Pass, logits
from deltaball.networks.support_vectors import SupportVectors
from deltaball.networks.transposed import ConvTranspose, Reshape
from deltaball.plan import costs
from deltaball.plan.costs import COSTS, layer_costs
from deltaball.study.checking import standardises

RELU = Activation("relu")
SHAPE = (5, 7, 2)  # neither square nor even, so that a transposition and a dropped row show
END = (Flatten(), Dense(CLASSES))
PADDINGS = ("same", "valid", (1, 1, 1, 1), (2, 0, 0, 1))
BLOCK = (Conv(3, 3, bias=False), BatchNorm(), RELU, Conv(3, 3, bias=False), BatchNorm())
DOWN = (Conv(5, 3, 2, bias=False), BatchNorm(), RELU, Conv(5, 3))
# For every type of layer, networks in which it stands.
NETWORKS: dict[type[Layer], list[tuple[Layer, ...]]] = {
    Dense: [
        (Flatten(), Dense(6), RELU, Dense(5), RELU, Dense(CLASSES)),
        (Flatten(), Dense(6, bias=False), RELU, Dense(CLASSES, bias=False)),
    ],
    Conv: [
        (Conv(3, 3), RELU, Conv(2, 4), RELU, *END),
        (Conv(3, 3, bias=False), RELU, *END),
        *((Conv(3, size, stride, padding), RELU, *END) for size, stride in ((3, 2), (2, 3)) for padding in PADDINGS),
    ],
    Activation: [
        network
        for name in ACTIVATIONS
        for network in ((Flatten(), Dense(6), Activation(name), Dense(CLASSES)), (Conv(2, 3), Activation(name), *END))
    ],
    LeakyReLU: [(Flatten(), Dense(6), LeakyReLU(0.1), Dense(CLASSES)), (Conv(2, 3), LeakyReLU(0.3), MaxPool(), *END)],
    Clamp: [(Flatten(), Dense(6), RELU, Dense(CLASSES), Clamp(-0.5, 0.7)), (Conv(2, 3), Clamp(0.0, 0.5), *END)],
    MaxPool: [
        *((Conv(3, 2), Activation(name), MaxPool(), *END) for name in ACTIVATIONS),
        (Conv(3, 2), MaxPool(), RELU, *END),
        *((Conv(2, 3), RELU, MaxPool(3, 2, padding), *END) for padding in PADDINGS),
        (Conv(2, 3), MaxPool(2, 3, "valid", True), *END),
    ],
    AveragePool: [
        *((Conv(2, 3), RELU, AveragePool(3, 2, padding), *END) for padding in PADDINGS),
        (AveragePool(2, 1, (1, 0, 1, 1), counts_padding=True), Conv(2, 3), RELU, *END),
        (Conv(2, 3), AveragePool(2, 2, "valid", True), RELU, *END),
    ],
    GlobalAveragePool: [(Conv(CLASSES, 3), RELU, GlobalAveragePool())],
    BatchNorm: [
        (Conv(3, 3), BatchNorm(), RELU, *END),
        (BatchNorm(1e-5), Conv(3, 3, 2), RELU, *END),
        (Flatten(), BatchNorm(), Dense(6), RELU, BatchNorm(), Dense(CLASSES)),
    ],
    GroupNorm: [
        (Conv(4, 3), GroupNorm(2), RELU, *END),
        (GroupNorm(1, 1e-5), Conv(3, 3, 2), GroupNorm(3), RELU, *END),
        (Flatten(), Dense(6), GroupNorm(2), RELU, Dense(CLASSES)),
    ],
    Scale: [(Scale(), Conv(2, 3), RELU, Scale(), *END)],
    Dropout: [(Flatten(), Dense(6), RELU, Dropout(0.5), Dense(CLASSES))],
    Normalise: [(Normalise((0.4, 0.5), (0.2, 0.3)), Conv(2, 3), RELU, *END)],
    Standardise: [(Standardise(), Conv(2, 3), RELU, *END)],
    Subsample: [(Conv(2, 3), RELU, Subsample(2, 5), *END)],
    Residual: [
        (Conv(3, 3), RELU, Residual(BLOCK), RELU, GlobalAveragePool(), Dense(CLASSES)),
        (Conv(2, 3), RELU, Residual(DOWN, (Subsample(2, 5),)), RELU, *END),
        (
            Residual(DOWN, (Conv(5, 1, 2, bias=False), BatchNorm())),
            LeakyReLU(0.1),
            Residual((Conv(5, 1), Residual((RELU, Conv(5, 2))))),
            *END,
        ),
        (Flatten(), Dense(5), Residual((RELU, Dense(5))), RELU, Dense(CLASSES)),
    ],
    Flatten: [END, (Conv(2, 2), RELU, *END)],
    Reshape: [(Flatten(), Dense(12), RELU, Reshape((3, 2, 2)), Conv(2, 3), *END)],
    ConvTranspose: [
        (Conv(3, 3, 2), RELU, ConvTranspose(2, 3, 2), RELU, ConvTranspose(1, 3), Activation("sigmoid"), *END),
        (ConvTranspose(2, 4, 2), RELU, ConvTranspose(1, 3, 3), *END),
        (ConvTranspose(2, 3, 2, (9, 14)), RELU, *END),
    ],
}
# What stands in no other network, and has a test of its own: vector machines (training/test_svm.py).
ELSEWHERE = {SupportVectors}
CASES = [Layers(SHAPE, network) for networks in NETWORKS.values() for network in networks]
TABLES = {
    "FORWARD": FORWARD,
    "KERAS": KERAS,
    "DENSE_FORM": DENSE_FORM,
    "SIZES": SIZES,
    "PASSAGES": PASSAGES,
    "COSTS": COSTS,
}


def named(layers: Layers) -> str:
    return " ".join(type(layer).__name__ + getattr(layer, "name", "") for layer in layers)


def knows(
    table: Mapping[type[Layer], Any], layers: Layers, activations: Mapping[str, Any], tried: Callable[[Pack], object]
) -> bool:
    """Whether a room has a rule for every layer."""
    functions = {layer.name for layer, _ in layers.within() if isinstance(layer, Activation)}
    if not ({type(layer) for layer, _ in layers.within()} <= set(table) and functions <= set(activations)):
        return False
    try:
        tried(drawn_pack(layers))
    except InputError:
        return False
    return True


def known(
    table: Mapping[type[Layer], Any], activations: Mapping[str, Any], tried: Callable[[Pack], object] = id
) -> Callable[[Any], Any]:
    """Parametrises a test by the networks that a room knows, and that it does not refuse when `tried`."""
    found = [layers for layers in CASES if knows(table, layers, activations, tried)]
    return pytest.mark.parametrize("layers", found, ids=named)


def test_every_layer_has_an_example_and_every_table_has_layers_alone():
    kinds = [kind for module in (room, transposed) for kind in vars(module).values() if isinstance(kind, type)]
    every = {kind for kind in kinds if is_dataclass(kind) and issubclass(kind, Layer)}
    assert set(NETWORKS) == every
    for kind, networks in NETWORKS.items():
        assert all(kind in map(type, network) for network in networks)
    for table in TABLES.values():
        assert set(table) <= every | ELSEWHERE


# ---- what layers know of themselves ----


@pytest.mark.parametrize("layers", CASES, ids=named)
def test_shapes_are_those_of_what_is_computed(layers: Layers):
    pack, x, entered = drawn_pack(layers), drawn_images(SHAPE, 3), []
    for layer, shape, own in layers.with_weights(pack.weights):
        assert [weight.shape[1:] for weight in own] == [weight.shape for weight in layer.weights(shape)]
        assert len({weight.name for weight in layer.weights(shape)}) == len(own)
        entered.append(shape)
    for count, shape in enumerate([*entered, layers.output]):
        part = Layers(SHAPE, layers.sequence[:count])
        values, weights = x.expand(2, *x.shape), pack.weights
        for layer, _, own in part.with_weights(weights):
            values = FORWARD[type(layer)](layer, own, values, Pass())
        assert values.shape == (2, 3, *shape)
    within = [math.prod(layer.output(shape)) for layer, shape in layers.within()]
    assert layers.activations == [math.prod(SHAPE), *within]
    if not any(layer.branches(shape) for layer, shape in layers.walk()):
        assert layers.activations == [math.prod(shape) for shape in [*entered, layers.output]]
    assert [*walk(layers.sequence, SHAPE)] == [*layers.walk()] == [*zip(layers, entered, strict=True)]


@pytest.mark.parametrize("layers", CASES, ids=named)
def test_multiply_adds_are_counted(layers: Layers):
    """Of ones by ones a layer sums as many products as there are; a convolution's border sums fewer."""
    for layer, shape in layers.within():
        if branches := layer.branches(shape):
            assert layer.macs(shape) == sum(branch.flop // 2 for branch in branches)
            continue
        kernels = [weight for weight in layer.weights(shape) if weight.role == "kernel"]
        if not kernels:
            assert layer.macs(shape) == 0
            continue
        # A transposed convolution takes the steps of the convolution back.
        counted = shape if isinstance(layer, ConvTranspose) else layer.output(shape)
        outputs = math.prod(counted) // kernels[0].shape[-1]
        assert layer.macs(shape) == outputs * math.prod(kernels[0].shape)
    assert layers.flop == 2 * sum(layer.macs(shape) for layer, shape in layers.walk())


@pytest.mark.parametrize("less", [(0, 0), (1, 0), (0, 1)])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (4, 2), (5, 3), (2, 2)])
def test_a_transposed_convolution_is_the_transpose_of_one(size: int, stride: int, less: tuple[int, int]):
    """⟨conv(x), y⟩ = ⟨x, transposed(y)⟩ for the same kernel, whose last two axes change their roles."""
    random = torch.manual_seed(0)
    small, large = (3, 2, 4), (3 * stride - less[0], 2 * stride - less[1], 5)
    kernel = torch.randn(1, size, size, 5, 4, generator=random, dtype=torch.float64)
    x, y = (torch.randn(6, *shape, generator=random, dtype=torch.float64) for shape in (large, small))
    down = Layers(large, (Conv(4, size, stride, bias=False),))
    up = Layers(small, (ConvTranspose(5, size, stride, large[:2]),))
    assert (down.output, up.output) == (small, large)
    there = Pass().through(down, [kernel], x[None])[0]
    back = Pass().through(up, [kernel, torch.zeros(1, 5, dtype=torch.float64)], y[None])[0]
    torch.testing.assert_close((there * y).sum(), (x * back).sum())


@pytest.mark.parametrize("layers", CASES, ids=named)
def test_weights_start_by_their_roles(layers: Layers):
    for weight, start in zip(layers.weights, initial_weights(layers, np.random.default_rng(0)), strict=True):
        assert weight.role in INITIAL
        assert (start.shape, start.dtype) == (weight.shape, np.float32)
        if weight.role == "kernel":
            assert start.std() > 0
        else:
            assert (start == (weight.role == "scale" or "variance" in weight.name)).all()


@pytest.mark.parametrize(
    ("sequence", "line"),
    [
        ((Dense(3),), r"Dense\(outputs=3, bias=True\) takes \[numbers\], and what enters it is \[5, 7, 2\]"),
        ((Flatten(), Conv(2, 3)), r"Conv\(.*\) takes \[height, width, channels\], and what enters it is \[70\]"),
        ((Flatten(), ConvTranspose(2, 3)), r"ConvTranspose\(.*\) takes \[height, width, channels\]"),
        ((ConvTranspose(2, 3, 2, (12, 14)),), r"ConvTranspose\(.*\) leads from other sides than .*\[5, 7, 2\]"),
        ((Flatten(), Reshape((5, 7, 3))), r"Reshape\(.*\) takes \[105\], and what enters it is \[70\]"),
        ((Flatten(), MaxPool()), r"MaxPool\(.*\) takes \[height, width, channels\]"),
    ],
)
def test_a_layer_in_the_wrong_place_is_refused_with_the_shape(sequence: tuple[Layer, ...], line: str):
    with pytest.raises(InputError, match=line):
        _ = Layers(SHAPE, sequence).parameters


# ---- rule by rule ----


@known(KERAS, ACTIVATIONS)
def test_the_forward_pass_is_keras(layers: Layers):
    pack, images, model = drawn_pack(layers), drawn_images(SHAPE, 2, 4), keras_model(layers)
    assert model.count_params() == sum(map(math.prod, layers.weight_shapes))
    for k, found in enumerate(pack(images)):
        weights = [weight[k].numpy() for weight in pack.weights]
        set_weights(model, layers, weights)
        for one, other in zip(get_weights(model, layers), weights, strict=True):
            np.testing.assert_array_equal(one, other)
        with torch.no_grad():
            np.testing.assert_allclose(found, model(images[k].numpy()).numpy(), rtol=1e-5, atol=2e-6)


@known(FORWARD, ACTIVATIONS)
def test_a_network_is_the_same_alone_and_in_a_pack(layers: Layers):
    pack = drawn_pack(layers, networks=3)
    curved = any(layer in (Activation("tanh"), Activation("sigmoid")) for layer in layers)
    for images in (drawn_images(SHAPE, 4), drawn_images(SHAPE, 3, 4)):
        for k, together in enumerate(pack(images)):
            alone = pack.one(k)(images if images.ndim == 4 else images[k : k + 1])[0]
            # What vectors of 16 bytes do not hold is curved by another routine.
            torch.testing.assert_close(alone, together, rtol=1e-6 * curved, atol=1e-6 * curved)


@known(FORWARD, ACTIVATIONS)
def test_convolutions_are_computed_alike(layers: Layers):
    pack, images = drawn_pack(layers), drawn_images(SHAPE, 4)
    looped, *others = (logits(layers, pack.weights, images, how) for how in CONVOLUTIONS)
    for other in others:
        torch.testing.assert_close(other, looped, rtol=1e-5, atol=1e-5)


@known(KERAS, ACTIVATIONS)
def test_a_keras_file_opens_without_deltaball(layers: Layers, tmp_path: Path):
    import keras

    pack, images, model = drawn_pack(layers), drawn_images(SHAPE, 4), keras_model(layers)
    set_weights(model, layers, [weight[0].numpy() for weight in pack.weights])
    model.save(tmp_path / "network.keras")
    opened = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    with torch.no_grad():
        np.testing.assert_allclose(pack(images)[0], opened(images.numpy()).numpy(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("ball", BALLS[1::3], ids=str)
@pytest.mark.parametrize("by", ["ibp", "crown"])
@known(PASSAGES, CURVES)
def test_bounds_enclose_what_is_sampled(layers: Layers, by: str, ball: Ball):
    pack, x, count = drawn_pack(layers), drawn_images(SHAPE, 2), 500
    seen = sampled(pack, ball.around(x), count).flatten(0, 1)
    # What float32 makes of the sampled images is enclosed too.
    least = pairs(pack(seen).double()).unflatten(1, (count, len(x))).amin(1)
    lower = differences(pack, x, ball, by, every=True)
    assert (lower <= least)[..., PAIRS].all()
    # And a bound that were merely low would not be so near; of a division by what varies too it is not.
    if by == "crown" and ball.delta <= 0.03 and not standardises(layers):
        assert (lower >= least - (1 + least.abs()))[..., PAIRS].all()


@pytest.mark.parametrize("layers", CASES, ids=named)
def test_a_folded_network_computes_the_same(layers: Layers):
    pack, x = drawn_pack(layers), drawn_images(SHAPE, 20)
    found = folded(pack)
    torch.testing.assert_close(found(x.double()), exactly(pack)(x.double()), rtol=1e-12, atol=1e-12)
    assert all(weight.dtype == torch.float64 for weight in found.weights)
    kinds = [type(layer) for layer, _ in found.layers.within()]
    assert not {BatchNorm, Dropout, Normalise} & set(kinds)
    assert [tuple(weight.shape[1:]) for weight in found.weights] == found.layers.weight_shapes


@pytest.mark.parametrize(
    ("sequence", "left"),
    [
        ((Conv(3, 3), BatchNorm(), RELU, *END), 0),
        ((Conv(3, 3), RELU, BatchNorm(), Flatten(), Dropout(0.1), Dense(CLASSES)), 0),
        ((Normalise((0.4, 0.5), (0.2, 0.3)), Conv(3, 3, 2, "valid"), RELU, *END), 0),
        ((Normalise((0.0, 0.0), (0.2, 0.3)), Conv(3, 3), RELU, *END), 0),
        ((Normalise((0.4, 0.5), (0.2, 0.3)), BatchNorm(), Conv(3, 3), RELU, *END), 1),  # a shift and zeros around
        ((Conv(3, 3), RELU, Residual((Conv(3, 3, bias=False), BatchNorm())), *END), 0),
        ((Conv(3, 3), RELU, BatchNorm(), RELU, *END), 1),
    ],
)
def test_normalisations_are_part_of_the_layers_beside_them(sequence: tuple[Layer, ...], left: int):
    pack, x = drawn_pack(Layers(SHAPE, sequence)), drawn_images(SHAPE, 20).double()
    found = folded(pack)
    torch.testing.assert_close(found(x), exactly(pack)(x), rtol=1e-12, atol=1e-12)
    assert sum(isinstance(layer, Scale) for layer, _ in found.layers.within()) == left


@known(DENSE_FORM, DENSE_ACTIVATIONS, as_dense)
def test_the_dense_form_computes_the_same(layers: Layers):
    pack, x = exactly(drawn_pack(layers)).one(1), drawn_images(SHAPE, 20).double()
    dense = as_dense(pack)
    torch.testing.assert_close(dense(x), pack(x), rtol=1e-12, atol=1e-12)
    kernels = [weight.shape for weight in dense.layers.weights if weight.role == "kernel"]
    assert dense_sizes(layers) == [kernels[0][0], *(kernel[1] for kernel in kernels)]


@known(DENSE_FORM, DENSE_ACTIVATIONS, as_dense)
def test_exact_answers_agree_with_certificates_and_samples(layers: Layers):
    pack, x, ball = drawn_pack(layers).one(0), drawn_images(SHAPE, 6), Ball("linf", 0.02)
    answers = exact.decide(pack, x, ball, 60.0)
    assert not np.isnan(answers.outcome).any()
    predicted = pack(x).argmax(-1)[0]
    points = sampled(pack, ball.around(x), 500)
    kept = (pack(points.flatten(0, 1)).argmax(-1).unflatten(1, (500, 6)) == predicted)[0].all(0).numpy()
    assert kept[answers.outcome == 1].all()
    row = differences(pack, x, ball, "crown", every=False)[0, range(6), predicted]
    certified = (row > 0).sum(-1).numpy() == CLASSES - 1
    assert (answers.outcome[certified] == 1).all()
    for index in np.flatnonzero(answers.outcome == 0):
        witness = answers.witness[index : index + 1]
        assert ball.around(x[index : index + 1]).contains(witness[None]).all()
        point = x[index : index + 1]
        assert ClassChange().outcome(Reference.output(pack(point)), pack(witness), torch.zeros(())) == 0


@known(COSTS, ACTIVATIONS)
def test_costs_are_of_all_multiply_adds(layers: Layers):
    found = layer_costs(layers)
    assert sum(cost.macs for cost in found) >= layers.flop / 2
    kinds = (Dense, Conv, ConvTranspose)
    weighted = [layer.output(shape) for layer, shape in layers.within() if isinstance(layer, kinds)]
    assert [cost.numbers for cost in found] == [math.prod(shape) for shape in weighted]
    work = costs.passes(layers, 10)
    assert work["evaluated"] == 10 * sum(map(math.prod, weighted))
    assert work["product_flop"] + work["convolution_flop"] >= 10 * layers.flop


# ---- what a room does not know ----


@dataclass(frozen=True)
class Mirror(Layer):
    """No room has a rule for it."""

    def weights(self, shape: tuple[int, ...]) -> tuple[Weight, ...]:
        return (Weight("angle", shape, "scale"),)


def model_with(layer: Layer) -> Pack:
    layers = Layers(SHAPE, (Conv(2, 3), layer, *END))
    weights = tuple(torch.zeros(1, *shape) for shape in layers.weight_shapes)
    return Pack(layers, weights)


def certified(pack: Pack) -> torch.Tensor:
    return differences(pack, drawn_images(SHAPE, 1), BALLS[0], "ibp", every=True)


ASKED: dict[str, Callable[[Pack], object]] = {
    "forward pass": lambda pack: pack(drawn_images(SHAPE, 1)),
    "Keras model": lambda pack: keras_model(pack.layers),
    "exact answer": as_dense,
    "certificate": certified,
    "estimate of costs": lambda pack: costs.passes(pack.layers, 1),
}


@pytest.mark.parametrize("what", ASKED)
def test_a_layer_without_a_rule_is_refused_by_name(what: str):
    with pytest.raises(InputError, match=f"no {what} for layer Mirror; possible: Dense, Conv, "):
        ASKED[what](model_with(Mirror()))


@pytest.mark.parametrize("what", ["forward pass", "exact answer"])
def test_an_activation_without_a_rule_is_refused_by_name(what: str):
    with pytest.raises(InputError, match=f"no {what} for activation wave; possible: relu, tanh, sigmoid$"):
        ASKED[what](model_with(Activation("wave")))


def test_a_certificate_of_an_unknown_activation_is_refused_by_name():
    with pytest.raises(InputError, match=r"no certificate for activation wave; possible: relu, tanh, sigmoid$"):
        certified(model_with(Activation("wave")))
