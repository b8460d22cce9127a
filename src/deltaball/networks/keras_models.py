"""The Keras model of a network's layers."""

import os
from typing import TYPE_CHECKING, Any

from deltaball.networks.layers import Activation, Conv, Dense, Flatten, Layers, MaxPool, rule_for

if TYPE_CHECKING:
    import keras


def keras_model(layers: Layers) -> "keras.Model":
    """The network as a Keras model from images [n, *shape] in [0, 1] to logits [n, classes].

    Built on the backend that KERAS_BACKEND names (torch if unset); Glorot-uniform kernels and zero biases.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    # Whatever ~/.keras/keras.json says.
    keras.config.set_floatx("float32")
    model = keras.Sequential([keras.Input(layers.shape)])
    for layer in layers:
        model.add(rule_for(KERAS, type(layer), "Keras model")(keras.layers, layer))
    return model


def _dense(keras_layers: Any, layer: Dense) -> "keras.Layer":
    return keras_layers.Dense(layer.outputs)


def _convolution(keras_layers: Any, layer: Conv) -> "keras.Layer":
    return keras_layers.Conv2D(layer.filters, layer.size, padding="same", data_format="channels_last")


def _activation(keras_layers: Any, layer: Activation) -> "keras.Layer":
    return keras_layers.Activation(layer.name)


def _max_pool(keras_layers: Any, layer: MaxPool) -> "keras.Layer":
    return keras_layers.MaxPooling2D(2, data_format="channels_last")


def _flatten(keras_layers: Any, layer: Flatten) -> "keras.Layer":
    return keras_layers.Flatten(data_format="channels_last")


# What Keras calls each layer. Its module of layers is an argument, for whoever imports this may still choose a backend.
KERAS = {Dense: _dense, Conv: _convolution, Activation: _activation, MaxPool: _max_pool, Flatten: _flatten}
