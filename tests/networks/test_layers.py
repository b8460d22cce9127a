"""Every layer through every rule: what a room's table has is tested here, what it lacks is refused by name.

A new layer needs an example in NETWORKS; all that follows is then asked of it by every room that has a rule for it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from certificate_cases import BALLS, CLASSES, PAIRS, drawn_images, drawn_pack, entering, exactly, pairs, sampled

from deltaball.base.errors import InputError
from deltaball.local import exact
from deltaball.local.balls import Ball
from deltaball.local.certificates.crown import layer_bounds
from deltaball.local.certificates.differences import differences
from deltaball.local.certificates.layered import STAGES, stages_of
from deltaball.local.certificates.lines import CURVES
from deltaball.networks import layers as room
from deltaball.networks.arithmetic import ACTIVATIONS
from deltaball.networks.dense_form import DENSE_ACTIVATIONS, DENSE_FORM, as_dense
from deltaball.networks.dense_sizes import SIZES, dense_sizes
from deltaball.networks.initial import INITIAL, initial_weights
from deltaball.networks.keras_models import KERAS, keras_model
from deltaball.networks.layers import Activation, Conv, Dense, Flatten, Layer, Layers, MaxPool, Weight, walk
from deltaball.networks.packs import FORWARD, Pack
from deltaball.plan import costs
from deltaball.plan.costs import COSTS, layer_costs

RELU = Activation("relu")
SHAPE = (5, 7, 2)  # neither square nor even, so that a transposition and a dropped row show
END = (Flatten(), Dense(CLASSES))
# For every type of layer, networks in which it stands.
NETWORKS: dict[type[Layer], list[tuple[Layer, ...]]] = {
    Dense: [(Flatten(), Dense(6), RELU, Dense(5), RELU, Dense(CLASSES))],
    Conv: [(Conv(3, 3), RELU, Conv(2, 4), RELU, *END)],
    Activation: [
        network
        for name in ACTIVATIONS
        for network in ((Flatten(), Dense(6), Activation(name), Dense(CLASSES)), (Conv(2, 3), Activation(name), *END))
    ],
    MaxPool: [(Conv(3, 2), Activation(name), MaxPool(), *END) for name in ACTIVATIONS],
    Flatten: [END, (Conv(2, 2), RELU, *END)],
}
CASES = [Layers(SHAPE, network) for networks in NETWORKS.values() for network in networks]
TABLES = {
    "FORWARD": FORWARD,
    "KERAS": KERAS,
    "DENSE_FORM": DENSE_FORM,
    "SIZES": SIZES,
    "STAGES": STAGES,
    "COSTS": COSTS,
}


def named(layers: Layers) -> str:
    return " ".join(type(layer).__name__ + getattr(layer, "name", "") for layer in layers)


def knows(table: Mapping[type[Layer], Any], layers: Layers, activations: Mapping[str, Any]) -> bool:
    """Whether a room has a rule for every layer."""
    functions = {layer.name for layer in layers if isinstance(layer, Activation)}
    return {type(layer) for layer in layers} <= set(table) and functions <= set(activations)


def known(table: Mapping[type[Layer], Any], activations: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Parametrises a test by the networks that a room knows."""
    found = [layers for layers in CASES if knows(table, layers, activations)]
    return pytest.mark.parametrize("layers", found, ids=named)


def test_every_layer_has_an_example_and_every_table_has_layers_alone():
    every = {kind for kind in vars(room).values() if isinstance(kind, type) and issubclass(kind, Layer)} - {Layer}
    assert set(NETWORKS) == every
    for kind, networks in NETWORKS.items():
        assert all(kind in map(type, network) for network in networks)
    for table in TABLES.values():
        assert set(table) <= every


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
            values = FORWARD[type(layer)](layer, own, values, "looped")
        assert values.shape == (2, 3, *shape)
    assert layers.activations == [math.prod(shape) for shape in [*entered, layers.output]]
    assert [*walk(layers.sequence, SHAPE)] == [*layers.walk()] == [*zip(layers, entered, strict=True)]


@pytest.mark.parametrize("layers", CASES, ids=named)
def test_multiply_adds_are_counted(layers: Layers):
    """Of ones by ones a layer sums as many products as there are; a convolution's border sums fewer."""
    for layer, shape in layers.walk():
        kernels = [weight for weight in layer.weights(shape) if weight.role == "kernel"]
        if not kernels:
            assert layer.macs(shape) == 0
            continue
        outputs = math.prod(layer.output(shape)) // kernels[0].shape[-1]
        assert layer.macs(shape) == outputs * math.prod(kernels[0].shape)
    assert layers.flop == 2 * sum(layer.macs(shape) for layer, shape in layers.walk())


@pytest.mark.parametrize("layers", CASES, ids=named)
def test_weights_start_by_their_roles(layers: Layers):
    for weight, start in zip(layers.weights, initial_weights(layers, np.random.default_rng(0)), strict=True):
        assert weight.role in INITIAL
        assert (start.shape, start.dtype) == (weight.shape, np.float32)
        assert start.any() == (weight.role == "kernel")


@pytest.mark.parametrize(
    ("sequence", "line"),
    [
        ((Dense(3),), r"Dense\(outputs=3\) takes \[numbers\], and what enters it is \[5, 7, 2\]"),
        ((Flatten(), Conv(2, 3)), r"Conv\(.*\) takes \[height, width, channels\], and what enters it is \[70\]"),
        ((Flatten(), MaxPool()), r"MaxPool\(\) takes \[height, width, channels\]"),
    ],
)
def test_a_layer_in_the_wrong_place_is_refused_with_the_shape(sequence: tuple[Layer, ...], line: str):
    with pytest.raises(InputError, match=line):
        _ = Layers(SHAPE, sequence).parameters


# ---- rule by rule ----


@known(KERAS, ACTIVATIONS)
def test_the_forward_pass_is_keras(layers: Layers):
    pack, images, model = drawn_pack(layers), drawn_images(SHAPE, 2, 4), keras_model(layers)
    assert [tuple(weight.shape) for weight in model.weights] == layers.weight_shapes
    assert model.count_params() == layers.parameters
    for k, found in enumerate(pack(images)):
        model.set_weights([weight[k].numpy() for weight in pack.weights])
        with torch.no_grad():
            np.testing.assert_allclose(found, model(images[k].numpy()).numpy(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("ball", BALLS[1::3], ids=str)
@pytest.mark.parametrize("by", ["ibp", "crown"])
@known(STAGES, CURVES)
def test_bounds_enclose_what_is_sampled(layers: Layers, by: str, ball: Ball):
    pack, x, count = drawn_pack(layers), drawn_images(SHAPE, 2), 500
    around = ball.around(x)
    seen = sampled(pack, around, count).flatten(0, 1)
    for values, (low, high) in zip(entering(exactly(pack), seen.double()), layer_bounds(pack, around, by), strict=True):
        values = values.unflatten(1, (count, len(x)))
        slack = 1e-12 * (1 + values.abs().amax())
        assert (values >= low[:, None] - slack).all()
        assert (values <= high[:, None] + slack).all()
    # What float32 makes of the sampled images is enclosed too.
    least = pairs(pack(seen).double()).unflatten(1, (count, len(x))).amin(1)
    lower = differences(pack, x, ball, by, every=True)
    assert (lower <= least)[..., PAIRS].all()
    # And a bound that were merely low would not be so near.
    if by == "crown" and ball.delta <= 0.03:
        assert (lower >= least - 0.5 * (1 + least.abs()))[..., PAIRS].all()


@known(DENSE_FORM, DENSE_ACTIVATIONS)
def test_the_dense_form_computes_the_same(layers: Layers):
    pack, x = exactly(drawn_pack(layers)).one(1), drawn_images(SHAPE, 20).double()
    dense = as_dense(pack)
    torch.testing.assert_close(dense(x), pack(x), rtol=1e-12, atol=1e-12)
    kernels = [weight.shape for weight in dense.layers.weights if weight.role == "kernel"]
    assert dense_sizes(layers) == [kernels[0][0], *(kernel[1] for kernel in kernels)]


@known(DENSE_FORM, DENSE_ACTIVATIONS)
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
        assert pack(witness).argmax() != predicted[index]


@known(COSTS, ACTIVATIONS)
def test_costs_are_of_all_multiply_adds(layers: Layers):
    found = layer_costs(layers)
    assert sum(cost.macs for cost in found) >= layers.flop / 2
    weighted = [layer.output(shape) for layer, shape in layers.walk() if layer.weights(shape)]
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


ASKED: dict[str, Callable[[Pack], object]] = {
    "forward pass": lambda pack: pack(drawn_images(SHAPE, 1)),
    "Keras model": lambda pack: keras_model(pack.layers),
    "exact answer": as_dense,
    "certificate": stages_of,
    "estimate of costs": lambda pack: costs.passes(pack.layers, 1),
}


@pytest.mark.parametrize("what", ASKED)
def test_a_layer_without_a_rule_is_refused_by_name(what: str):
    with pytest.raises(InputError, match=f"no {what} for layer Mirror; possible: Dense, Conv, Activation"):
        ASKED[what](model_with(Mirror()))


@pytest.mark.parametrize(("what", "possible"), [("forward pass", "relu, tanh, sigmoid"), ("exact answer", "relu")])
def test_an_activation_without_a_rule_is_refused_by_name(what: str, possible: str):
    with pytest.raises(InputError, match=f"no {what} for activation wave; possible: {possible}$"):
        ASKED[what](model_with(Activation("wave")))


def test_a_certificate_of_an_unknown_activation_is_refused_by_name():
    with pytest.raises(InputError, match=r"no certificate for activation wave; possible: relu, tanh, sigmoid$"):
        _ = stages_of(model_with(Activation("wave")))[0].curve
